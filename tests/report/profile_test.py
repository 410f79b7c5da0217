"""Tests of what tools/report makes of profiles and of `a2sf tune`; run with a python that has matplotlib."""

import json
import re
import unittest

from support import ORIGIN, PageTest

PROFILE = {"model": "Tiny", "model_hash": "c0ffee", "texts": [{"name": "valid.raw", "hash": "beef"}], "tables": [
    {"mean": mean, "shares": [[1, 3], [2, 2]], "memories": [[.5, 1], [1, 2.25]]} for mean in (8, 16, 32, 64, 1024)]}


class ProfileTest(PageTest):
    def test_a_profile_is_maps_and_the_ranges_of_its_heads(self):
        page = self.page(self.put("p.json", PROFILE))
        self.assertEqual(re.findall('<img alt="(.*?)"', page), [
            f"{name} by layer and KV head: mean 8, mean 16, mean 32, mean 1,024" for name in ("budget", "memory")])
        self.assertIn("in tokens heads get 4 to 12 (mean 8), 8 to 24 (mean 16), 16 to 48 (mean 32), 512 to 1,536 (mean 1,024).", page)
        self.assertIn("heads have 0.50 to 2.25 (mean 8)", page)
        self.assertIn("<dt>tuned on</dt><dd>valid.raw</dd>", page)

    def test_a_document_of_tune_is_shown_by_its_profile(self):
        profile = {"model": "Tiny", "tables": [{"mean": 0, "shares": [[.5], [1.5]]}]}
        page = self.page(self.put("t.json", {"command": "tune", **ORIGIN, "text": "a.txt", "seconds": 3.5, "profile": profile}))
        self.assertIn("<h2>A profile</h2>", page)
        self.assertIn("in % of the mean heads get 50 to 150 (any mean).", page)
        self.assertIn("<dt>seconds</dt><dd>3.5</dd>", page)
        self.assertEqual(page.count("<img alt"), 1)
        compact = self.put("p.json", json.dumps({"shares": [[2, 2]], "memories": [[3, 3]]}))
        self.assertIn("heads have 3.00 (any mean)", self.page(compact))

    def test_a_bad_profile_is_one_line(self):
        for name, document, word in (
                ("none", {"command": "tune"}, '"tables" or "shares"'), ("empty", {"tables": []}, "list of tables"),
                ("mean", {"tables": [{"mean": "8", "shares": [[1]]}]}, '"mean"'), ("ragged", {"shares": [[1, 2], [3]]}, '"shares"'),
                ("zero", {"shares": [[1, 0]]}, '"shares"'), ("text", {"shares": "1"}, '"shares"'),
                ("memories", {"shares": [[1, 2]], "memories": [[1]]}, '"memories"'),
                ("shapes", {"tables": [{"mean": 8, "shares": [[1]]}, {"mean": 9, "shares": [[1, 1]]}]}, '"shares"')):
            with self.subTest(name):
                self.assert_refused(self.put(name, document), word)


if __name__ == "__main__":
    unittest.main()
