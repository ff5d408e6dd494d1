"""A process that answers lines with lines: how these scripts ask a worker, of this library or of another engine."""

import subprocess


class Process:
    def __init__(self, command):
        self.process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ready = self.read()

    def read(self):
        line = self.process.stdout.readline()
        assert line, "the worker stopped"
        return line.strip()

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.read()

    def stop(self):
        self.process.stdin.close()
        self.process.wait()
