"""What a stranger may do to the server over a raw socket, and what its neighbours notice of it: nothing."""

import concurrent.futures
import json
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
import unittest
from pathlib import Path

from support import Server, ServeTest, main, read_all

PROFILES = Path(__file__).resolve().parents[2] / "profiles"
LONG = "The lighthouse keeper wrote down the weather every evening. " * 60
ENDLESS = {"max_tokens": 4000, "ignore_eos": True, "temperature": 0}


def post(path, body, *headers, version="1.1"):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/{version}", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class RawTest(ServeTest):
    def say(self, sent):
        """All that comes until the server closes the connection: it must."""
        with self.server.connect() as connection:
            connection.sendall(sent)
            return read_all(connection)

    def status(self, sent):
        received = self.say(sent)
        head, _, body = received.partition(b"\r\n\r\n")
        if int(head.split()[1]) >= 400:
            self.assertEqual(sorted(json.loads(body)["error"]), ["code", "message", "param", "type"])
        return int(head.split()[1])

    def wait_until(self, holds):
        deadline = time.monotonic() + 20
        while not holds():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)

    def wait_until_idle(self):
        self.wait_until(lambda: self.server.metric("vllm:num_requests_running") == 0
                        and self.server.metric("vllm:num_requests_waiting") == 0)
        self.assertEqual(self.server.metric("a2sf_cache_bytes"), 0)


class HostileTest(RawTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.expected = cls.server.complete("The capital of France is", max_tokens=8)["choices"]

    def tearDown(self):
        self.assertEqual(self.server.complete("The capital of France is", max_tokens=8)["choices"], self.expected)

    def test_bodies_that_cannot_be_read(self):
        close = "Connection: close"
        for body in (b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"prompt": "\xc3\x28"}', b'{"prompt": "\\ud800"}',
                     b'{"prompt": NaN}', b'{"prompt": "x", "temperature": 1e999}', b"[" * 100000, b'{"a":' * 50 + b"1" + b"}" * 50,
                     b'{"prompt": [[[1]]]}', b'{"prompt": [-1]}', b'{"prompt": [4000000000]}', b'{"prompt": [49152]}',
                     b'{"prompt": [1.5]}', b'{"prompt": ""}', b'{"prompt": []}', b'{"prompt": {}}', b'{"prompt": ["x", 1]}', b"{}",
                     b'{"prompt": "x", "stop": 1}', b'{"prompt": "x", "stop": ["' + b"s" * 2000 + b'"]}', b'{"prompt": "x", "n": -1}',
                     b'{"prompt": "x", "max_tokens": 1e300}', b'{"prompt": "x", "max_tokens": true}', b'{"prompt": "x", "a2sf": []}',
                     b'{"prompt": "x", "logit_bias": {"a": 1}}', b'{"prompt": "x", "logit_bias": {"99999": 1}}',
                     b'{"prompt": "x", "a2sf": {"budget": -5}}', b'{"prompt": "x", "a2sf": {"budget": 10, "sink": 20}}'):
            self.assertEqual(self.status(post("/v1/completions", body, close)), 400, body[:60])
        for body in (b"{}", b'{"messages": []}', b'{"messages": [1]}', b'{"messages": [{}]}', b'{"messages": [{"role": "user"}]}',
                     b'{"messages": [{"role": "ghost", "content": "x"}]}', b'{"messages": [{"role": "user", "content": "\\u0000"}]}',
                     b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}'):
            self.assertEqual(self.status(post("/v1/chat/completions", body, close)), 400, body)
        for path in ("/tokenize", "/detokenize"):
            for body in (b"{}", b"{", b'{"content": 1}', b'{"tokens": "x"}', b'{"tokens": [-1]}'):
                self.assertEqual(self.status(post(path, body, close)), 400, body)

    def test_requests_that_are_none(self):
        self.assertEqual(self.status(b"GARBAGE\r\n\r\n"), 400)
        self.assertEqual(self.status(b"GET /health HTTP/9.9\r\n\r\n"), 400)
        self.assertEqual(self.status(b"GET /../../etc/passwd HTTP/1.1\r\nConnection: close\r\n\r\n"), 404)
        self.assertEqual(self.status(b"GET /v1/completions HTTP/1.1\r\nConnection: close\r\n\r\n"), 405)
        self.assertEqual(self.status(b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 10000 + b"\r\n"), 431)
        self.assertEqual(self.status(b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n"), 431)
        self.assertEqual(self.status(b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n"), 413)
        self.assertEqual(self.status(post("/v1/completions", b"x" * (5 << 20))), 413)
        self.assertEqual(self.status(b"POST /v1/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), 400)

    def test_half_a_request_is_dropped_without_an_answer(self):
        for sent in (b"", b"POST /v1/comp", post("/v1/completions", {"prompt": "x"})[:-3]):
            with self.server.connect() as connection:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                self.assertEqual(read_all(connection), b"")

    def test_a_request_that_comes_drop_by_drop_is_dropped(self):
        with self.server.connect() as connection:
            began = time.monotonic()
            try:
                while time.monotonic() < began + 45:
                    connection.sendall(b"X")
                    time.sleep(0.5)
            except ConnectionError:
                pass
            self.assertLess(time.monotonic() - began, 40)

    def test_requests_follow_each_other_on_a_connection(self):
        last = post("/v1/completions", {"prompt": "x", "max_tokens": 1}, "Connection: close")
        received = self.say(b"GET /health HTTP/1.1\r\n\r\n" * 3 + b"GET /nowhere HTTP/1.1\r\n\r\n" + last)
        self.assertEqual(re.findall(rb"HTTP/1\.1 (\d+)", received), [b"200"] * 3 + [b"404", b"200"])

    def test_a_stream_over_http_1_0_ends_with_the_connection(self):
        received = self.say(post("/v1/completions", {"prompt": "x", "max_tokens": 3, "stream": True}, version="1.0"))
        head, _, body = received.partition(b"\r\n\r\n")
        self.assertNotIn(b"chunked", head)
        self.assertTrue(body.startswith(b"data: {") and body.endswith(b"data: [DONE]\n\n"), body)


class GoneTest(RawTest):
    ARGUMENTS = ("--max-sequences", 1, "--queue", 1)

    def test_who_is_gone_costs_nothing_in_any_state(self):
        for stream in (False, True):
            for delay in (0, 0.01, 0.1, 0.4):
                with self.server.connect() as connection:
                    connection.sendall(post("/v1/completions", {"prompt": LONG, "stream": stream, **ENDLESS}))
                    time.sleep(delay)
                self.wait_until_idle()
        with self.server.connect() as runs:
            runs.sendall(post("/v1/completions", {"prompt": LONG, "stream": True, **ENDLESS}))
            self.assertIn(b"text/event-stream", runs.recv(1000))
            with self.server.connect() as waits:
                waits.sendall(post("/v1/completions", {"prompt": LONG, **ENDLESS}))
                self.wait_until(lambda: self.server.metric("vllm:num_requests_waiting") == 1)
            self.wait_until(lambda: self.server.metric("vllm:num_requests_waiting") == 0)
        self.wait_until_idle()

    def test_a_full_queue_says_when_to_come_again_and_health_answers(self):
        with self.server.connect() as runs, self.server.connect() as waits:
            for connection in (runs, waits):
                connection.sendall(post("/v1/completions", {"prompt": LONG, **ENDLESS}))
                self.wait_until(lambda: self.server.metric("vllm:num_requests_running") == 1)
            self.wait_until(lambda: self.server.metric("vllm:num_requests_waiting") == 1)
            with self.server.connect() as refused:
                refused.sendall(post("/v1/completions", {"prompt": "x"}, "Connection: close"))
                received = read_all(refused)
            self.assertTrue(received.startswith(b"HTTP/1.1 429 ") and b"Retry-After: 1\r\n" in received, received)
            began = time.monotonic()
            self.assertEqual(self.server.ask("/health")[0], 200)
            self.assertLess(time.monotonic() - began, 0.5)
        self.wait_until_idle()


class PingTest(RawTest):
    ARGUMENTS = ("--max-sequences", 1, "--ping-seconds", 1)

    def test_a_stream_that_waits_is_kept_alive_and_then_answered(self):
        with self.server.connect() as runs, self.server.connect() as waits:
            runs.sendall(post("/v1/completions", {"prompt": LONG, **ENDLESS}))
            self.wait_until(lambda: self.server.metric("vllm:num_requests_running") == 1)
            waits.sendall(post("/v1/completions", {"prompt": "x", "stream": True, "max_tokens": 2}, "Connection: close"))
            received = b""
            while received.count(b": ping\n\n") < 2:
                received += waits.recv(65536)
            self.assertNotIn(b"data:", received)
            runs.close()
            received += read_all(waits)
        self.assertTrue(received.startswith(b"HTTP/1.1 200 ") and b"data: [DONE]" in received, received)


class SlowTest(RawTest):
    ARGUMENTS = ("--max-sequences", 16)

    def test_slow_readers_and_many_connections_hold_nobody_up(self):
        fields = {"prompt": "Once upon a time", "stream": True, "max_tokens": 300, "ignore_eos": True}
        idle = [socket.create_connection(("127.0.0.1", self.server.port)) for _ in range(300)]
        slow = [socket.create_connection(("127.0.0.1", self.server.port)) for _ in range(4)]
        for connection in slow:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            connection.sendall(post("/v1/completions", fields, "Connection: close"))
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            quick = list(pool.map(lambda _: self.server.complete("The capital of France is", max_tokens=8), range(8)))
        self.assertEqual(len({answer["choices"][0]["text"] for answer in quick}), 1)
        self.wait_until_idle()  # although nobody has read what they said
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for received in pool.map(read_all, slow):
                self.assertIn(b"data: [DONE]", received)
        for connection in idle + slow:
            connection.close()


class ConversationTest(unittest.TestCase):
    """A conversation's next turn goes on from the cache that the last one left, for the same key."""

    def turns(self, *arguments):
        """The answers of two turns and of two other conversations, with the tokens that a kept cache had read."""
        with tempfile.NamedTemporaryFile("w") as keys:
            keys.write("one\ntwo\n")
            keys.flush()
            server = Server("-t", 1, "--budget", 64, "--api-key-file", keys.name, *arguments)
        said = []

        def ask(key, messages):
            status, answer = server.ask("/v1/chat/completions", {"messages": messages, "max_tokens": 24, "temperature": 0},
                                        {"Authorization": f"Bearer {key}"})
            self.assertEqual(status, 200, answer)
            text, usage = answer["choices"][0]["message"]["content"], answer["usage"]
            said.append((text, usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]))
            return [*messages, {"role": "assistant", "content": text}]

        system = {"role": "system", "content": "You are a careful guide. " * 20}
        first = ask("one", [system, {"role": "user", "content": "Name three rivers."}])
        ask("one", [*first, {"role": "user", "content": "And three mountains?"}])
        ask("one", [system, {"role": "user", "content": "Name a lake."}])
        ask("two", [system, {"role": "user", "content": "Name a lake."}])
        self.assertEqual(server.stop(), (0, ""))
        return said

    def test_what_was_read_is_not_read_again_and_nothing_else_changes(self):
        kept, anew = self.turns(), self.turns("--prefix-memory", 0)
        self.assertEqual([turn[:2] for turn in kept], [turn[:2] for turn in anew])
        self.assertEqual([turn[2] for turn in anew], [0, 0, 0, 0])
        (_, read, none), (_, _, turn), (_, _, system), (_, _, foreign) = kept
        self.assertEqual((none, foreign), (0, 0))
        self.assertGreater(turn, read)
        self.assertGreater(system, 100)
        self.assertLess(system, read)


class EndTest(RawTest):
    @classmethod
    def setUpClass(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        pass

    def test_what_runs_ends_and_nothing_new_begins(self):
        server = Server("-t", 1)
        with server.connect() as runs, server.connect() as idle:
            runs.sendall(post("/v1/completions", {"prompt": "x", "stream": True, "max_tokens": 200, "ignore_eos": True}))
            self.assertIn(b"text/event-stream", runs.recv(1000))
            server.process.send_signal(signal.SIGTERM)
            self.assertIn(b"data: [DONE]", read_all(runs))
            self.assertEqual(read_all(idle), b"")
        self.assertEqual(server.process.wait(20), 0)
        server.stop()

    def test_the_time_to_end_is_bounded_and_ctrl_c_ends_as_well(self):
        server = Server("-t", 1, "--drain-seconds", 1)
        with server.connect() as runs:
            runs.sendall(post("/v1/completions", {"prompt": LONG, **ENDLESS}))
            time.sleep(0.3)
            began = time.monotonic()
            self.assertEqual(server.stop(signal.SIGINT), (0, ""))
            self.assertLess(time.monotonic() - began, 5)

    def test_what_cannot_be_served_is_said_in_a_line(self):
        for arguments, mention in ((("--host", "nowhere"), "--host nowhere"), (("--budget", "0.2"), "--budget"),
                                   (("--api-key-file", "/nonexistent"), "/nonexistent")):
            with self.assertRaises(RuntimeError) as caught:
                Server(*arguments)
            self.assertRegex(str(caught.exception), rf"^a2sf: [^\n]*{mention}[^\n]*\n$")
        one = Server("-t", 1)
        with self.assertRaisesRegex(RuntimeError, "cannot listen"):
            Server(port=one.port)
        one.stop()

    def test_profiles_of_a_folder_have_its_names(self):
        with tempfile.TemporaryDirectory() as folder:
            mine = Path(folder) / "mine.json"
            shutil.copy(PROFILES / "smollm2-135m.json", mine)
            (Path(folder) / "notes.txt").write_text("not a profile", encoding="utf-8")
            server = Server("-t", 1, "--profiles", folder)
            self.assertIn("mine", server.ask("/props")[1]["a2sf"]["profiles"])
            answer = server.complete("x", max_tokens=40, a2sf={"budget": 32, "profile": "mine"})
            self.assertEqual(answer["usage"]["a2sf"]["profile"], "mine")
            self.assertEqual(server.stop(), (0, ""))
            for name, source, wrong in (("other", "gemma3-270m", "other.json is of another model"),
                                        ("auto", "smollm2-135m", "auto.json has a name")):
                taken = mine.rename(mine.with_name(f"{name}.json"))
                shutil.copy(PROFILES / f"{source}.json", taken)
                with self.assertRaisesRegex(RuntimeError, wrong):
                    Server("-t", 1, "--profiles", folder)
                mine = taken
            taken.write_text("{", encoding="utf-8")
            with self.assertRaisesRegex(RuntimeError, "auto.json"):
                Server("-t", 1, "--profiles", folder)
        with self.assertRaisesRegex(RuntimeError, "--profiles /nonexistent: No such"):
            Server("-t", 1, "--profiles", "/nonexistent")

    def test_an_open_server_without_a_key_is_warned_of(self):
        server = Server("-t", 1, "--host", "0.0.0.0")
        code, said = server.stop()
        self.assertEqual(code, 0)
        self.assertRegex(said, "^a2sf: warning: [^\n]*--api-key-file[^\n]*\n$")

    def test_pages_of_one_origin_may_ask(self):
        server = Server("-t", 1, "--cors", "https://example.org")
        with server.open("/health") as answer:
            self.assertEqual(answer.headers["Access-Control-Allow-Origin"], "https://example.org")
        with server.connect() as connection:
            connection.sendall(b"OPTIONS /v1/completions HTTP/1.1\r\nConnection: close\r\n\r\n")
            self.assertTrue(read_all(connection).startswith(b"HTTP/1.1 204 "))
        self.assertEqual(server.stop(), (0, ""))


if __name__ == "__main__":
    sys.exit(main())
