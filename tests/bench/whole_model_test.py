"""Tests of the arithmetic of bench/whole_model.py."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import whole_model

ROW = whole_model.ROWS[0]
SPEEDS = {("a2sf", "full"): [100, 90, 120], ("llama.cpp", "-fa 0"): [50, 50, 50], ("llama.cpp", "-fa 1"): [40, 60, 60]}


class SummaryTest(unittest.TestCase):
    def test_the_faster_variant_by_median_counts(self):
        peer = whole_model.summary_of(ROW, SPEEDS)["engines"]["llama.cpp"]
        self.assertEqual((peer["variant"], peer["tokens_per_s"]), ("-fa 1", 60))

    def test_the_ratio_is_the_median_of_each_rounds(self):
        self.assertEqual(whole_model.summary_of(ROW, SPEEDS)["engines"]["llama.cpp"]["ratio"], 2)

    def test_a_row_without_peers_has_dashes(self):
        alone = whole_model.summary_of(ROW, {("a2sf", "full"): [1.0]})
        lines = whole_model.table_of([whole_model.summary_of(ROW, SPEEDS), alone], ["llama.cpp"]).splitlines()
        self.assertEqual(lines[1].split(), ["decode-0", "full", "100.0", "tok/s", "60.0", "tok/s", "-fa", "1", "2.00"])
        self.assertEqual(lines[2].split(), ["decode-0", "full", "1.0", "tok/s", "-", "-"])


if __name__ == "__main__":
    unittest.main()
