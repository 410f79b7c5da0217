"""Runs `a2sf eval`, `a2sf tune` and --profile auto on small made-up data. A2SF_PROGRAM names the program, A2SF_MODEL the model."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "a2sf"
MODEL = os.environ.get("A2SF_MODEL") or str(CACHE / "SmolLM2-135M-Instruct.Q4_1.gguf")
PROGRAM = os.environ.get("A2SF_PROGRAM") or str(Path(__file__).parents[2] / "build/release/apps/a2sf/a2sf")
SKIPPED = 77
WORDS = "the lamp on the harbour wall burned every night and nobody asked who had filled it with oil or why".split()


def a2sf(*arguments, cwd=None):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, timeout=600, check=False, text=True, cwd=cwd)


def question(number):
    words = [WORDS[(number * 7 + 3 * i) % len(WORDS)] for i in range(8 + number % 5)]
    return {"goal": " ".join(words), "sol1": WORDS[number % len(WORDS)] + " first", "sol2": "the other way", "label": number % 2}


class EvalTest(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        for name, count in (("validation.jsonl", 60), ("train_first2000.jsonl", 7)):
            path = self.folder / "data/piqa" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(question(i)) + "\n" for i in range(count)))

    def tearDown(self):
        self.temporary.cleanup()

    def arguments(self, output, *more, tasks="piqa"):
        return ["eval", "-m", MODEL, "--data", self.folder / "data", "--tasks", tasks, "-o", self.folder / output,
                "--policies", "full,h2o,a2sf", "--budget", "0.4", *more]

    def evaluate(self, output, *more):
        done = a2sf(*self.arguments(output, *more), "--json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return json.loads(done.stdout)

    def items(self, output):
        return sorted((self.folder / output / "items.jsonl").read_text().splitlines())

    def refuse(self, code, mention, *arguments):
        done = a2sf(*arguments)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertRegex(done.stderr, r"^a2sf: [^\n]+\n$")
        self.assertIn(mention, done.stderr)


class ResultsTest(EvalTest):
    def test_every_item_has_a_line_and_every_policy_a_row(self):
        document = self.evaluate("out", "--shots", "0,1", "--limit", 20)
        self.assertEqual(document, json.loads((self.folder / "out/summary.json").read_text()))
        self.assertEqual([(row["shots"], row["policy"], row["budget"], row["items"]) for row in document["rows"]],
                         [(shots, policy, budget, 20) for shots in (0, 1)
                          for policy, budget in (("full", None), ("h2o", 0.4), ("a2sf", 0.4))])
        self.assertEqual([(pair["shots"], pair["a"].split(":")[0], pair["b"].split(":")[0]) for pair in document["pairs"]],
                         [(0, "h2o", "a2sf"), (1, "h2o", "a2sf")])
        lines = [json.loads(line) for line in self.items("out")]
        items = [line for line in lines if "task" in line]
        self.assertEqual(len(items), 2 * 3 * 20)
        for row in document["rows"]:
            own = [i for i in items if (i["shots"], i["spec"]) == (row["shots"], row["spec"])]
            self.assertAlmostEqual(row["acc"], sum(i["choice"] == i["gold"] for i in own) / 20)
            self.assertAlmostEqual(row["gold_logprob"], sum(i["logprobs"][i["gold"]] for i in own) / 20)

    def test_a_killed_run_goes_on(self):
        self.evaluate("whole")
        for number in (signal.SIGKILL, signal.SIGINT):
            process = subprocess.Popen([PROGRAM, *map(str, self.arguments("parts"))], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
            results = self.folder / "parts/items.jsonl"
            begun = len(self.items("parts")) if results.exists() else 0
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                if results.exists() and len(self.items("parts")) > begun + 5:
                    break
                time.sleep(.005)
            process.send_signal(number)
            self.assertIn(process.wait(), (-number, 130 if number == signal.SIGINT else 0, 0))
        self.evaluate("parts")
        self.assertEqual(self.items("parts"), self.items("whole"))

    def test_a_second_run_computes_nothing(self):
        first = self.evaluate("out", "--limit", 10)
        lines = self.items("out")
        self.assertEqual(self.evaluate("out", "--limit", 10), first)
        self.assertEqual(self.items("out"), lines)
        self.evaluate("out", "--limit", 12)
        self.assertEqual(len(self.items("out")), 1 + 3 * 12)

    def test_rules_of_the_paper_take_means(self):
        self.evaluate("out", "--rules", "paper", "--limit", 5)
        for line in self.items("out"):
            item = json.loads(line)
            if "task" not in item:
                continue
            means = [logprob / tokens for logprob, tokens in zip(item["logprobs"], item["tokens"])]
            self.assertEqual(item["choice"], means.index(max(means)))

    def test_tables_for_people(self):
        done = a2sf(*self.arguments("out", "--limit", 10))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"task +shots +policy +budget +items +acc % +acc_norm %")
        self.assertRegex(done.stdout, r"piqa +0 +a2sf +40 % +10 ")
        self.assertIn("The first policy less the second", done.stdout)

    def test_bad_input(self):
        self.refuse(2, "no task 'boolq'", *self.arguments("out", tasks="boolq"))
        self.refuse(2, "shots", *self.arguments("out", "--shots", "one"))
        self.refuse(1, "arc_easy/test.jsonl", *self.arguments("out", tasks="arc_easy"))
        self.refuse(2, "--limit", *self.arguments("out", "--limit", 0))
        (self.folder / "data/piqa/validation.jsonl").write_text('{"goal": 1}\n')
        self.refuse(1, "piqa/validation.jsonl, line 1", *self.arguments("out"))

    def test_results_of_another_evaluation_stay(self):
        self.evaluate("out", "--limit", 3)
        before = self.items("out")
        self.refuse(1, "its rules is", *self.arguments("out", "--limit", 3, "--rules", "paper"))
        self.assertEqual(self.items("out"), before)


class HaystackTest(EvalTest):
    def haystack(self, output, *more, tasks="passkey-1k"):
        return ["eval", "-m", MODEL, "--tasks", tasks, "--limit", 1, "-o", self.folder / output, *more]

    def test_a_pass_key_needs_no_data(self):
        done = a2sf(*self.haystack("out", "--policies", "full,streaming", "--budget", 32, "--json"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        full, streaming = json.loads(done.stdout)["rows"]
        self.assertEqual((full["task"], full["items"]), ("passkey-1k", 1))
        if Path(MODEL).name == "SmolLM2-135M-Instruct.Q4_1.gguf":
            self.assertEqual(full["score"], 1)
        self.assertEqual(streaming["score"], 0, "a key that has left the cache")

    def test_a_task_that_reads_files_needs_data(self):
        mention = "--data is required: the task 'piqa' reads piqa/validation.jsonl"
        self.refuse(2, mention, *self.haystack("out", tasks="passkey-1k,piqa"))
        self.refuse(2, "--data is required", "eval", "-m", MODEL, "-o", self.folder / "out")

    def test_bad_input(self):
        self.refuse(1, "'passkey-1k' has no solved examples", *self.haystack("out", "--shots", 1))
        self.refuse(2, "'passkey-1k' is no multiple-choice task", *self.haystack("out", "--masks"))
        self.refuse(2, "no task 'passkey-3k'", *self.haystack("out", tasks="passkey-3k"))


class MasksTest(EvalTest):
    def test_masks_of_all_policies_and_the_ideal_one(self):
        document = self.evaluate("out", "--masks", "--limit", 3, "--shots", "0,1")
        self.assertEqual(document, json.loads((self.folder / "out/masks.json").read_text()))
        self.assertEqual([path.name for path in (self.folder / "out").iterdir()], ["masks.json"])
        self.assertEqual((document["command"], document["sequences"], document["limit"]), ("eval --masks", 6, 3))
        self.assertEqual([(row["policy"], row["budget"]) for row in document["rows"]], [("h2o", .4), ("a2sf", .4), ("ideal", .4)])
        self.assertAlmostEqual(sum(document["attention_by_place"]), 1)
        shape = len(document["sparsity"]), len(document["sparsity"][0])
        for row in document["rows"]:
            self.assertEqual((len(row["heads"]), len(row["heads"][0])), shape)
            for means in [row, *(head for layer in row["heads"] for head in layer)]:
                self.assertTrue(0 < means["jaccard"] <= means["cosine"] <= 1, means)
                self.assertTrue(0 < means["mass"] <= means["ideal_mass"] + 1e-9 <= 1 + 1e-9, means)
            self.assertAlmostEqual(sum(row["slots_by_place"]), 1)
            self.assertEqual([picture["layer"] for picture in row["pictures"]], [0, shape[0] // 2, shape[0] - 1])
            self.assertEqual(row["pictures"][0]["kept"][:3], ["0", "0-1", "0-2"])
        ideal = document["rows"][-1]
        self.assertEqual((ideal["cosine"], ideal["jaccard"], ideal["mass"]), (1, 1, ideal["ideal_mass"]))

    def test_masks_for_people(self):
        done = a2sf(*self.arguments("out", "--masks"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"^policy +budget +cosine +Jaccard +mass kept +mass of ideal +mean age\n")
        self.assertRegex(done.stdout, r"\na2sf +40 % +0\.\d{3} ")
        self.assertEqual(json.loads((self.folder / "out/masks.json").read_text())["sequences"], 20)

    def test_a_policy_without_masks_is_refused(self):
        self.refuse(2, "block=prompt", *self.arguments("out", "--masks", "--block", "prompt"))
        self.assertFalse((self.folder / "out").exists())


class TuneTest(EvalTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model.gguf"
        os.symlink(MODEL, self.model)
        self.text = self.folder / "text.txt"
        self.text.write_text(" ".join(WORDS[(i * i + i // 7) % len(WORDS)] for i in range(700)))

    def tune(self, *more):
        return a2sf("tune", "-m", self.model, "-f", self.text, "--ctx", 128, "--windows", 1, "--budget", "16,64", *more)

    def test_writes_beside_the_model_what_auto_finds(self):
        done = self.tune("--json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        path = f"{self.model}.a2sf.json"
        document, profile = json.loads(done.stdout), json.loads(Path(path).read_text())
        self.assertEqual((document["file"], document["profile"]), (path, profile))
        self.assertEqual([table["mean"] for table in profile["tables"]], [16, 64])
        for table in profile["tables"]:
            shares = [share for layer in table["shares"] for share in layer]
            self.assertAlmostEqual(sum(shares) / len(shares), 1, places=3)
        other = self.folder / "other.txt"
        other.write_text("Some other text. " * 60)
        without_budget = ["run", "-m", self.model, "-f", other, "-n", 2]
        run = [*without_budget, "--budget", 32]
        used = json.loads(a2sf(*run, "--json").stdout)
        self.assertEqual(used["profile"]["file"], path)
        self.assertEqual(a2sf(*run).stderr, "")
        for without in (["--budget", 32, "--profile", "none"], ["--budget", "all"], ["--budget", 100000],
                        ["--budget", 32, "--policy", "full"], ["--budget", 32, "--policy", "local"]):
            self.assertIsNone(json.loads(a2sf(*without_budget, *without, "--json").stdout)["profile"], without)
        compare = ["compare", "-m", self.model, "-f", other, "--policies", "a2sf", "--budget", 32, "--json"]
        self.assertIsNone(json.loads(a2sf(*compare).stdout)["rows"][1]["profile"])
        self.assertEqual(json.loads(a2sf(*compare, "--profile", "auto").stdout)["rows"][1]["profile"]["file"], path)

    def test_a_profile_says_nothing_of_its_own_text(self):
        path = self.folder / "profile.json"
        self.assertEqual(self.tune("-o", path).returncode, 0)
        scored = ["-m", self.model, "-f", self.text, "--budget", 32, "--profile", path]
        self.refuse(1, "was tuned on", "perplexity", *scored, "--ctx", 64)
        self.refuse(1, "was tuned on", "compare", *scored, "--policies", "a2sf")

    def test_memories_are_found_on_a_text_and_on_tasks(self):
        path = self.folder / "profile.json"
        on_text = a2sf("tune", "-m", self.model, "-f", self.text, "--ctx", 64, "--windows", 1, "--budget", 16, "--alpha",
                       "one", "--calls", 3, "--cost", "loss", "--measure", "mass", "-o", path)
        self.assertEqual((on_text.returncode, on_text.stderr), (0, ""))
        self.assertIn("memory", on_text.stdout)
        on_text = json.loads(path.read_text())
        shares = on_text["tables"][0]["shares"]
        path.write_text(json.dumps({**on_text, "policy": "a2sf:layers=0-27"}))
        both = self.folder / "both.json"
        on_tasks = a2sf("tune", "-m", self.model, "--data", self.folder / "data", "--tasks", "piqa", "--limit", 3,
                        "--shots", 1, "--budget", "0.3", "--calls", 3, "--cost", "accuracy", "--profile", path, "-o", both, "--json")
        self.assertEqual((on_tasks.returncode, on_tasks.stderr), (0, ""))
        profile = json.loads(both.read_text())
        self.assertEqual(json.loads(on_tasks.stdout)["profile"], profile)
        self.assertEqual(profile["tables"][0]["shares"], shares)
        self.assertEqual([text["name"] for text in profile["texts"]], ["text.txt", "piqa/train_first2000.jsonl"])
        memories = {memory for layer in profile["tables"][0]["memories"] for memory in layer}
        self.assertEqual(len(memories), 1)
        self.assertEqual(profile["policy"], "a2sf:layers=0-27")

    def test_token_classes_are_made_and_used(self):
        arguments = ["tune", "-m", self.model, "--classes", self.text, "--ctx", 64, "--windows", 1, "--calls", 3]
        done = a2sf(*arguments, "--budget", 16, "--json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        path = f"{self.model}.classes.json"
        document, classes = json.loads(done.stdout), json.loads(Path(path).read_text())
        self.assertEqual((document["file"], classes["format"]), (path, "a2sf-classes-1"))
        self.assertEqual([row["class"] for row in document["rows"]], [each["name"] for each in classes["classes"]])
        self.assertEqual(sum(row["tokens"] for row in document["rows"]), classes["vocabulary"])
        self.assertTrue(all(row["tokens"] > 0 for row in document["rows"]), document["rows"])
        run = ["run", "-m", self.model, "-f", self.text, "-n", 2, "--budget", 16, "--profile", "none", "--json", "--policy"]
        used = json.loads(a2sf(*run, f"token-class:classes={path}").stdout)
        self.assertEqual(used["spec"], f"token-class:classes={path}:budget=16")
        self.refuse(2, "needs token classes", *run, "token-class")
        self.refuse(2, "leave out classes or cold", *run, f"a2sf:classes={path}:cold=all")
        self.refuse(2, "is no token", *run, f"a2sf:classes={self.wrong_classes(path, vocabulary=5)}")
        self.refuse(1, "classes of 60000 tokens, this model", *run, f"a2sf:classes={self.wrong_classes(path, vocabulary=60000)}")
        scored = ["-m", self.model, "-f", self.text, "--budget", 16]
        self.refuse(1, "was tuned on", "perplexity", *scored, "--ctx", 64, "--policy", f"a2sf:classes={path}")
        self.refuse(1, "leave out classes", "compare", *scored, "--policies", f"a2sf:classes={path}")
        of_task, data = self.folder / "task.classes.json", self.folder / "data"
        self.assertEqual(a2sf("tune", "-m", self.model, "--classes", data / "piqa/validation.jsonl", "--ctx", 64, "--windows", 1,
                              "--calls", 3, "--budget", 16, "-o", of_task).returncode, 0)
        self.refuse(1, "was tuned on", "eval", "-m", self.model, "--data", data, "--tasks", "piqa", "-o", self.folder / "out",
                    "--policies", f"a2sf:classes={of_task}", "--budget", 16)
        self.refuse(2, "one --policy and one --budget", *arguments, "--budget", "16,32")
        self.refuse(2, "what to tune on", *arguments, "-f", self.text)
        self.refuse(1, "fewer than one window", "tune", "-m", self.model, "--classes", self.text)

    def wrong_classes(self, path, **changes):
        wrong = self.folder / "wrong.json"
        wrong.write_text(json.dumps({**json.loads(Path(path).read_text()), **changes}))
        return wrong

    def test_of_several_policies_one_is_chosen_and_its_score_is_used(self):
        path = self.folder / "profile.json"
        given = "a2sf:power=1.5,a2sf:power=1.5:value-weight=on:sink=1"
        done = a2sf("tune", "-m", self.model, "-f", self.text, "--ctx", 64, "--windows", 1, "--budget", 16, "--policy", given,
                    "-o", path, "--json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn(json.loads(path.read_text())["policy"], given.split(","))
        run = ["run", "-m", self.model, "-f", self.text, "-n", 2, "--budget", 16, "--profile", path, "--json"]
        self.assertTrue(json.loads(a2sf(*run).stdout)["spec"].startswith("a2sf:power=1.5:"))
        self.assertTrue(json.loads(a2sf(*run, "--power", 1, "--recent", 4).stdout)["spec"].endswith(":recent=4"))

    def test_hybrid_and_long_term_are_written_and_used(self):
        path = self.folder / "hybrid.json"
        done = self.tune("-o", path, "--hybrid", 0.5, "--long-term", 2)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        profile = json.loads(path.read_text())
        self.assertRegex(profile["policy"], r"^a2sf:layers=[0-9+-]+$")
        self.assertIn(f"for {profile['policy']}\n", done.stdout)
        for table in profile["tables"]:
            self.assertEqual(sum(local for layer in table["local"] for local in layer), 42)
        self.assertIn("42 of 90", done.stdout)
        run = ["run", "-m", self.model, "-f", self.text, "-n", 2, "--budget", 16, "--profile", path, "--alpha", 0.9, "--json"]
        used = a2sf(*run)
        self.assertEqual((used.returncode, used.stderr), (0, ""))
        self.assertTrue(json.loads(used.stdout)["spec"].endswith(profile["policy"].removeprefix("a2sf")))

    def test_a_domain_is_found_by_its_name(self):
        run = ["run", "-m", MODEL, "-f", self.text, "-n", 2, "--budget", 32, "--json", "--profile", "code"]
        if Path(MODEL).name == "SmolLM2-135M-Instruct.Q4_1.gguf":
            done = a2sf(*run)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertEqual(json.loads(done.stdout)["profile"]["file"], "code/smollm2-135m")
            for policy in ("local", "snapkv"):
                done = a2sf(*run, "--policy", policy)
                self.assertEqual((done.returncode, done.stderr), (0, f"a2sf: warning: --profile code does nothing under {policy}\n"))
        else:
            self.refuse(1, "--profile code: no such profile", *run)

    def test_one_of_another_model_is_not_used(self):
        Path(f"{self.model}.a2sf.json").write_text(json.dumps({"shares": [[1] * 3] * 30, "model_hash": "0"}))
        done = a2sf("run", "-m", self.model, "-f", self.text, "-n", 2, "--budget", 32, "--json")
        self.assertIn("was tuned on another model", done.stderr)
        self.assertNotEqual(json.loads(done.stdout)["profile"], f"{self.model}.a2sf.json")

    def test_a_score_is_learned_and_says_nothing_of_its_own_text(self):
        path = self.folder / "learned.json"
        learn = ["tune", "-m", self.model, "--learn", self.text, "--ctx", 192, "--windows", 1, "--budget", 16, "-o", path]
        done = a2sf(*learn, "--kind", "linear", "--json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual((json.loads(done.stdout)["kind"], json.loads(done.stdout)["file"]), ("linear", str(path)))
        done = a2sf(*learn)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn(f"--policy learned:model={path}", done.stdout)
        self.assertEqual([len(layer["hidden"]) for layer in json.loads(path.read_text())["layers"]], [16] * 30)
        other = self.folder / "other.txt"
        other.write_text("Some other text. " * 60)
        scored = ["perplexity", "-m", self.model, "--ctx", 64, "--budget", 16, "--policy", f"learned:model={path}"]
        self.assertEqual(a2sf(*scored, "-f", other).returncode, 0)
        self.refuse(1, "was tuned on", *scored, "-f", self.text)
        self.refuse(2, "learned needs model=FILE", *scored[:-1], "learned", "-f", other)
        elsewhere = self.folder / "elsewhere.json"
        elsewhere.write_text(json.dumps({**json.loads(path.read_text()), "model_hash": "0123456789abcdef"}))
        self.refuse(1, "was learned on another model", *scored[:-1], f"learned:model={elsewhere}", "-f", other)
        self.refuse(2, "is no learned model", *scored[:-1], f"learned:model={self.text}", "-f", other)
        self.refuse(1, "a window of 64 tokens", "tune", "-m", self.model, "--learn", self.text, "--ctx", 64, "--windows", 1)
        self.refuse(2, "'big'", *learn, "--kind", "big")

    def test_weights_of_multi_are_found(self):
        done = a2sf("tune", "-m", self.model, "--multi", self.text, "--ctx", 64, "--windows", 1, "--budget", 16, "--calls", 4, "--json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        document = json.loads(done.stdout)
        self.assertEqual(document["policy"], "multi")
        self.assertEqual(document["rows"][0]["weights"], "standard weights")
        self.assertLessEqual(document["perplexity"], document["rows"][0]["perplexity"])
        self.refuse(2, "--multi writes no file", "tune", "-m", self.model, "--multi", self.text, "-o", self.folder / "x")

    def test_what_is_shipped_is_used_and_found_by_its_name(self):
        run = ["run", "-m", MODEL, "-f", self.text, "-n", 2, "--budget", 32, "--json"]
        done = a2sf(*run, "--profile", "smollm2-135m")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        named = json.loads(done.stdout)
        self.assertEqual(named["profile"]["file"], "smollm2-135m")
        if Path(MODEL).name == "SmolLM2-135M-Instruct.Q4_1.gguf" and not Path(f"{MODEL}.a2sf.json").exists():
            unnamed = json.loads(a2sf(*run).stdout)
            self.assertEqual((unnamed["profile"], unnamed["tokens"]), (named["profile"], named["tokens"]))

    def test_bad_input(self):
        self.refuse(2, "ratio", *["tune", "-m", self.model, "-f", self.text, "--budget", "0.2"])
        self.refuse(2, "policies that score", *["tune", "-m", self.model, "-f", self.text, "--policy", "full"])
        self.refuse(1, "fewer than one window", *["tune", "-m", self.model, "-f", self.text])
        self.refuse(2, "what to tune on", *["tune", "-m", self.model])
        self.refuse(2, "what to tune on", *["tune", "-m", self.model, "-f", self.text, "--data", self.folder])
        self.refuse(2, "'two'", *["tune", "-m", self.model, "-f", self.text, "--alpha", "two"])
        self.refuse(2, "'accuracy'", *["tune", "-m", self.model, "-f", self.text, "--cost", "accuracy"])
        self.refuse(2, "'kl'", *["tune", "-m", self.model, "--data", self.folder / "data", "--tasks", "piqa", "--cost", "kl"])
        self.refuse(2, "--hybrid", *["tune", "-m", self.model, "-f", self.text, "--hybrid", "1.5"])
        self.refuse(2, "--long-term", *["tune", "-m", self.model, "-f", self.text, "--long-term", "-1"])
        self.refuse(1, "29 are the most", *["tune", "-m", self.model, "-f", self.text, "--ctx", "64", "--budget", "16",
                                            "--long-term", "30"])
        self.refuse(2, "need a text", *["tune", "-m", self.model, "--data", self.folder, "--hybrid", "0.5"])
        self.assertFalse(Path(f"{self.model}.a2sf.json").exists())


if __name__ == "__main__":
    if not Path(MODEL).exists() or not shutil.which(PROGRAM):
        print("no model or no program")
        sys.exit(SKIPPED)
    unittest.main()
