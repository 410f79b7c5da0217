"""The files of deploy/: two servers behind HAProxy, a dashboard of metrics that exist, an image that has its libraries."""

import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
from pathlib import Path

from support import PROGRAM, Server, main, open_address

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
BASE = ("libc.so", "libm.so", "libstdc++.so", "libgcc_s.so", "ld-linux", "linux-vdso")  # what every Debian has


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def turn(system, question, *more):
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return {"messages": messages + list(more), "max_tokens": 4, "temperature": 0, "ignore_eos": True}


@unittest.skipUnless(shutil.which("haproxy"), "HAProxy is not installed")
class ProxyTest(unittest.TestCase):
    def setUp(self):
        self.servers = {name: Server("-t", 1) for name in ("first", "second")}
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        port = free_port()
        text = (DEPLOY / "haproxy.cfg").read_text().replace("bind 127.0.0.1:8080", f"bind 127.0.0.1:{port}")
        for name, old in (("first", 8081), ("second", 8082)):
            text = text.replace(f"server {name} 127.0.0.1:{old}", f"server {name} 127.0.0.1:{self.servers[name].port}")
        config = Path(folder.name, "haproxy.cfg")
        config.write_text(text)
        self.url = f"http://127.0.0.1:{port}"
        self.proxy = subprocess.Popen(["haproxy", "-f", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self.up():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)

    def tearDown(self):
        self.proxy.kill()
        self.proxy.wait()
        for server in self.servers.values():
            if server.process.poll() is None:
                self.assertEqual(server.stop(), (0, ""))

    def answers(self, name):
        try:
            return self.servers[name].ask("/health")[0] == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    def up(self):
        try:
            with self.open("/health"):
                return True
        except (urllib.error.URLError, ConnectionError):
            return False

    def open(self, path, body=None, key="x"):
        return open_address(self.url + path, body, {"Authorization": f"Bearer {key}"})

    def who(self, body, key="x"):
        """The server that answers."""
        with self.open("/v1/chat/completions", body, key) as answer:
            json.load(answer)
            return answer.headers["X-A2SF-Server"]

    def test_a_conversation_stays_and_conversations_spread(self):
        first = {i: self.who(turn("You are brief.", f"Question {i}?")) for i in range(12)}
        self.assertEqual(set(first.values()), {"first", "second"})
        for i, server in first.items():
            more = [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Go on. " * (1 + 40 * i)}]
            self.assertEqual(self.who(turn("You are brief.", f"Question {i}?", *more)), server)
        self.assertEqual({self.who(turn("You are brief.", "Question 0?"), key) for key in "abcdefghijkl"},
                         {"first", "second"})

    def test_a_server_that_drains_ends_its_streams_and_gets_no_more(self):
        stream = {**turn("You are brief.", "Tell a story."), "max_tokens": 400, "stream": True}
        with self.open("/v1/chat/completions", stream) as answer:
            name = answer.headers["X-A2SF-Server"]
            answer.readline()
            self.servers[name].process.terminate()
            deadline = time.monotonic() + 10
            while self.answers(name):  # until it has the signal
                self.assertLess(time.monotonic(), deadline)
            other = {"first": "second", "second": "first"}[name]
            for i in range(8):
                self.assertEqual(self.who(turn("You are brief.", f"Question {i}?")), other)
            self.assertTrue(answer.read().endswith(b"data: [DONE]\n\n"))
        self.assertEqual(self.servers[name].process.communicate(timeout=30), ("", ""))
        self.assertEqual(self.servers[name].process.returncode, 0)
        self.assertEqual(self.who(turn("You are brief.", "Tell a story.")), other)


class FilesTest(unittest.TestCase):
    def test_the_dashboard_asks_for_metrics_that_exist(self):
        server = Server("-t", 1)
        server.complete("Once", max_tokens=2)
        server.ask("/v1/completions", {})
        with server.open("/metrics") as answer:
            there = set(re.findall(r"^([a-z0-9_:]+)[{ ]", answer.read().decode(), re.M))
        server.stop()
        dashboard = json.loads((DEPLOY / "grafana.json").read_text())
        panels = dashboard["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        for panel in panels:
            for target in panel["targets"]:
                names = re.findall(r"(?:vllm:|a2sf_)[a-z0-9_]+", target["expr"])
                self.assertTrue(names, panel["title"])
                for name in names:
                    self.assertIn(name, there, panel["title"])

    def test_the_image_installs_the_libraries_of_the_program(self):
        linked = subprocess.run(["ldd", PROGRAM], capture_output=True, text=True, check=True).stdout
        needed = [line.split()[0] for line in linked.splitlines()]
        image = (DEPLOY / "Dockerfile").read_text().split("bookworm-slim")[1]
        installed = set(re.search(r"--no-install-recommends (.*) &&", image)[1].split())
        asked = subprocess.run(["apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts",
                                "--no-breaks", "--no-replaces", "--no-enhances", "-i", *installed],
                               capture_output=True, text=True, check=True).stdout
        packages = set(re.findall(r"^\S+", asked, re.M))
        for library in needed:
            if Path(library).name.startswith(BASE):
                continue
            found = subprocess.run(["dpkg", "-S", f"*/{library}"], capture_output=True, text=True, check=False).stdout
            self.assertTrue({line.split(":")[0] for line in found.splitlines()} & packages, library)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd is not installed")
    def test_the_unit_is_valid(self):
        with tempfile.TemporaryDirectory() as folder:
            unit = Path(folder, "a2sf.service")
            unit.write_text((DEPLOY / "a2sf.service").read_text().replace("/usr/local/bin/a2sf", PROGRAM))
            done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    sys.exit(main())
