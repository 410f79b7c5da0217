"""The load driver: what it counts, beside what its clients did."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from support import SKIPPED, ServeTest, main

DRIVER = Path(__file__).resolve().parents[2] / "bench" / "serve_load.py"


class LoadTest(ServeTest):
    ARGUMENTS = ("--budget", 64)

    def drive(self, *arguments):
        done = subprocess.run([sys.executable, DRIVER, self.server.url, "--json", *map(str, arguments)],
                              capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return json.loads(done.stdout)

    def test_every_client_is_accounted_for(self):
        report = self.drive("--requests", 20, "--rate", 20, "--prompt", "5-60", "--answer", 12, "--slow", 0.2, "--gone",
                            0.2, "--broken", 0.2, "--pid", self.server.process.pid)
        self.assertEqual((report["lost"], report["errors"]), (0, []))
        self.assertEqual(report["refused_broken"], report["broken"])
        self.assertGreater(report["broken"], 0)
        self.assertLess(report["complete"] + report["broken"], 20)  # some have left
        self.assertEqual(report["tokens"], 12 * report["complete"])
        self.assertLessEqual(report["between_tokens_s"]["half"], report["between_tokens_s"]["p99"])
        self.assertLessEqual(report["slowest_over_median"], 1)

    def test_a_seed_is_the_same_traffic(self):
        first, again = (self.drive("--requests", 4, "--prompt", "5-60", "--answer", 2, "--seed", 7) for _ in range(2))
        other = self.drive("--requests", 4, "--prompt", "5-60", "--answer", 2, "--seed", 8)
        self.assertEqual(first["prompt_tokens"], again["prompt_tokens"])
        self.assertNotEqual(first["prompt_tokens"], other["prompt_tokens"])


if __name__ == "__main__":
    sys.exit(main() if importlib.util.find_spec("httpx2") else SKIPPED)
