"""Kills the example server at random moments while it works on jobs, and checks that nothing is lost, done twice or half-written.

A server on the demo models gets edits and prompts as jobs of random lengths, some of which are cancelled, skipped and stopped; it is
killed, and started again in the same folder. After each kill, with no server running: every job whose acceptance was answered is in
the database once, what was finished before is as it was, and every picture that has its final name is whole. At the end all jobs end;
each picture must be what a job of the same description gives that nobody interrupts. Jobs that were running at three kills are
given up, as documented, and counted.

    cargo build --release -p server-example && python benches/server_kill.py [--kills 50] [--jobs 200] [--seed 1]
"""

import argparse
import asyncio
import base64
import collections
import json
import random
import shutil
import sqlite3
import struct
import tempfile
import time
import urllib.parse
import zlib
from pathlib import Path

from server import ROOT, Client, Server, edit_request

SAMPLES = [(ROOT / f"core/demo/edit/samples/{name}.png").read_bytes() for name in ("circle", "square", "triangle")]
PROMPTS = ["make the background blue", "make it greyscale", "remove the circle"]


SHAPES = ["a red circle on blue", "a green square", "a yellow triangle on black"]


class Edit:
    """A job: which picture, and the fields of its form. Short ones and long ones."""

    def __init__(self, random_):
        self.picture, self.n, self.has_grid = random_.randrange(len(SAMPLES)), random_.randint(1, 3), False
        self.fields = {"prompt": random_.choice(PROMPTS), "seed": random_.randrange(1000), "n": self.n}
        self.fields |= {"num_inference_steps": random_.choice([2, 20, 100, 400])}

    def request(self):
        return edit_request(SAMPLES[self.picture], **self.fields, async_process="true")

    async def alone(self, client):
        """Its pictures, by their numbers."""
        answer = await client.json(*edit_request(SAMPLES[self.picture], **self.fields))
        return dict(enumerate(base64.b64decode(data["b64_json"]) for data in answer["data"]))


class Generation:
    """The same of a prompt."""

    def __init__(self, random_):
        self.n, self.has_grid = random_.randint(1, 4), random_.random() < 0.5
        self.body = {"prompt": random_.choice(SHAPES), "image_seed": random_.randrange(1000), "image_number": self.n, "async_process": True}
        self.body |= {"generate_image_grid": self.has_grid}
        self.body |= {"performance_selection": random_.choice(["Lightning", "Speed"]), "overwrite_step": random_.choice([4, 20, 100])}

    def request(self):
        return "POST", "/v1/engine/generate/", json.dumps(self.body).encode()

    async def alone(self, client):
        task = await client.json(*self.request())
        while task["task_status"] in (None, "pending", "running"):
            await asyncio.sleep(0.01)
            task = await client.json("GET", f"/tasks/{task['task_id']}")
        assert task["task_status"] == "finished", task
        return {number(link): await picture(client, link) for link in task["result"]}


def number(link):
    """Which of its job's pictures one is."""
    return int(link.rsplit("_", 1)[1].removesuffix(".png"))


async def picture(client, link):
    status, _, made = await client.ask("GET", urllib.parse.urlparse(link).path)
    assert status == 200, link
    return made


def check_png(path):
    """Signature, every chunk's checksum, and the end."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n", f"{path} is no picture"
    at, kind = 8, b""
    while at < len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        end = at + 8 + length
        assert struct.unpack(">I", data[end : end + 4])[0] == zlib.crc32(data[at + 4 : end]), f"{path} is damaged"
        at = end + 4
    assert kind == b"IEND", f"{path} is cut off"


def pictures(folder):
    return {path.relative_to(folder / "outputs").as_posix(): path for path in (folder / "outputs").glob("*/*.png")}


def rows(folder):
    """The database as the kill left it. A copy is read: reading it in place would tidy it up."""
    with tempfile.TemporaryDirectory() as copy:
        for path in (folder / "outputs").glob("db.sqlite3*"):
            shutil.copy(path, copy)
        database = sqlite3.connect(Path(copy) / "db.sqlite3")
        database.row_factory = sqlite3.Row
        found = [dict(row) for row in database.execute("SELECT * FROM tasks")]
        database.close()
    return found


class Story:
    """What the clients know: jobs that were accepted, and how those ended that did."""

    def __init__(self, folder):
        self.folder, self.accepted, self.ended = folder, {}, {}

    def check(self):
        found = rows(self.folder)
        counts = collections.Counter(row["task_id"] for row in found)
        assert all(counts[id_] == 1 for id_ in self.accepted), f"{[id_ for id_ in self.accepted if counts[id_] != 1]} lost or doubled"
        made = pictures(self.folder)
        for path in made.values():
            check_png(path)
        for row in found:
            end = {name: row[name] for name in ("task_status", "finish_mills", "result", "message")}
            if row["task_id"] in self.ended:
                assert end == self.ended[row["task_id"]], f"{row} ended another time"
            if row["finish_mills"] is None:
                continue
            self.ended[row["task_id"]] = end
            assert row["task_status"] in ("finished", "failed", "canceled", "stop"), row
            for path in json.loads(row["result"]):
                assert path in made, f"{path} of a finished job is not there"
            if row["task_status"] == "failed":
                assert "3 times" in row["message"], row
        return found


async def live(server, story, random_, seconds):
    """Sends jobs and reads lists until the server is killed."""
    client = Client(server.port)

    async def send():
        while True:
            await asyncio.sleep(random_.uniform(0, 0.4))
            job = random_.choice([Edit, Generation])(random_)
            status, _, body = await client.ask(*job.request())
            assert status in (200, 429, 503), body
            if status == 200:
                story.accepted[json.loads(body)["task_id"]] = job

    async def disturb():
        while True:
            await asyncio.sleep(random_.uniform(0, 0.5))
            if random_.random() < 0.3 and story.accepted:
                await client.ask("POST", f"/tasks/{random_.choice(list(story.accepted))}/cancel")
            else:
                await client.ask("POST", f"/v1/engine/control?action={random_.choice(['skip', 'skip', 'stop'])}")

    async def read():
        while True:
            await asyncio.sleep(0.05)
            lists = await client.json("GET", "/tasks?page_size=1000")
            listed = collections.Counter(task["task_id"] for tasks in lists.values() for task in tasks)
            assert all(number == 1 for number in listed.values()), "a job is in two lists"

    async def kill():
        await asyncio.sleep(seconds)
        server.kill()

    async def until_gone(work):
        while True:
            try:
                await work()
            except (OSError, EOFError):
                if server.process.poll() is not None:
                    return
                await asyncio.sleep(0.02)

    await asyncio.gather(until_gone(send), until_gone(send), until_gone(read), until_gone(disturb), kill())


async def finish(server, story):
    """Lets all jobs end, and makes each finished one again."""
    client = Client(server.port)
    until = time.monotonic() + 300
    while True:
        open_jobs = await client.json("GET", "/tasks?query=pending&page_size=1000")
        current = await client.json("GET", "/tasks?query=current")
        if not open_jobs["pending"] and not current["current"]:
            break
        assert time.monotonic() < until, f"jobs do not end: {open_jobs}"
        await asyncio.sleep(0.1)
    skipped = 0
    for id_, job in story.accepted.items():
        task = await client.json("GET", f"/tasks/{id_}")
        links = task["result"] or []
        if not links:
            continue
        alone = await job.alone(client)
        made = [link for link in links if number(link) < job.n]
        has_grid = job.has_grid and len(made) > 1
        assert len(links) == len(made) + has_grid and len(alone) == job.n + (job.has_grid and job.n > 1)
        skipped += job.n - len(made)
        for link in links:
            assert id_ in link
            # A grid of fewer pictures is another one; that it is whole was checked.
            if number(link) < job.n or len(made) == job.n:
                assert await picture(client, link) == alone[number(link)], f"{link} is another picture than without a kill"
    client.close()
    return skipped


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=200, help="go on with kills until so many were accepted")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    random_ = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        server, story = Server(folder, EDIT_QUEUE=64, GENERATE_QUEUE=64), Story(folder)
        running = parts = kills = 0
        while kills < arguments.kills or len(story.accepted) < arguments.jobs:
            kills += 1
            server.start()
            await live(server, story, random_, random_.uniform(0.05, 1.5))
            if not (folder / "outputs/db.sqlite3").exists():
                continue  # Killed before it had begun.
            found = story.check()
            running += any(row["attempts"] and row["finish_mills"] is None for row in found)
            parts += any("part-" in path.name for path in (folder / "outputs").glob("*/*"))
        server.start().until_ready()
        skipped = await finish(server, story)
        server.stop()
        found = story.check()
        assert all(row["finish_mills"] for row in found)
        results = [path for row in found for path in json.loads(row["result"])]
        assert sorted(results) == sorted(pictures(folder)), "pictures that belong to no job, or to two"
        left = [path for path in (folder / "outputs").glob("*/*") if path.suffix != ".png"] + list((folder / "inputs").glob("*.part-*"))
        assert not left, f"{left} left behind"
        states = collections.Counter(row["task_status"] for row in found)
        again = sum(row["attempts"] > 1 for row in found)
        print(
            f"{kills} kills (seed {arguments.seed}), {running} of them while jobs ran and {parts} within a picture: "
            f"{len(story.accepted)} jobs accepted and answered, {len(found) - len(story.accepted)} more whose answer the kill cut off, "
            f"{dict(states)}, {skipped} pictures skipped or stopped in jobs that have others, {again} begun more than once, "
            f"{len(results)} pictures, all whole and as without a kill"
        )


if __name__ == "__main__":
    asyncio.run(main())
