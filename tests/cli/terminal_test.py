"""What a person at a terminal sees and does: Ctrl-C and other signals, the progress bar, figures, warnings."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

from cli_test import MODEL, PROGRAM, CliTest, a2sf, main

SECONDS = 120  # for anything to happen on a busy machine


class Terminal:
    """The program with a terminal of its own as stdin, stdout (unless that is a file) and stderr."""

    def __init__(self, *arguments, stdout=None, **environment):
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            if stdout is not None:
                os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT), 1)
            os.execve(PROGRAM, [PROGRAM, *map(str, arguments)], {**os.environ, "TERM": "xterm", **environment})
        self.shown = b""

    def type(self, text):
        os.write(self.terminal, text)

    def read_until(self, wanted=None, times=1):
        """Waits until `wanted` is shown that many times, or for the end of the program."""
        deadline = time.monotonic() + SECONDS
        while wanted is None or self.shown.count(wanted) < times:
            if not select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"no {wanted} in {self.shown}")
            try:
                self.shown += os.read(self.terminal, 4096)
            except OSError:  # EIO: the program has ended
                break

    def exit_code(self):
        self.read_until()
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


class InterruptTest(CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        text = Path(cls.text)
        text.write_text(text.read_text() * 20)  # far more than is read before the interruption; within the context

    def interrupt(self, wanted, *arguments, typed=b""):
        """Ctrl-C once `wanted` is shown: exit code 130, no message, no file."""
        terminal = Terminal(*arguments)
        terminal.type(typed)
        terminal.read_until(wanted)
        terminal.type(b"\x03")
        self.assertEqual(terminal.exit_code(), 130, terminal.shown)
        self.assertNotIn(b"a2sf:", terminal.shown)
        self.assertEqual(os.listdir(self.folder.name), ["text.txt"])

    def output(self):
        return Path(self.folder.name) / "out.json"

    def test_run(self):
        self.interrupt(b"time", "run", "-m", MODEL, "-p", "Once upon a", "-n", 8000, "-o", self.output())

    def test_compare(self):
        self.interrupt(b"%", "compare", "-m", MODEL, "-f", self.text, "--budget", 64, "-o", self.output())

    def test_perplexity(self):
        self.interrupt(b"%", "perplexity", "-m", MODEL, "-f", self.text, "--ctx", 256, "--budget", 64, "-o",
                       self.output())

    def test_trace(self):
        self.interrupt(b"%", "trace", "-m", MODEL, "-f", self.text, "-o", self.output())

    def test_bench(self):
        self.interrupt(b"%", "bench", "-m", MODEL, "-p", 0, "-n", 8000, "-o", self.output())


def start(*arguments):
    return subprocess.Popen([PROGRAM, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def wait_until_it_generates(process):
    """Reading the model and a short prompt takes less than this."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        user, system = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        if (int(user) + int(system)) / os.sysconf("SC_CLK_TCK") > 3:
            return
        time.sleep(0.02)
    raise AssertionError("no progress")


class SignalTest(CliTest):
    def end(self, process, sent):
        """What the program leaves: its stdout, after the exit code 128 + signal and no message."""
        process.send_signal(sent)
        shown, said = process.communicate(timeout=SECONDS)
        self.assertEqual((process.returncode, said), (128 + sent, b""))
        return shown

    def test_a_signal_removes_what_is_half_written(self):
        for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            for command in (["run", "-p", "Once upon a", "-n", 8000, "--policy", "full"],
                            ["bench", "-p", 0, "-n", 8000]):
                output = Path(self.folder.name) / "out.json"
                process = start(*command, "-m", MODEL, "-o", output)
                while not list(Path(self.folder.name).glob("*.part")) and process.poll() is None:
                    time.sleep(0.02)
                time.sleep(0.5)
                self.end(process, sent)
                self.assertEqual(os.listdir(self.folder.name), ["text.txt"], (sent, command))

    def test_while_a_pipe_is_read(self):
        for command in (["run", "-f", "-"], ["perplexity", "-f", "-"], ["chat", "--json"]):
            for sent in (signal.SIGINT, signal.SIGTERM):
                process = start(*command, "-m", MODEL)
                time.sleep(1)
                self.end(process, sent)

    def test_the_document_of_an_interrupted_run_has_what_was_generated(self):
        for sent in (signal.SIGINT, signal.SIGTERM):
            process = start("run", "-m", MODEL, "-p", "Once upon a", "-n", 8000, "--policy", "full", "--json")
            wait_until_it_generates(process)
            result = json.loads(self.end(process, sent))
            self.assertEqual((result["interrupted"], result["stop_reason"]), (True, "interrupted"))
            self.assertEqual(result["generated_tokens"], len(result["tokens"]))
            self.assertTrue(0 < len(result["tokens"]) < 8000 and result["text"])

    def test_an_interrupted_prompt_ends_in_a_document_too(self):
        long_text = self.file("long.txt", Path(self.text).read_bytes() * 18)
        process = start("run", "-m", MODEL, "-f", long_text, "--json", "--threads", 1)
        time.sleep(1.5)
        result = json.loads(self.end(process, signal.SIGINT))
        os.unlink(long_text)
        self.assertEqual((result["interrupted"], result["text"], result["prompt_tokens_per_s"]), (True, "", None))

    def test_the_document_of_an_interrupted_chat_has_its_turns(self):
        process = start("chat", "-m", MODEL, "--temp", 0, "-n", 8000, "--policy", "full", "--json", "--repeat-penalty", 1.3)
        process.stdin.write(b"Write a long story about a fox.\nAnd on?\n")
        process.stdin.flush()
        wait_until_it_generates(process)
        result = json.loads(self.end(process, signal.SIGINT))
        self.assertTrue(result["interrupted"])
        self.assertGreater(result["turns"][0]["generated_tokens"], 0)
        self.assertEqual(result["turns"][-1]["stop_reason"], "interrupted")


class FiguresTest(CliTest):
    def test_run_ends_in_a_line_of_figures_at_a_terminal(self):
        terminal = Terminal("run", "-m", MODEL, "-f", self.text, "-n", 5, "--budget", 64, "--temp", 1, "--seed", 7)
        self.assertEqual(terminal.exit_code(), 0, terminal.shown)
        self.assertRegex(terminal.shown.splitlines()[-1],
                         rb"5 tokens, [\d.]+ tok/s; 64 of \d+ tokens kept per head; KV cache [\d.]+ MiB; seed 7$")


class ProgressTest(CliTest):
    def test_a_bar_with_the_time_left_that_goes_away(self):
        terminal = Terminal("perplexity", "-m", MODEL, "-f", self.text, "--ctx", 128)
        self.assertEqual(terminal.exit_code(), 0, terminal.shown)
        self.assertRegex(terminal.shown, rb"\rperplexity \[#+\.+\] +\d+ % \d+:\d\d left\x1b\[K")
        self.assertNotIn(b"left", terminal.shown.rpartition(b"\r\x1b[K")[2])


class ContextTest(CliTest):
    def test_more_tokens_than_trained_on_are_warned_of(self):
        done = a2sf("run", "-m", MODEL, "-p", "1, 2, 3, 4,", "-n", 9000, "--stop", "6")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stderr, r"^a2sf: warning: 90\d\d tokens are more than the 8192 [^\n]*\n$")


if __name__ == "__main__":
    sys.exit(main())
