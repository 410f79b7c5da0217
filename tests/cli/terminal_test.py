"""What a person at a terminal sees: Ctrl-C, the progress bar, the warning about a long context."""

import os
import pty
import select
import sys
import time
import unittest
from pathlib import Path

from cli_test import MODEL, PROGRAM, CliTest, a2sf, main

SECONDS = 120  # for anything to happen on a busy machine


class Terminal:
    """The program with a terminal of its own as stdin, stdout and stderr."""

    def __init__(self, *arguments):
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            os.execv(PROGRAM, [PROGRAM, *map(str, arguments)])
        self.shown = b""

    def type(self, text):
        os.write(self.terminal, text)

    def read_until(self, wanted=None):
        """Waits until `wanted` is shown, or for the end of the program."""
        deadline = time.monotonic() + SECONDS
        while wanted is None or wanted not in self.shown:
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

    def test_chat(self):
        chat = ["chat", "-m", MODEL, "--temp", 0, "-n", 8000]
        self.interrupt(b"> ", *chat)
        self.interrupt(b"prompt [", *chat, typed=b"Write a long story about a fox.\n")

    def test_compare(self):
        self.interrupt(b"%", "compare", "-m", MODEL, "-f", self.text, "--budget", 64, "-o", self.output())

    def test_perplexity(self):
        self.interrupt(b"%", "perplexity", "-m", MODEL, "-f", self.text, "--ctx", 256, "--budget", 64, "-o",
                       self.output())

    def test_trace(self):
        self.interrupt(b"%", "trace", "-m", MODEL, "-f", self.text, "-o", self.output())

    def test_bench(self):
        self.interrupt(b"%", "bench", "-m", MODEL, "-p", 0, "-n", 8000, "-o", self.output())


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
