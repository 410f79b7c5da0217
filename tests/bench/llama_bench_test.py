"""Tests of bench/llama_bench.py with programs that say how they were called."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

from llama_bench import LlamaBench, peer
from whole_model import Work, run_json

UPSTREAM = ["-m, --model <filename>", "-fa, --flash-attn <0|1>", "-d, --n-depth <n>", "--no-warmup"]
DESCENDANT = ["-gp <pp,tg>", "-fa, --flash-attn <0|1>", "-w, --warmup <0|1>", "-rtr, --run-time-repack <0|1>"]


class LlamaBenchTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def program(self, options, results='[{"avg_ts": 12.5}]'):
        """Its help names these options; it writes down every other call."""
        path = self.folder / "llama-bench"
        help_text = "\n".join(f"  {option}" for option in options)
        path.write_text(f"#!/bin/sh\n[ \"$1\" = --help ] && echo '{help_text}' && exit\n"
                        f"echo \"$@\" >>{self.folder}/calls\necho '{results}'\n", encoding="utf-8")
        path.chmod(0o755)
        return LlamaBench("peer", str(path))

    def calls_of(self, options, work):
        program = self.program(options)
        speeds = program.measure(run_json, "m.gguf", 2, work)
        self.assertEqual(speeds, {("peer", variant): 12.5 for _, variant in program.variants()})
        return (self.folder / "calls").read_text(encoding="utf-8").splitlines()

    def test_a_program_that_knows_depths_is_given_them(self):
        self.assertEqual(self.calls_of(UPSTREAM, Work(decode=32, depth=4096)),
                         [f"-m m.gguf -p 0 -n 32 -d 4096 -t 2 -r 1 -o json -fa {fa}" for fa in (0, 1)])

    def test_another_decodes_after_a_prompt(self):
        self.assertEqual(self.calls_of(DESCENDANT, Work(decode=32, depth=4096))[0],
                         "-m m.gguf -p 0 -n 0 -gp 4096,32 -t 2 -r 1 -o json -fa 0 -rtr 0")

    def test_every_combination_of_known_switches_is_measured(self):
        calls = self.calls_of(DESCENDANT, Work(prompt=512))
        self.assertEqual(calls, [f"-m m.gguf -p 512 -n 0 -t 2 -r 1 -o json -fa {fa} -rtr {rtr}" for fa in (0, 1) for rtr in (0, 1)])

    def test_a_long_prompt_is_not_read_twice(self):
        self.assertIn("--no-warmup", self.calls_of(UPSTREAM, Work(prompt=8192))[0].split())

    def test_a_descendant_names_its_warm_up_otherwise(self):
        self.assertIn("-w 0", self.calls_of(DESCENDANT, Work(prompt=8192))[0])

    def test_a_test_has_one_result(self):
        with self.assertRaisesRegex(SystemExit, "gave 0 results for one test"):
            self.program(UPSTREAM, "[]").measure(run_json, "m.gguf", 2, Work(prompt=512))

    def test_a_prompt_at_a_depth_that_cannot_be_measured_is_refused(self):
        with self.assertRaisesRegex(SystemExit, "measures no prompt after 64 tokens"):
            self.program(DESCENDANT).arguments(Work(prompt=8, depth=64))


class NameTest(unittest.TestCase):
    def test_a_given_name_counts(self):
        self.assertEqual(peer("ik=/opt/x/bin/llama-bench"), LlamaBench("ik", "/opt/x/bin/llama-bench"))

    def test_else_the_folder_of_its_source(self):
        self.assertEqual(peer("/src/ik_llama.cpp/build/bin/llama-bench").name, "ik_llama.cpp")


if __name__ == "__main__":
    unittest.main()
