"""Tests of bench/memory.py: its arithmetic and, where A2SF_PROGRAM is built, a whole run on a tiny model."""

import os
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("A2SF_PROGRAM", "")
sys.path.insert(0, str(ROOT / "bench"))

import memory


class ArithmeticTest(unittest.TestCase):
    ROW = {"peak_rss_bytes": 200 << 20, "kv_bytes": 30 << 20}

    def test_what_is_left_is_neither_file_nor_cache(self):
        self.assertEqual(memory.parts_of(self.ROW, 100 << 20), (200 << 20, 100 << 20, 30 << 20, 70 << 20))

    def test_a_line_is_in_mebibytes(self):
        line = memory.line_of("regrouped", memory.parts_of(self.ROW, 100 << 20))
        self.assertEqual(line.split(), ["regrouped", "200.0", "100.0", "30.0", "70.0"])


@unittest.skipUnless(PROGRAM, "A2SF_PROGRAM is not set")
class ScriptTest(unittest.TestCase):
    def test_two_rows_and_whether_the_aim_is_reached(self):
        command = [sys.executable, ROOT / "bench/memory.py", PROGRAM, ROOT / "tests/model/fixtures/llama.gguf", "1"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120, check=True)
        title, _, regrouped, mapped, aim = done.stdout.splitlines()
        self.assertEqual(title, "llama, prompt of 8192 tokens, a2sf:budget=512, in MiB")
        self.assertIn("regrouped (default)", regrouped)
        self.assertIn("as they are mapped", mapped)
        self.assertRegex(aim, "^aim: else at most 64 MiB: (reached|missed)$")


if __name__ == "__main__":
    unittest.main()
