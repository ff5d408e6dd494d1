"""The example server under load, on the demo models: what merging gains, and what becomes of twice what it can do.

First, tags for 32 clients that ask one after the other: with the server's batches, with batches of one picture, and for a single
client, in turn for several rounds. Then requests at twice the measured rate, sent when they are due whether or not earlier ones were
answered, for tags and for edits: how long those took that were accepted, from when they were due; how many were
refused with 429; and the memory of the server over time. At last many small jobs, and the memory meanwhile. Answers are compared with those of an idle server. Results go to
`results/server_load.json`. Clients and server share the machine; nothing else should run on it.

    cargo build --release -p server-example && python benches/server_load.py [--seconds 60] [--rounds 3] [--jobs 2000]
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time

from machine import machine
from server import ROOT, Client, Server, allow_many_connections, edit_request, tag_request

CLIENTS = 32
OWL = (ROOT / "core/demo/images/owl.png").read_bytes()
CIRCLE = (ROOT / "core/demo/edit/samples/circle.png").read_bytes()
TAG = tag_request(OWL)
EDIT = edit_request(CIRCLE, prompt="make the background blue", seed=1)


async def closed_loop(server, request, clients, seconds):
    """Answers per second for clients that each wait for an answer before they ask again."""
    client = Client(server.port)
    until = time.monotonic() + seconds
    done = 0

    async def ask_on():
        nonlocal done
        while time.monotonic() < until:
            await client.json(*request)
            done += 1

    start = time.monotonic()
    await asyncio.gather(*(ask_on() for _ in range(clients)))
    client.close()
    return done / (time.monotonic() - start)


async def open_loop(server, request, rate, seconds, same):
    """Requests at random times, `rate` of them in a second on average."""
    client = Client(server.port)
    answers, memory, tasks = [], [server.resident()], set()

    async def ask(due):
        try:
            status, headers, body = await client.ask(*request)
        except (OSError, EOFError, ConnectionError) as error:
            answers.append((type(error).__name__, 0, False))
            return
        took = time.monotonic() - due
        good = same(json.loads(body)) if status == 200 else "retry-after" in headers
        answers.append((status, took, good))

    start = due = time.monotonic()
    while due < start + seconds:
        await asyncio.sleep(max(0, due - time.monotonic()))
        task = asyncio.create_task(ask(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        due += random.expovariate(rate)
        if time.monotonic() - start > len(memory):
            memory.append(server.resident())
    lag = max(0, time.monotonic() - start - seconds)
    await asyncio.gather(*tasks)
    elapsed = time.monotonic() - start
    memory.append(server.resident())
    client.close()
    return report(answers, memory, rate, elapsed, lag)


def report(answers, memory, rate, seconds, lag):
    accepted = sorted(took for status, took, _ in answers if status == 200)
    refused = [took for status, took, _ in answers if status == 429]
    others = [status for status, _, _ in answers if status not in (200, 429)]
    assert all(good for status, _, good in answers if status == 200), "an answer differs from that of an idle server"
    assert all(good for status, _, good in answers if status == 429), "a refusal without Retry-After"
    assert not others, f"other answers: {set(others)}"
    assert refused, "nothing was refused: this was not too much"
    part = lambda share: round(accepted[min(int(share * len(accepted)), len(accepted) - 1)], 3)
    half = len(memory) // 2
    run = {
        "asked_per_second": round(rate, 1), "seconds": round(seconds, 1), "accepted": len(accepted), "refused_429": len(refused),
        "accepted_per_second": round(len(accepted) / seconds, 1),
        "latency_s": {"p50": part(0.5), "p95": part(0.95), "p99": part(0.99), "max": round(accepted[-1], 3)},
        "refusal_latency_p99_s": round(sorted(refused)[int(0.99 * len(refused))], 3),
        "resident_mb": {"start": round(memory[0], 1), "first_half": round(max(memory[:half]), 1), "second_half": round(max(memory[half:]), 1)},
        "sender_late_s": round(lag, 3),
    }
    print(json.dumps(run), flush=True)
    return run


async def merging(arguments):
    """Tags per second: 32 clients with batches and without, and one client."""
    ways = {"merged": (CLIENTS, {}), "batches_of_one": (CLIENTS, {"TAG_BATCH": 1, "TAG_DELAY_MS": 0}), "one_client": (1, {"TAG_DELAY_MS": 0})}
    rates = {name: [] for name in ways}
    for round_ in range(arguments.rounds):
        for name, (clients, settings) in ways.items():
            with tempfile.TemporaryDirectory() as folder, Server(folder, **settings) as server:
                await closed_loop(server, TAG, clients, 1)
                rates[name].append(round(await closed_loop(server, TAG, clients, arguments.closed), 1))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    gains = {name: round(middle["merged"] / middle[name], 2) for name in ("batches_of_one", "one_client")}
    print(f"tags per second: {rates}; merged is {gains['batches_of_one']} times batches of one, {gains['one_client']} times one client", flush=True)
    return middle["merged"], {"pictures_per_second": rates, "merged_over": gains}


async def overload(arguments, request, capacity, same_as):
    """Twice the capacity, which is measured unless it is known."""
    with tempfile.TemporaryDirectory() as folder, Server(folder) as server:
        client = Client(server.port)
        alone = same_as(await client.json(*request))
        client.close()
        if capacity is None:
            capacity = await closed_loop(server, request, 16, arguments.closed)
            print(f"edits per second with 16 clients: {capacity:.1f}", flush=True)
        run = await open_loop(server, request, 2 * capacity, arguments.seconds, lambda body: same_as(body) == alone)
    return {"capacity_per_second": round(capacity, 1)} | run


async def many_jobs(arguments):
    """Memory while a lot of small jobs come and go, of which some always wait."""
    request = edit_request(CIRCLE, prompt="make the background blue", num_inference_steps=1, async_process="true")
    with tempfile.TemporaryDirectory() as folder, Server(folder) as server:
        client, accepted, memory, start = Client(server.port), 0, [], time.monotonic()
        while accepted < arguments.jobs:
            status, _, body = await client.ask(*request)
            assert status in (200, 429), body
            if status == 429:
                await asyncio.sleep(0.02)
                continue
            accepted += 1
            if accepted % max(1, arguments.jobs // 8) == 0:
                memory.append(round(server.resident(), 1))
        last = f"/tasks/{json.loads(body)['task_id']}"
        while (await client.json("GET", last))["task_status"] != "finished":
            await asyncio.sleep(0.05)
        took = time.monotonic() - start
        client.close()
    print(f"{accepted} jobs in {took:.0f} s, resident MB after each eighth: {memory}", flush=True)
    return {"jobs": accepted, "seconds": round(took, 1), "resident_mb": memory}


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60, help="of each open loop")
    parser.add_argument("--closed", type=float, default=5, help="seconds of each closed loop")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2000)
    arguments = parser.parse_args()
    random.seed(1)
    allow_many_connections()
    capacity, gains = await merging(arguments)
    results = {"machine": machine(), "clients": CLIENTS, "merging": gains}
    results["tags"] = await overload(arguments, TAG, capacity, lambda body: body["captions"])
    results["edits"] = await overload(arguments, EDIT, None, lambda body: body["data"])
    results["jobs"] = await many_jobs(arguments)
    (ROOT / "benches/results/server_load.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
