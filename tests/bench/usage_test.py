"""Wrong arguments and missing files of the scripts in bench/ are one line on stderr."""

import subprocess
import sys
import unittest
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench"


def run(name, *arguments):
    return subprocess.run([sys.executable, BENCH / f"{name}.py", *arguments], capture_output=True, text=True, timeout=60,
                          check=False)


class UsageTest(unittest.TestCase):
    def refuse(self, code, expected, name, *arguments):
        done = run(name, *arguments)
        self.assertEqual((done.returncode, done.stdout), (code, ""), (name, arguments, done.stderr))
        self.assertRegex(done.stderr, rf"^[^\n]*{expected}[^\n]*\n$")

    def test_wrong_usage(self):
        for arguments, expected in (([], "memory.py: .*A2SF, MODEL.gguf"), (["a", "b", "0"], "'0' is not a whole number from 1 on"),
                                    (["a", "b", "1", "c"], "unrecognized arguments: c")):
            self.refuse(2, expected, "memory", *arguments)
        for arguments, expected in (([], "openvino_peer.py: .*MODEL.gguf"), (["m", "two", "0", "0", "0"], "THREADS: 'two' is not")):
            self.refuse(2, expected, "openvino_peer", *arguments)
        for arguments, expected in (([], "tools/bench: --model FILE is missing"), (["--threads", "0"], "--threads: '0' is not"),
                                    (["--only", "frob"], "--only frob: no row begins so"),
                                    (["--check", "--peer", "a2sf=x"], "two engines are called a2sf: give --peer NAME=PATH")):
            self.refuse(2, expected, "whole_model", *arguments)

    def test_missing_files(self):
        self.refuse(1, "bench: nowhere: No such file", "whole_model", "--a2sf", "nowhere", "--llama-bench", "nowhere", "--model", "m")
        done = run("memory", "nowhere", "m.gguf")
        self.assertEqual((done.returncode, done.stderr), (1, "memory.py: nowhere: No such file or directory\n"))

    def test_check_runs_nothing(self):
        done = run("whole_model", "--check", "--only", "decode", "--rounds", "2")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_a_random_model_needs_a_file_that_can_be_written(self):
        if subprocess.run([sys.executable, "-c", "import gguf"], capture_output=True, check=False).returncode:
            self.skipTest("no gguf package (tools/deps)")
        self.refuse(2, "shaped_model.py: .*FILE.gguf", "shaped_model")
        self.refuse(2, "unrecognized arguments: b", "shaped_model", "a", "b")
        self.refuse(1, "shaped_model.py: /nowhere/m.gguf: No such file", "shaped_model", "/nowhere/m.gguf")


if __name__ == "__main__":
    unittest.main()
