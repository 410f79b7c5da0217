"""Tests of tools/report.py as a program; run as `python tests/report/report_test.py` with a python that has matplotlib."""

import json
import re
import subprocess
import sys
import unittest

from support import ORIGIN, PERPLEXITY, REPORT, PageTest


def row(policy, budget, perplexity, spec=None, kl=0.1):
    return {"policy": policy, "spec": spec or policy, "budget": budget, "perplexity": perplexity, "kl_to_full": kl,
            "top1_agreement": 0.9, "kv_bytes": (budget or 1000) * 4096, "prompt_tokens_per_s": 100.0,
            "decode_tokens_per_s": 20.5}


COMPARE = {"command": "compare", **ORIGIN, "text": "a & b.txt", "tokens": 1000, "rows": [
    row("full", None, 9.12, kl=0), row("h2o", 64, 11.98), row("h2o", 128, 10.76), row("a2sf", 64, 11.71, kl=0.08),
    row("a2sf", 64, 11.69, "a2sf:alpha=0.9"), row("a2sf", 128, 10.21, kl=0.05), row("a2sf", 128, 11.11, "a2sf:alpha=0.9"),
    row("ideal", 64, 9.50, kl=0.01), row("local", 64, None)]}
BENCH = {"command": "bench", **ORIGIN, "rows": [
    {"test": test, "n_tokens": 512, "depth": depth, "policy": "a2sf", "budget": 1024, "tokens_per_s": 123.4,
     "tokens_per_s_min": 120, "tokens_per_s_max": 125, "repeats": 5, "kv_bytes": 1 << 20, "peak_rss_bytes": 1 << 28}
    for test in ("prompt", "decode") for depth in (0, 4096)]}


def mask_means(cosine):
    return {"compared_rows": 8 if cosine else 0, "cosine": cosine, "jaccard": cosine, "mass": cosine, "ideal_mass": cosine and .987,
            "age": cosine and .25}


def mask_row(policy, budget, cosine, scores=None):
    kept = ["0", "0-1", "0-2", "0,2-3", "0-1,4", "0,3,5"]
    return {"policy": policy, "spec": f"{policy}:budget={budget}", "budget": budget, **mask_means(cosine),
            "heads": [[mask_means(cosine), mask_means(None)], [mask_means(cosine), mask_means(cosine)]],
            "slots_by_place": cosine and [.05] * 20, "scores_by_place": scores,
            "pictures": [{"layer": layer, "kv_head": 0, "kept": kept} for layer in (0, 1)]}


MASKS = {"command": "eval --masks", **ORIGIN, "rules": "lm-eval", "limit": 20, "tasks": ["piqa"], "sequences": 2, "tokens": 11,
         "sparsity": [[.5, .25], [.75, 1]], "attention_by_place": [.05] * 20, "rows": [
             mask_row("h2o", 2, .654, [.05] * 20), mask_row("h2o", 4, .765, [.05] * 20), mask_row("h2o", 9, None),
             mask_row("local", 2, .321), mask_row("local", 4, .432), mask_row("ideal", 2, 1.0), mask_row("ideal", 4, 1.0)]}


def trace_lines(length=500, heads=9, budget=16):
    yield {**ORIGIN, "policy": "local", "budget": budget, "alpha": None, "recent": budget, "sink": 0,
           "tokens": list(range(length))}
    for step in range(length):
        for head in range(heads):
            kept = list(range(max(0, step + 1 - budget), step + 1))
            victims = [step - budget] if step >= budget else []
            yield {"step": step, "layer": head // 3, "kv_head": head % 3, "kept": kept, "victims": victims}


class ReportTest(PageTest):
    def put_trace(self, **shape):
        return self.put("trace.jsonl", "".join(json.dumps(line, sort_keys=True) + "\n" for line in trace_lines(**shape)))

    def test_masks_are_a_table_and_pictures(self):
        page = self.page(self.put("masks.json", MASKS))
        self.assertIn("<h2>What is kept, beside the ideal mask</h2>", page)
        self.assertIn("<tr><td>h2o</td><td>2</td><td>0.654</td><td>0.654</td><td>0.654</td><td>0.987</td><td>0.250</td></tr>", page)
        self.assertIn("<tr><td>h2o</td><td>9</td><td>–</td>", page)
        self.assertEqual(re.findall('<img alt="(.*?)"', page), [
            "masks of ideal, h2o, local", "attention, scores and kept tokens by place", "cosine by layer and KV head",
            "attention kept", "sparsity by layer"])

    def test_masks_of_budgets_that_hold_everything_are_no_pictures(self):
        page = self.page(self.put("masks.json", MASKS | {"rows": [mask_row("h2o", 9, None), mask_row("ideal", 9, None)]}))
        self.assertEqual(re.findall('<img alt="(.*?)"', page), ["sparsity by layer"])

    def test_page_is_self_contained_and_leaves_nothing_beside_it(self):
        page = self.page(self.put("c.json", COMPARE), self.put("p.json", PERPLEXITY), self.put("b.json", BENCH),
                         self.put_trace())
        self.assertNotIn("://", page)
        self.assertNotRegex(page, r"<(script|link|iframe)|url\(|@import|href=")
        sources = re.findall(r'src="([^"]{0,22})', page)
        self.assertEqual(set(sources), {"data:image/png;base64,"})
        self.assertEqual(len(sources), 2 + 1 + 1 + 1 + 6)  # lines and bars of compare, perplexity, bench, six heads
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()),
                         ["b.json", "c.json", "p.json", "report.html", "trace.jsonl"])

    def titles(self, *documents):
        page = self.page(*(self.put(f"{i}.json", document) for i, document in enumerate(documents)))
        return re.findall("<h2>(.*?)</h2>", page)[:-1]  # the last section is that of the origin

    def test_runs_that_measured_different_things_share_no_table(self):
        one = PERPLEXITY | {"perplexity": None}  # nothing to draw, which takes time
        other = one | {"policy": "h2o", "spec": "h2o"}
        self.assertEqual(self.titles(one, other), ["Perplexity"])
        self.assertEqual(self.titles(one, other | {"model": "/elsewhere/tiny<b>.gguf"}), ["Perplexity"])
        for key, value in (("model_hash", "beef"), ("kv_type", "f32"), ("repack", False), ("threads", 3), ("isa", "avx512"),
                           ("version", "0.2.0"), ("text", "b.txt"), ("tokens", 9), ("ctx", 512), ("score", "all"), ("prompt", 4)):
            self.assertEqual(self.titles(one, other | {key: value}), ["Perplexity"] * 2, key)
        bench = BENCH | {"rows": [{"policy": "a2sf", "test": "decode"}]}
        self.assertEqual(self.titles(bench, bench), ["Speed"])
        for key, value in (("model_hash", "beef"), ("kv_type", "f32"), ("repack", False), ("threads", 3)):
            self.assertEqual(self.titles(bench, bench | {key: value}), ["Speed"] * 2, key)

    def test_tables_that_differ_say_in_what(self):
        page = self.page(self.put("1.json", PERPLEXITY), self.put("2.json", PERPLEXITY | {
            "kv_type": "f32", "repack": False, "score": "all", "prompt": 64}))
        self.assertIn("half of it scored · 2 threads · avx2 · f16 cache<", page)
        self.assertIn("all of it scored · a prompt of 64 tokens · 2 threads · avx2 · f32 cache · weights as mapped<", page)

    def badges(self, *rows):
        page = self.page(self.put("c.json", COMPARE | {"rows": list(rows)}))
        return ["badge" in text for text in re.findall(r"<tr.*?</tr>", page)[1:]]

    def test_the_best_is_the_nearest_to_full(self):
        self.assertEqual(self.badges(row("h2o", 64, 32.20, kl=0.31), row("a2sf", 64, 32.24, kl=0.28)), [False, True])
        one, other = ({**row(policy, 64, perplexity), "kl_to_full": None} for policy, perplexity in
                      (("h2o", 1032.2), ("a2sf", 1032.24)))
        self.assertEqual(self.badges(one, other), [True, False])

    def test_a_difference_that_is_not_printed_is_none(self):
        near = [row("h2o", 64, 30, kl=0.2801), row("a2sf", 64, 31, kl=0.2799)]
        self.assertEqual(self.badges(*near), [False, False])
        self.assertEqual(self.badges(*near, row("local", 64, 29, kl=0.9)), [True, True, False])

    def test_table_has_every_row_and_marks_the_best_per_budget(self):
        page = self.page(self.put("c.json", COMPARE))
        rows = re.findall(r"<tr.*?</tr>", page)[1:]
        self.assertEqual(len(rows), len(COMPARE["rows"]))
        for text, expected in zip(rows, COMPARE["rows"]):
            self.assertIn(expected["policy"], text)
            self.assertIn("–" if expected["perplexity"] is None else f"{expected['perplexity']:.2f}", text)
        best = [text for text in rows if "badge" in text]
        self.assertEqual([re.search(r">(1\d\.\d\d)<", text)[1] for text in best], ["11.71", "10.21"])
        self.assertIn("a2sf:alpha=0.9", rows[4])
        self.assertIn("<td>6.4</td>", rows[1])  # the share of the full cache in percent

    def test_text_of_documents_is_escaped_and_the_origin_shown(self):
        page = self.page(self.put("c.json", COMPARE))
        self.assertIn("a &amp; b.txt", page)
        self.assertNotIn("tiny<b>", page)
        for key in ORIGIN:
            self.assertIn(f"<dt>{key}</dt>", page)
        self.assertIn("c0ffee", page)

    def test_trace_explains_what_is_kept(self):
        page = self.page(self.put_trace())
        self.assertIn("Layer 2, KV head 2: after step 499 it keeps 16 of 500 tokens, 16 among the newest 16 and 0 older; "
                      "its oldest is at position 484.", page)
        self.assertIn("6 of 9 traced heads", page)
        self.assertEqual(self.page(self.put_trace(length=1, heads=1)).count("<img"), 1)

    def test_a_trace_whose_heads_differ_says_so(self):
        header, *steps = trace_lines(length=100)
        header |= {"budget": [[16, 20, 16]] * 3, "recent": [[8, 9, 8], [8, 8, 8], [8, 8, 4]]}
        page = self.page(self.put("t.jsonl", "".join(json.dumps(line) + "\n" for line in (header, *steps))))
        self.assertIn("budget 16 to 20 by head, recent 4 to 9 by head", page)
        self.assertIn("Layer 2, KV head 2: after step 99 it keeps 16 of 100 tokens, 4 among the newest 4 and 12 older", page)

    def test_a_profile_is_part_of_the_origin(self):
        profile = {"file": "p.json", "hash": "beef"}
        page = self.page(self.put("p.json", PERPLEXITY | {"profile": profile}))
        self.assertIn("<dt>profile</dt><dd>file p.json, hash beef</dd>", page)
        self.assertNotIn("profile", self.page(self.put("p.json", PERPLEXITY | {"profile": None})))

    def test_bad_input_is_one_line_and_no_page(self):
        whole = "".join(json.dumps(line) + "\n" for line in trace_lines(20, 2))
        lines = whole.splitlines(keepends=True)
        self.assert_refused(self.folder / "missing.json", "no such file")
        self.assert_refused(self.folder, "regular")
        for name, text, word in (
                ("empty", "", "JSON"), ("text", "hello\n", "JSON"), ("list", "[1]", "JSON"),
                ("cut", json.dumps(COMPARE)[:200], "JSON"), ("chat", '{"command": "chat", "rows": []}', '"chat"'),
                ("norows", '{"command": "compare"}', "rows"), ("nopolicy", '{"command": "compare", "rows": [{}]}', "policy"),
                ("header", lines[0], "steps"), ("noheader", "".join(lines[1:]), "header"),
                ("cutline", whole[:-9], "line 41 is cut off"), ("badline", whole + "oops\n", "line 42"),
                ("future", lines[0] + '{"step": 3, "layer": 0, "kv_head": 0, "kept": [4], "victims": []}\n', "line 2")):
            with self.subTest(name):
                self.assert_refused(self.put(name, text), word)

    def test_a_failure_keeps_the_old_page(self):
        page = self.page(self.put("c.json", COMPARE))
        self.assertEqual(self.report(self.put("bad", "x")).returncode, 1)
        self.assertEqual((self.folder / "report.html").read_text(), page)
        done = self.report(self.folder / "c.json", output="nowhere/report.html")
        self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1))

    def test_usage(self):
        self.assertEqual(self.report().returncode, 2)
        self.assertEqual(self.report(self.put("c.json", COMPARE), output="c.json").returncode, 2)
        shown = subprocess.run([sys.executable, str(REPORT), "--help"], capture_output=True, text=True)
        self.assertEqual(shown.returncode, 0)
        self.assertIn("tools/report -o report.html c.json t.jsonl", shown.stdout)


if __name__ == "__main__":
    unittest.main()
