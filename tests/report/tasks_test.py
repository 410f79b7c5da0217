"""Tests of what tools/report makes of `a2sf eval` and of sweeps over an option; run with a python that has matplotlib."""

import re
import sys
import unittest

from support import ORIGIN, PERPLEXITY, REPORT, PageTest

sys.path.insert(0, str(REPORT.parent))
from report_sweep import sweeps_of  # noqa: E402


def task_row(task, policy, budget, acc, shots=0, norm=None):
    return {"task": task, "shots": shots, "policy": policy, "spec": policy if budget is None else f"{policy}:budget=20%",
            "budget": budget, "items": 500, "acc": acc, "acc_stderr": .02, "acc_norm": norm, "acc_norm_stderr": norm and .02,
            "gold_logprob": -20 - 10 * acc, "gold_logprob_stderr": .3}


EVAL = {"command": "eval", **ORIGIN, "rules": "lm-eval", "limit": 500, "rows": [
    task_row(task, policy, budget, acc, shots, norm) for shots in (0, 1) for task, norm in (("piqa", .625), ("copa", None))
    for policy, budget, acc in (("full", None, .681), ("h2o", .2, .552), ("a2sf", .2, .571), ("a2sf", .4, .612))],
    "pairs": [{"task": "piqa", "shots": 0, "budget": .2, "a": "h2o:budget=20%", "b": "a2sf:budget=20%", "items": 500,
               "acc_difference": -.019, "mcnemar_p": .31, "gold_logprob_difference": -.123, "gold_logprob_difference_stderr": .045}]}


def kind_row(task, budget, shots=0, policy="a2sf", option="", **measures):
    """Options are written as a2sf writes them: alpha and memory before the budget."""
    before, after = (option, "") if option.startswith((":alpha", ":memory")) else ("", option)
    spec = policy if budget is None else f"{policy}{before}:budget={100 * budget:g}%{after}"
    return {"task": task, "shots": shots, "policy": policy, "spec": spec, "budget": budget, "profile": None, "budget_table": None,
            **measures}


def score_rows(option, values, task="gsm8k", score=.25, **more):
    return [kind_row(task, budget, option=value and f":{option}={value}", score=score + budget / 10 + number / 100, **more)
            for number, value in enumerate(values) for budget in (.2, .4)]


def eval_of(*rows, **more):
    return {"command": "eval", **ORIGIN, "rules": "lm-eval", "limit": 9, "rows": list(rows), **more}


def perplexity_of(spec, budget, perplexity):
    return PERPLEXITY | {"policy": "a2sf", "spec": spec, "budget": budget, "perplexity": perplexity, "profile": None}


class TasksTest(PageTest):
    def test_tasks_are_tables_with_means_and_pictures(self):
        done = self.report(self.put("summary.json", EVAL))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        page = (self.folder / "report.html").read_text()
        self.assertIn("<h2>Tasks, 0 examples before each item</h2>", page)
        self.assertIn("<h2>Tasks, 1 example before each item</h2>", page)
        self.assertIn("<tr><td>full</td><td>–</td><td>68.1</td><td>68.1</td><td>68.1</td></tr>", page)
        self.assertIn("<tr><td>a2sf</td><td>40 %</td><td>61.2</td><td>61.2</td><td>61.2</td></tr>", page)
        self.assertIn("<tr><td>a2sf</td><td>20 %</td><td>62.5</td><td>62.5</td></tr>", page, "copa has no acc_norm")
        self.assertIn("<td>-1.90</td><td>0.31</td><td>-0.123</td><td>0.045</td>", page)
        self.assertEqual(page.count("<img alt"), 6)

    def headings(self, page):
        return re.findall("<h3>(.*?)</h3>", page[:page.index("How the results were got")])

    def test_tasks_show_the_measures_that_they_have(self):
        answers = [kind_row("samsum", budget, score=.375, score_stderr=.01) for budget in (None, .2)]
        text = [kind_row("wikitext2", budget, loss=2.5, loss_stderr=.01, perplexity=12.182) for budget in (None, .2)]
        pair = {"task": "wikitext2", "shots": 0, "budget": .2, "a": "h2o", "b": "a2sf", "loss_difference": .0123,
                "loss_difference_stderr": .0045}
        page = self.page(self.put("s.json", eval_of(*answers, *text, pairs=[pair])))
        self.assertEqual(self.headings(page), ["Score of answers, %", "Loss, nats per token", "Perplexity"])
        self.assertIn("<th scope=col>samsum</th><th scope=col>mean</th></tr></thead><tbody>\n"
                      "<tr><td>a2sf</td><td>–</td><td>37.5</td><td>37.5</td></tr>", page)
        self.assertIn("<td>20 %</td><td>2.500</td><td>2.500</td>", page)
        self.assertIn("<td>20 %</td><td>12.18</td><td>12.18</td>", page)
        self.assertIn("<td>h2o</td><td>a2sf</td><td>+0.0123</td><td>0.0045</td></tr>", page)
        self.assertNotIn("McNemar", page)
        self.assertEqual(self.headings(self.page(self.put("c.json", EVAL | {"rows": EVAL["rows"][:4]}))), [
            "Accuracy, %", "Accuracy by log p per character, %", "Log p of the right choice, nats"])

    def sweeps(self, *documents):
        """{title: [lines of its tables]} of the sweeps on the page of the documents."""
        page = self.page(*(self.put(f"{number}.json", document) for number, document in enumerate(documents)))
        return {title: [re.findall("<t[dh].*?>(.*?)</t[dh]>", line) for line in re.findall("<tr>(.*?)</tr>", body)]
                for title, body in re.findall("<section><h2>([^<]* over [^<]*)</h2>(.*?)</section>", page, re.DOTALL)}

    def test_a_sweep_is_read_from_all_files_of_a_run_with_the_default_in_its_place(self):
        sweeps = self.sweeps(eval_of(*score_rows("memory", ["6", "0.5"])), eval_of(*score_rows("memory", [""])))
        self.assertEqual(sweeps, {"a2sf over memory, 0 examples before each item": [
            ["task", "budget", "memory 0.5", "memory 1.5", "memory 6"],
            ["gsm8k", "20 %", "28.0", "27.0", "27.0"], ["gsm8k", "40 %", "30.0", "29.0", "29.0"]]})

    def test_runs_that_measured_different_things_share_no_sweep(self):
        rows, other = score_rows("memory", ["1", "2"]), score_rows("memory", ["3"])
        self.assertEqual(len(self.sweeps(eval_of(*rows), eval_of(*other, threads=5))), 1)
        for key, value in (("model_hash", "beef"), ("rules", "paper"), ("limit", 3)):
            self.assertEqual(self.sweeps(eval_of(*rows), eval_of(*other, **{key: value})), {}, key)

    def test_values_are_in_order_and_a_cut_at_the_end_of_the_prompt_is_the_last(self):
        for option, values, order in (
                ("block", ["prompt", "64", ""], ["1", "64", "prompt"]), ("sink", ["16", "4", ""], ["0", "4", "16"]),
                ("recent", ["", "0%", "12.5%"], ["0%", "12.5%", "50%"]), ("recent", ["64", "8", "32"], ["8", "32", "64"]),
                ("memory", ["10", "", "2"], ["1.5", "2", "10"]), ("alpha", ["1", "0.995", "0.9"], ["0.9", "0.995", "1"])):
            sweep, = sweeps_of(score_rows(option, values))
            self.assertEqual((sweep.option, sweep.values()), (option, order))

    def test_no_sweep_of_what_differs_in_more_than_one_option(self):
        memory, third, default = (score_rows("memory", values) for values in (["1", "2"], ["3"], [""]))
        self.assertEqual(len(sweeps_of(memory + third)), 1)
        self.assertEqual(len(sweeps_of(memory + default)), 1)
        for name, rows in {
                "two values": memory,
                "alpha has no default": score_rows("alpha", ["", "0.9", "1"]),
                "no number": score_rows("alpha", ["auto", "nan", "0.9", "1"]),
                "another option": memory + [row | {"spec": row["spec"] + ":sink=4"} for row in third],
                "power has another default": score_rows("power", ["1.5"]) + [
                    row | {"spec": row["spec"] + ":power=1.5"} for row in memory],
                "a profile may have memories": memory + [row | {"profile": {"hash": "beef"}} for row in default],
                "a count and shares": score_rows("recent", ["9", "25%", "75%"]),
                "another policy": memory + [row | {"policy": "h2o"} for row in third],
                "other examples": memory + [row | {"shots": 1} for row in third],
                "another task": memory + [row | {"task": "samsum"} for row in third]}.items():
            with self.subTest(name):
                self.assertEqual(sweeps_of(rows), [])

    def test_options_beside_the_one_that_is_swept_name_the_sweep(self):
        rows = [row | {"spec": row["spec"] + ":sink=4"} for row in score_rows("memory", ["", "1", "2"])]
        self.assertEqual([(sweep.policy, sweep.option) for sweep in sweeps_of(rows)], [("a2sf:sink=4", "memory")])

    def test_a_sweep_of_choices_is_two_pictures_and_stays_in_the_tables(self):
        rows = [kind_row("piqa", .2, option=option, acc=.5, gold_logprob=-9.25) for option in ("", ":sink=1", ":sink=2")]
        page = self.page(self.put("s.json", eval_of(kind_row("piqa", None, policy="full", acc=.6, gold_logprob=-8), *rows)))
        self.assertEqual(re.findall('<img alt="(.*?)"', page), [
            "accuracy, % over the budget: piqa", "log p of the right choice, nats over the budget: piqa",
            "log p of the right choice, nats over sink: piqa", "accuracy, % over sink: piqa"])
        self.assertIn("<tr><td>a2sf:sink=2</td><td>20 %</td><td>-9.25</td><td>-9.25</td></tr>", page)

    def test_pictures_over_the_budget_leave_out_what_a_sweep_shows(self):
        page = self.page(self.put("s.json", eval_of(*score_rows("alpha", ["0.9", "0.99", "1"]))))
        self.assertEqual(re.findall('<img alt="(.*?)"', page), ["score of answers, % over alpha: gsm8k"])
        self.assertIn("<tr><td>a2sf:alpha=0.9</td><td>20 %</td><td>27.0</td><td>27.0</td></tr>", page)

    def test_files_of_perplexity_make_sweeps_of_one_panel(self):
        documents = [perplexity_of("a2sf:memory=1.5:budget=64", 64, 29.35), perplexity_of("a2sf:budget=64:recent=0%", 64, 257.13),
                     perplexity_of("a2sf:budget=64:recent=25%", 64, 29.99), perplexity_of("a2sf:budget=64:sink=4", 64, 30.5)]
        self.assertEqual(self.sweeps(*documents), {"a2sf over recent": [
            ["budget", "recent 0%", "recent 25%", "recent 50%"], ["64", "257.13", "29.99", "29.35"]]})
        page = (self.folder / "report.html").read_text()
        self.assertIn("perplexity over recent", re.findall('<img alt="(.*?)"', page))
        self.assertIn("<td>a2sf:recent=25%</td>", page)
        self.assertEqual(self.sweeps(*documents[:3], documents[3] | {"ctx": 512}).keys(), {"a2sf over recent"})
        self.assertEqual(self.sweeps(*documents[:2], documents[2] | {"ctx": 512}), {})


if __name__ == "__main__":
    unittest.main()
