"""The example server as a process in a folder of its own, and a client for it: what the scripts about it share."""

import asyncio
import base64
import collections
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = os.environ.get("SERVER", ROOT / "target/release/server-example")
# Seconds after which a connection is not used again: the server closes those that rest for 30.
RESTS = 10
BOUNDARY = "a-boundary-that-no-picture-has"


def allow_many_connections():
    """As many open files as the system allows, also for the servers that are started."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Server:
    """Runs from `start` to `stop` or `kill`, and any number of times, in `folder`."""

    def __init__(self, folder, **settings):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = pathlib.Path(folder)
        self.settings = {"PORT": str(self.port), "LOG_LEVEL": "warn"} | {name: str(value) for name, value in settings.items()}
        self.process = None

    def start(self):
        with open(self.folder / "log", "a") as log:
            own = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
            self.process = subprocess.Popen([str(PROGRAM)], cwd=self.folder, env=own | self.settings, stdout=log, stderr=log)
        return self

    def until_ready(self):
        until = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, f"the server ended: {(self.folder / 'log').read_text()}"
            assert time.monotonic() < until, "the server is not ready"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready") as answer:
                    assert answer.status == 200
                    return self
            except OSError:
                time.sleep(0.02)

    def resident(self):
        """Resident memory in MB."""
        lines = pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self.start().until_ready()

    def __exit__(self, kind, *_):
        self.kill() if kind else self.stop()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        assert code == 0, f"the server ended with {code}"


class Client:
    """Requests to a server, over as many connections as there are requests at once."""

    def __init__(self, port):
        self.port, self.idle = port, collections.deque()

    async def ask(self, method, path, body=b"", content_type="application/json"):
        """Status, headers and body; `OSError` or `EOFError` when the server is gone."""
        while self.idle and time.monotonic() - self.idle[0][2] > RESTS:
            self.idle.popleft()[1].close()
        reader, writer, _ = self.idle.pop() if self.idle else (*await asyncio.open_connection("127.0.0.1", self.port), 0)
        try:
            head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:] if line)}
            answer = await reader.readexactly(int(headers["content-length"]))
        except BaseException:
            writer.close()
            raise
        if headers.get("connection") == "close":
            writer.close()
        else:
            self.idle.append((reader, writer, time.monotonic()))
        return int(lines[0].split()[1]), headers, answer

    async def json(self, method, path, *body):
        """The body of a good answer."""
        status, _, answer = await self.ask(method, path, *body)
        assert status == 200, answer
        return json.loads(answer)

    def close(self):
        for _, writer, _ in self.idle:
            writer.close()
        self.idle.clear()


def tag_request(picture):
    """The arguments of `Client.ask` for the tags of a picture."""
    body = {"images": [base64.b64encode(picture).decode()], "model": "demo", "threshold": 0.35}
    return "POST", "/tagger/v1/interrogate-batch", json.dumps(body).encode()


def edit_request(picture, **fields):
    """The arguments of `Client.ask` for an edit of a picture."""
    parts = [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    body = b"".join([*parts, head.encode(), picture, f"\r\n--{BOUNDARY}--\r\n".encode()])
    return "POST", "/v1/images/edits", body, f"multipart/form-data; boundary={BOUNDARY}"
