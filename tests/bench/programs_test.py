"""Runs the compiled programs of bench/ to their end, on small jobs. A2SF_BENCH names their folder; no time is tested."""

import json
import os
import subprocess
import sys
import unittest
from pathlib import Path

FOLDER = Path(os.environ.get("A2SF_BENCH", ""))
MODEL = Path(__file__).resolve().parents[1] / "model/fixtures/llama.gguf"
SKIPPED = 77


def run(program, *arguments):
    command = [FOLDER / program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


class ProgramTest(unittest.TestCase):
    def succeed(self, program, *arguments):
        done = run(program, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.splitlines()

    def refuse(self, code, message, program, *arguments):
        done = run(program, *arguments)
        self.assertEqual((done.returncode, done.stdout), (code, ""), arguments)
        self.assertRegex(done.stderr, message + r"[^\n]*\n$")


class DepthPairTest(ProgramTest):
    def test_it_compares_deep_with_shallow(self):
        line, = self.succeed("a2sf_depth_pair", MODEL, 3, 600, 40)
        self.assertRegex(line, r"^3 pairs of 32 tokens: \d+\.\d+ ms/token deep, \d+\.\d+ ms/token at depth 512; "
                               r"deep / shallow \d+\.\d+ \(\d+\.\d+ to \d+\.\d+\)$")

    def test_bad_input(self):
        for arguments in ([], [MODEL, 0], [MODEL, 1, "deep"], [MODEL, 1, 600, 40, "more"]):
            self.refuse(2, "^usage: a2sf_depth_pair MODEL", "a2sf_depth_pair", *arguments)
        self.refuse(1, "^error: .*nowhere.gguf", "a2sf_depth_pair", "nowhere.gguf")
        self.refuse(1, "^error: .*budget", "a2sf_depth_pair", MODEL, 1, 600, "many")


class LongRunTest(ProgramTest):
    def test_a_hundred_lines_and_the_last_tenth_beside_the_first(self):
        *lines, last = self.succeed("a2sf_long_run", MODEL, 1000, 40)
        self.assertEqual([int(line.split()[0]) for line in lines], list(range(10, 1001, 10)))
        self.assertEqual(len({line.split("resident")[1] for line in lines}), 1, "the KV cache keeps its size")
        self.assertRegex(last, r"^last tenth / first tenth: resident memory \d+\.\d+, time per token \d+\.\d+$")

    def test_bad_input(self):
        for arguments in ([], [MODEL, 999], [MODEL, 1000, 40, "more"]):
            self.refuse(2, "^usage: a2sf_long_run MODEL", "a2sf_long_run", *arguments)
        self.refuse(1, "^error: .*nowhere.gguf", "a2sf_long_run", "nowhere.gguf")


class KernelBenchTest(ProgramTest):
    def test_the_first_case_of_each_family(self):
        first = {}
        for name in self.succeed("a2sf_kernel_bench", "--benchmark_list_tests"):
            first.setdefault(name.split("/")[0], name)
        self.assertLessEqual({"Decode", "FullPrompt", "TokenByToken", "multiply"}, set(first))
        done = run("a2sf_kernel_bench", f"--benchmark_filter=^({'|'.join(first.values())})$", "--benchmark_min_time=0.001",
                   "--benchmark_format=json")
        self.assertEqual(done.returncode, 0, done.stderr)
        results = json.loads(done.stdout)["benchmarks"]
        self.assertEqual({result["name"] for result in results}, set(first.values()))
        for result in results:
            self.assertGreater(result["real_time"], 0, result)


if __name__ == "__main__":
    if not os.access(FOLDER / "a2sf_long_run", os.X_OK):
        print("skipped: A2SF_BENCH names no folder of programs")
        sys.exit(SKIPPED)
    unittest.main()
