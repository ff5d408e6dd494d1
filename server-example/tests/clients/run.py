"""Runs the examples of FooocusAPI's document against the server as a process on its demo models, unchanged but for the port.

    SERVER=target/release/server-example python server-example/tests/clients/run.py
"""

import ast
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

import requests

EXAMPLES = pathlib.Path(__file__).parent / "examples"
MESSAGES = ["Loading models ...", "Preparing task 1/1 ...", "Sampling step 4/4, image 1/1 ...", "Saving image 1/1 to system ...", "Finished"]


def ask(port, name):
    """What an example prints."""
    code = (EXAMPLES / f"{name}.py").read_text()
    assert code.count("127.0.0.1:7866") == 1
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONUTF8": "1"}
    program = [sys.executable, "-c", code.replace("127.0.0.1:7866", f"127.0.0.1:{port}")]
    ran = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, f"{name}: {ran.stderr}"
    return ran.stdout


def check_messages(found):
    """All of the document's, in its order. Steps that nobody read in time may be missing, and what was left out is told first."""
    found = [message for message in found if not message.startswith("Note: ")]
    places = [found.index(message) for message in MESSAGES]
    assert places == sorted(places), found
    assert all(message in MESSAGES or re.fullmatch(r"Sampling step [123]/4, image 1/1 \.\.\.", message) for message in found), found


def check_async(port):
    task = ast.literal_eval(ask(port, "async"))
    id_ = task.pop("task_id")
    assert re.fullmatch("[0-9a-f]{32}", id_)
    assert task == {
        "id": -1, "req_params": {}, "in_queue_mills": -1, "start_mills": -1, "finish_mills": -1, "task_status": "pending",
        "progress": -1, "preview": "", "webhook_url": "", "result": [],
    }  # fmt: skip
    until = time.monotonic() + 60
    while (task := requests.get(f"http://127.0.0.1:{port}/tasks/{id_}").json())["finish_mills"] in (None, -1):
        assert time.monotonic() < until, task
        time.sleep(0.05)
    assert task["task_status"] == "finished" and task["progress"] == 100 and task["id"] > 0, task
    assert task["req_params"]["performance_selection"] == "Lightning"
    picture = requests.get(task["result"][0])
    assert picture.headers["content-type"] == "image/png" and picture.content.startswith(b"\x89PNG")


def check_stream(port):
    lines = ask(port, "stream").splitlines()
    assert lines[1::2] == ["data: "] * (len(lines) // 2), "an empty line of data after each"
    check_messages([re.search('"message": "(.*?)", "images"', line)[1] for line in lines[::2]])
    assert lines[-2].startswith('data: {"progress": 100, "preview": null, "message": "Finished", "images": ["http://127.0.0.1:')


def check_stream_json(port):
    events = [ast.literal_eval(line) for line in ask(port, "stream_json").splitlines()]
    check_messages([event["message"] for event in events])
    assert all(list(event) == ["progress", "preview", "message", "images"] for event in events)
    assert all((event["preview"] is not None) == event["message"].startswith("Sampling") for event in events)
    progress = [event["progress"] for event in events]
    assert progress == sorted(progress) and progress[-1] == 100
    assert requests.get(events[-1]["images"][0]).content.startswith(b"\x89PNG")


def check_binary(port):
    assert ask(port, "binary") == "", "the example shows a picture and says nothing"


def main():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PATH": os.environ["PATH"], "PORT": str(port), "LOG_LEVEL": "warn"}
        server = subprocess.Popen([pathlib.Path(os.environ["SERVER"]).resolve()], cwd=folder, env=environment)
        try:
            until = time.monotonic() + 60
            while True:
                assert server.poll() is None and time.monotonic() < until, "the server does not start"
                try:
                    if requests.get(f"http://127.0.0.1:{port}/ready").ok:
                        break
                except requests.ConnectionError:
                    pass
                time.sleep(0.05)
            for check in (check_async, check_stream, check_stream_json, check_binary):
                check(port)
                print(f"{check.__name__} passed")
        finally:
            server.terminate()
            assert server.wait(60) == 0


if __name__ == "__main__":
    main()
