"""Starts the program as a server and talks to it. A2SF_PROGRAM names it, A2SF_MODEL the model."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import unittest
import urllib.error
import urllib.request
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "a2sf"
MODEL = os.environ.get("A2SF_MODEL") or str(CACHE / "SmolLM2-135M-Instruct.Q4_1.gguf")
PROGRAM = os.environ.get("A2SF_PROGRAM", "")
NAME = Path(MODEL).stem
SKIPPED = 77
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # past any proxy of the environment


def open_address(url, body=None, headers=None):
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    return DIRECT.open(request, timeout=120)


class Server:
    def __init__(self, *arguments, port=0):
        self.process = subprocess.Popen([PROGRAM, "serve", "-m", MODEL, "--port", str(port), *map(str, arguments)],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.first_line = self.process.stdout.readline()
        found = re.search(r"http://[\d.]+:(\d+)", self.first_line)
        if not found:
            raise RuntimeError(self.process.communicate()[1])
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self, how=signal.SIGTERM):
        """Exit code, and what it said on stderr."""
        self.process.send_signal(how)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said

    def open(self, path, body=None, headers=None):
        return open_address(self.url + path, body, headers)

    def ask(self, path, body=None, headers=None):
        """Status and document."""
        try:
            with self.open(path, body, headers) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def complete(self, prompt, **fields):
        status, answer = self.ask("/v1/completions", {"prompt": prompt, "temperature": 0, **fields})
        assert status == 200, answer
        return answer

    def metric(self, name):
        with self.open("/metrics") as answer:
            text = answer.read().decode()
        return float(re.search(rf"^{re.escape(name)}\{{[^}}]*\}} (\S+)$", text, re.M)[1])

    @contextlib.contextmanager
    def connect(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            yield connection


def read_all(connection):
    received = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            received += part
    return received


class ServeTest(unittest.TestCase):
    ARGUMENTS = ()

    @classmethod
    def setUpClass(cls):
        cls.server = Server("-t", 1, *cls.ARGUMENTS)

    @classmethod
    def tearDownClass(cls):
        code, said = cls.server.stop()
        assert (code, said) == (0, ""), (code, said)


def main():
    if os.environ.get("A2SF_TEST_TINY_ONLY") or not os.path.exists(PROGRAM) or not os.path.exists(MODEL):
        return SKIPPED
    return 0 if unittest.main(exit=False, verbosity=2).result.wasSuccessful() else 1
