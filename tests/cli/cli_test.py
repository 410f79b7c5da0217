"""Runs every command of the program end to end, with small sizes. A2SF_PROGRAM names it, A2SF_MODEL the model."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "a2sf"
MODEL = os.environ.get("A2SF_MODEL") or str(CACHE / "SmolLM2-135M-Instruct.Q4_1.gguf")
PROGRAM = os.environ.get("A2SF_PROGRAM") or str(Path(__file__).parents[2] / "build/release/apps/a2sf/a2sf")
COMMANDS = ("run", "chat", "compare", "perplexity", "bench", "trace", "inspect", "policies")
TEXT = "The lighthouse keeper wrote down the weather every evening, and every morning he read what he had written. " * 20
SKIPPED = 77


def a2sf(*arguments, stdin=b"", binary=False):
    done = subprocess.run([PROGRAM, *map(str, arguments)], input=stdin, capture_output=True, timeout=600, check=False)
    if not binary:
        done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    return done


class CliTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.text = cls.file("text.txt", TEXT.encode())

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @classmethod
    def file(cls, name, content):
        path = Path(cls.folder.name) / name
        path.write_bytes(content)
        return str(path)

    def succeed(self, *arguments, **options):
        done = a2sf(*arguments, **options)
        self.assertEqual((done.returncode, done.stderr), (0, ""), arguments)
        return done.stdout

    def read(self, *arguments, **options):
        return json.loads(self.succeed(*arguments, "--json", **options))

    def refuse(self, code, mention, *arguments, **options):
        done = a2sf(*arguments, **options)
        self.assertEqual(done.returncode, code, (arguments, done.stderr))
        self.assertRegex(done.stderr, r"^a2sf: [^\n]+\n$", arguments)
        self.assertIn(mention, done.stderr)

    def compare(self, *arguments):
        return self.read("compare", "-m", MODEL, "-f", self.text, "--tokens", 160, *arguments)


class HelpTest(CliTest):
    def test_every_help_ends_with_an_example(self):
        for command in COMMANDS:
            lines = self.succeed(command, "--help").rstrip().splitlines()
            self.assertIn("Example:", lines[-2], command)
            self.assertTrue(lines[-1].strip().startswith(f"a2sf {command}"), lines[-1])

    def test_version(self):
        self.assertRegex(self.succeed("--version"), r"\d+\.\d+\.\d+")
        self.assertEqual(self.succeed("run", "--version"), self.succeed("--version"))

    def test_policies(self):
        rows = self.read("policies")["rows"]
        self.assertLessEqual({"full", "local", "streaming", "h2o", "tova", "a2sf", "ideal"}, {row["policy"] for row in rows})
        self.assertIn("h2o", self.succeed("policies"))


class RunTest(CliTest):
    def test_json(self):
        result = self.read("run", "-m", MODEL, "-p", "Once upon a time", "-n", 8, "--budget", 32)
        self.assertEqual((result["command"], result["policy"], result["budget"]), ("run", "a2sf", 32))
        self.assertEqual(result["generated_tokens"], len(result["tokens"]))
        self.assertGreater(result["kv_bytes"], 0)
        for key in ("version", "model_hash", "threads", "isa", "seed", "spec", "text"):
            self.assertIn(key, result)

    def test_bytes_do_not_depend_on_threads(self):
        def run(threads):
            return a2sf("run", "-m", MODEL, "-f", self.text, "-n", 24, "--budget", 64, "--threads", threads, binary=True)
        one, two = run(1), run(2)
        self.assertEqual((one.returncode, one.stderr), (0, b""))
        self.assertEqual(one.stdout, two.stdout)

    def test_a_budget_over_the_length_changes_nothing(self):
        texts = [self.read("run", "-m", MODEL, "-p", "The sea is", "-n", 16, "--policy", policy)["text"]
                 for policy in ("full", "a2sf")]
        self.assertEqual(*texts)

    def test_sampling_repeats_with_its_seed(self):
        def run(seed):
            return self.succeed("run", "-m", MODEL, "-p", "My favourite", "-n", 16, "--temp", 1.5, "--seed", seed)
        self.assertEqual(run(1), run(1))
        self.assertNotEqual(run(1), run(2))

    def test_stop_string(self):
        result = self.read("run", "-m", MODEL, "-p", "1, 2, 3, 4,", "-n", 40, "--stop", "7")
        self.assertEqual(result["stop_reason"], "stop_string")
        self.assertNotIn("7", result["text"])

    def test_bad_input(self):
        self.refuse(1, "empty", "run", "-m", MODEL, "-p", "", "-n", 4)
        self.refuse(1, "empty", "run", "-m", MODEL, "-f", self.file("empty.txt", b""), "-n", 4)
        self.refuse(1, "UTF-8", "run", "-m", MODEL, "-f", self.file("wrong.txt", b"ab\xffcd"), "-n", 4)
        self.refuse(1, "nowhere.txt", "run", "-m", MODEL, "-f", "nowhere.txt", "-n", 4)
        self.refuse(1, "nowhere.gguf", "run", "-m", "nowhere.gguf", "-p", "x", "-n", 4)
        self.refuse(1, "text.txt", "run", "-m", self.text, "-p", "x", "-n", 4)
        self.refuse(1, "CUDA", "run", "-m", MODEL, "-p", "x", "--device", "cuda")

    def test_wrong_usage(self):
        for arguments in (["--alpha", "1.5"], ["--alpha", "x"], ["--alpha", ""], ["--budget", "0"], ["--budget", "-3"],
                          ["--policy", "lru"], ["--policy", "a2sf:beta=1"], ["--temp", "-1"], ["--temp", "nan"],
                          ["--top-p", "0"], ["--min-p", "2"], ["--seed", "-2"], ["--repeat-penalty", "0"],
                          ["--budget", "8", "--sink", "9"], ["--kv-type", "q4"], ["--threads", "-1"], ["--nonsense"]):
            with self.subTest(arguments=arguments):
                self.refuse(2, "", "run", "-m", MODEL, "-p", "x", "-n", 1, *arguments)
        self.refuse(2, "", "run", "-m", MODEL)
        self.refuse(2, "", "run", "-p", "x")
        self.refuse(2, "", "fly")
        self.refuse(2, "")

    def test_a_freezing_cache_is_warned_of(self):
        done = a2sf("run", "-m", MODEL, "-p", "x", "-n", 1, "--budget", 16, "--alpha", 0.99, "--recent", 0)
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stderr, r"^a2sf: warning: [^\n]*recent[^\n]*\n$")


class ProfileTest(CliTest):
    @classmethod
    def profile(cls, name, **tables):
        """A profile of the model's 30 layers of 3 KV heads; a number stands for a table of it."""
        return cls.file(name, json.dumps({key: value if isinstance(value, list) else [[value] * 3] * 30
                                          for key, value in tables.items()}).encode())

    def ragged(self):
        return self.profile("ragged.json", shares=[[1 + layer, 1, 2] for layer in range(30)], alphas=0.5)

    def test_equal_shares_change_no_byte(self):
        equal = self.profile("equal.json", shares=0.5)
        for budget in ("24", "20%"):
            plain, shared = (self.read("run", "-m", MODEL, "-f", self.text, "-n", 16, "--budget", budget, *more)
                             for more in ((), ("--profile", equal)))
            self.assertEqual(shared["spec"], plain["spec"] + f":profile={equal}")
            self.assertEqual((shared["tokens"], shared["kv_bytes"]), (plain["tokens"], plain["kv_bytes"]))

    def test_every_document_says_which(self):
        ragged, common = self.ragged(), ["-m", MODEL, "--budget", 16]
        text = ["-f", self.text, "--tokens", 80]
        rows = self.compare("--policies", "h2o,a2sf", "--budget", 16, "--profile", ragged)["rows"]
        self.assertIsNone(rows[0]["profile"])
        self.assertEqual(rows[1]["profile"]["file"], ragged)
        self.assertIn(f":profile={ragged}", rows[2]["spec"])
        documents = [
            self.read("run", *common, "-p", "The sea", "-n", 2, "--profile", ragged),
            self.read("run", *common, "-p", "The sea", "-n", 2, "--policy", f"a2sf:profile={ragged}"),
            self.read("chat", *common, "-n", 2, "--profile", ragged, stdin=b"Hi\n"),
            self.read("perplexity", *common, *text, "--ctx", 40, "--profile", ragged),
            self.read("bench", *common, "-p", 8, "-n", 0, "-r", 1, "--profile", ragged)["rows"][0],
            self.read("trace", *common, *text, "-o", "/dev/null", "--profile", ragged)]
        for document in documents:
            self.assertEqual(document["profile"], rows[1]["profile"])

    def test_its_alphas_hold_unless_one_is_given(self):
        arguments = ["--policies", "a2sf", "--budget", 16, "--profile"]
        ragged, half, no_alphas = (
            self.compare(*arguments, profile, *alpha)["rows"][1]["kl_to_full"]
            for profile, alpha in ((self.ragged(), ()), (self.ragged(), ("--alpha", "0.5")), (self.ragged(), ("--alpha", "auto"))))
        self.assertEqual(ragged, half)
        self.assertNotEqual(ragged, no_alphas)

    def test_bad_files(self):
        def refuse(code, mention, path, *more):
            self.refuse(code, mention, "run", "-m", MODEL, "-p", "x", "-n", 1, "--profile", path, *more)
        refuse(1, "/no/such/file", "/no/such/file")
        refuse(1, "profile", self.folder.name)
        refuse(1, "29 layers", self.profile("short.json", shares=[[1] * 3] * 29))
        refuse(2, "no profile", self.file("empty.json", b""))
        refuse(2, "no profile", self.file("text.json", b"a profile"))
        refuse(2, "layer 0, KV head 0", self.profile("zero.json", shares=0))
        refuse(2, "alphas 2", self.profile("alphas.json", shares=1, alphas=2))
        refuse(2, "must stay", self.ragged(), "--budget", 8, "--sink", 9)
        table = self.file("table.json", json.dumps({"budgets": [[8] * 3] * 30}).encode())
        refuse(2, "table", self.ragged(), "--budget", f"@{table}")


class ChatTest(CliTest):
    def test_two_turns(self):
        result = self.read("chat", "-m", MODEL, "-n", 6, "--system", "Be brief.", "--pin", "system", "--temp", 0,
                           stdin=b"Hello\nAnd now?\n\n")
        self.assertEqual([turn["user"] for turn in result["turns"]], ["Hello", "And now?"])
        self.assertIn("pin=", result["spec"])

    def test_reset_forgets(self):
        result = self.read("chat", "-m", MODEL, "-n", 6, "--temp", 0, stdin=b"Hello\n/reset\nHello\n/exit\n")
        self.assertEqual(*(turn["assistant"] for turn in result["turns"]))

    def test_wrong_usage(self):
        self.refuse(2, "budget", "chat", "-m", MODEL, "--budget", "0.5")
        self.refuse(2, "--system", "chat", "-m", MODEL, "--pin", "system")


class CompareTest(CliTest):
    def test_rows(self):
        result = self.compare("--policies", "full,local,ideal,a2sf:alpha=0.9", "--budget", "32,64")
        rows = result["rows"]
        self.assertEqual([(row["policy"], row["budget"]) for row in rows],
                         [("full", None), ("local", 32), ("local", 64), ("ideal", 32), ("ideal", 64), ("a2sf", 32),
                          ("a2sf", 64)])
        self.assertEqual((result["tokens"], result["tokens_scored"]), (160, 159))
        self.assertEqual((rows[0]["kl_to_full"], rows[0]["top1_agreement"]), (0, 1))
        for row in rows[1:]:
            self.assertGreater(row["kl_to_full"], 0)
            self.assertTrue(0 < row["top1_agreement"] <= 1)
        for row in rows:
            self.assertTrue(row["perplexity"] > 1 and row["prompt_tokens_per_s"] > 0 and row["decode_tokens_per_s"] > 0)
        self.assertLess(rows[1]["kv_bytes"], rows[0]["kv_bytes"])

    def test_a_budget_over_the_length_is_full(self):
        row = self.compare("--policies", "h2o", "--budget", "200")["rows"][1]
        self.assertLess(row["kl_to_full"], 1e-4)

    def test_a_whole_prompt_needs_its_length(self):
        arguments = ["--policies", "a2sf", "--budget", "32", "--block", "prompt"]
        self.refuse(2, "--prompt", "compare", "-m", MODEL, "-f", self.text, *arguments)
        self.assertEqual(self.compare(*arguments, "--prompt", 100)["tokens_scored"], 60)

    def test_table_and_output_file(self):
        path = Path(self.folder.name) / "compare.json"
        table = self.succeed("compare", "-m", MODEL, "-f", self.text, "--tokens", 100, "--policies", "a2sf", "--budget",
                             "20%", "-o", path).splitlines()
        self.assertRegex(table[0], r", 100 tokens of text\.txt, \d+ threads?, ")
        self.assertEqual([line.split()[0] for line in table[1:]], ["policy", "full", "a2sf"])
        self.assertEqual(json.loads(path.read_text())["rows"][1]["budget"], 0.2)
        self.assertEqual([name for name in os.listdir(self.folder.name) if name.endswith(".part")], [])

    def test_bad_input(self):
        short = self.file("short.txt", b"Hi")
        self.refuse(1, "tokens", "compare", "-m", MODEL, "-f", short)
        self.refuse(1, "/nowhere/x.json", "compare", "-m", MODEL, "-f", self.text, "-o", "/nowhere/x.json")
        self.refuse(2, "lru", "compare", "-m", MODEL, "-f", self.text, "--policies", "full,lru")
        self.refuse(2, "", "compare", "-m", MODEL, "-f", self.text, "--budget", "32,")


class PerplexityTest(CliTest):
    def perplexity(self, *arguments):
        return self.read("perplexity", "-m", MODEL, "-f", self.text, "--ctx", 64, "--tokens", 150, *arguments)

    def test_half_and_all(self):
        half, every = self.perplexity("--budget", 32), self.perplexity("--budget", 32, "--score", "all")
        self.assertEqual((half["windows"], half["tokens_scored"]), (2, 2 * 31))
        self.assertEqual((every["windows"], every["tokens_scored"]), (2, 2 * 63))
        self.assertTrue(half["perplexity"] > 1 and half["spec"].startswith("a2sf"))

    def test_a_prompt_is_not_scored(self):
        result = self.perplexity("--score", "all", "--prompt", 40, "--block", "prompt", "--budget", 16)
        self.assertEqual(result["tokens_scored"], 2 * 24)

    def test_bad_input(self):
        self.refuse(1, "--ctx", "perplexity", "-m", MODEL, "-f", self.text, "--ctx", 5000)
        self.refuse(2, "--prompt", "perplexity", "-m", MODEL, "-f", self.text, "--ctx", 64, "--prompt", 64)
        self.refuse(2, "--score", "perplexity", "-m", MODEL, "-f", self.text, "--score", "most")


class BenchTest(CliTest):
    def test_rows(self):
        result = self.read("bench", "-m", MODEL, "-p", "16,8", "-n", 4, "-d", "0,32", "-r", 2, "--budget", 16)
        self.assertEqual([(row["test"], row["n_tokens"], row["depth"]) for row in result["rows"]],
                         [(test, tokens, depth) for depth in (0, 32)
                          for test, tokens in (("prompt", 16), ("prompt", 8), ("decode", 4))])
        for row in result["rows"]:
            self.assertTrue(0 < row["tokens_per_s_min"] <= row["tokens_per_s"] <= row["tokens_per_s_max"])
            self.assertEqual((row["repeats"], row["budget"]), (2, 16))
            self.assertTrue(row["kv_bytes"] > 0 and row["peak_rss_bytes"] > row["kv_bytes"])

    def test_bad_input(self):
        self.refuse(2, "-p", "bench", "-m", MODEL, "-p", 0, "-n", 0)
        self.refuse(2, "-d", "bench", "-m", MODEL, "-d", "x")
        self.refuse(1, "nowhere.gguf", "bench", "-m", "nowhere.gguf", "-p", 4, "-n", 0)


class TraceTest(CliTest):
    def trace(self, *arguments):
        path = Path(self.folder.name) / "trace.jsonl"
        self.succeed("trace", "-m", MODEL, "-f", self.text, "-o", path, "--tokens", 100,
                     *(() if "--budget" in arguments else ("--budget", 24)), *arguments)
        header, *lines = map(json.loads, path.read_text().splitlines())
        return header, lines

    def test_kept_is_all_but_the_victims(self):
        header, lines = self.trace("--layers", "0,3", "--heads", "1", "--scores")
        self.assertEqual((header["policy"], header["budget"], header["recent"]), ("a2sf", 24, 12))
        self.assertEqual((len(header["tokens"]), len(lines)), (100, 200))
        for layer in (0, 3):
            kept = set()
            for line in (line for line in lines if line["layer"] == layer):
                kept = (kept | {line["step"]}) - set(line["victims"])
                self.assertEqual(line["kept"], sorted(kept))
                self.assertLessEqual(len(kept), 24)
                self.assertEqual(len(line["scores"]), len(kept))

    def test_the_header_has_tables_where_heads_differ(self):
        profile = self.file("profile.json", json.dumps({"shares": [[1, 1, 4]] * 30}).encode())
        header, lines = self.trace("--layers", 0, "--profile", profile, "--sink", 2)
        self.assertEqual((header["budget"], header["recent"]), ([[12, 12, 48]] * 30, [[6, 6, 24]] * 30))
        self.assertEqual(header["sink"], 2)
        for line in lines[-3:]:
            self.assertEqual(len(line["kept"]), header["budget"][0][line["kv_head"]])
        table = self.file("table.json", json.dumps({"budgets": [[9, 12, 9]] * 30}).encode())
        header, _ = self.trace("--layers", 0, "--budget", f"@{table}")
        self.assertEqual(header["budget"], [[9, 12, 9]] * 30)

    def test_every_thins_steps_and_keeps_victims(self):
        _, lines = self.trace("--layers", 0, "--heads", 0, "--every", 40)
        self.assertEqual([line["step"] for line in lines], [0, 40, 80, 99])
        victims = [victim for line in lines for victim in line["victims"]]
        self.assertEqual(sorted(victims + lines[-1]["kept"]), list(range(100)))

    def test_bad_input(self):
        common = ["trace", "-m", MODEL, "-f", self.text, "--tokens", 10]
        self.refuse(1, "/nowhere/t", *common, "-o", "/nowhere/t")
        self.refuse(2, "--layers", *common, "-o", "/dev/null", "--layers", 99)
        self.refuse(2, "--heads", *common, "-o", "/dev/null", "--heads", "a")


class InspectTest(CliTest):
    def test_facts_and_costs(self):
        result = self.read("inspect", MODEL, "--budget", 256, "--ctx", 4096, "--memory", "2GiB")
        self.assertEqual(result["memory_bytes"], 2 << 30)
        self.assertGreater(result["bounded_sequences"], result["full_sequences"])
        slot = 2 * result["head_dim"] * 2 + 4 + 4
        self.assertEqual(result["cache"]["bounded_kv_bytes"], result["layers"] * result["kv_heads"] * 272 * slot)
        self.assertIn("chat template", self.succeed("inspect", MODEL))

    def test_memory_is_bytes_with_or_without_a_unit(self):
        for text, expected in (("8G", 8 << 30), ("8GiB", 8 << 30), ("512MiB", 512 << 20), ("4096", 4096)):
            self.assertEqual(self.read("inspect", MODEL, "--memory", text)["memory_bytes"], expected)
        for text in ("-1", "+1", "8X", "1e9", ""):
            self.refuse(2, "", "inspect", MODEL, "--memory", text)

    def test_costs_are_what_a_run_allocates(self):
        profile = self.file("profile.json", json.dumps({"shares": [[1, 1, 4]] * 30}).encode())
        table = self.file("table.json", json.dumps({"budgets": [[9, 30, 9]] * 30}).encode())
        for arguments in (["--budget", 20], ["--budget", 20, "--profile", profile], ["--budget", f"@{table}"],
                          ["--budget", 20, "--kv-type", "f32"]):
            result = self.read("run", "-m", MODEL, "-p", "The sea", "-n", 4, *arguments)
            self.assertEqual(self.read("inspect", MODEL, *arguments)["cache"]["bounded_kv_bytes"], result["kv_bytes"])

    def test_tensors(self):
        result = self.read("inspect", MODEL)
        embedding = next(tensor for tensor in result["tensors"] if tensor["name"] == "token_embd.weight")
        self.assertEqual(embedding["shape"], [result["embedding"], result["vocabulary"]])
        self.assertEqual(sum(tensor["bytes"] for tensor in result["tensors"]), result["weight_bytes"])
        self.assertIn("token_embd.weight", self.succeed("inspect", MODEL, "--tensors"))

    def test_another_architecture_is_shown_as_far_as_it_goes(self):
        known = (Path(__file__).parents[1] / "model/fixtures/llama.gguf").read_bytes()
        other = self.file("other.gguf", known.replace(b"llama", b"mamba", 1))
        result = self.read("inspect", other, "--memory", "8G")
        self.assertEqual((result["architecture"], result["supported"]), ("mamba", False))
        self.assertIn("mamba", result["why_not"])
        self.assertGreater(len(result["tensors"]), 0)
        self.assertIn("cannot be run", self.succeed("inspect", other))
        incomplete = self.file("incomplete.gguf", known.replace(b"blk.0.attn_q.weight", b"blk.0.attn_x.weight", 1))
        self.assertIn("attn_q", self.read("inspect", incomplete)["why_not"])
        self.refuse(1, "mamba", "bench", "-m", other, "-p", 8, "-n", 0)

    def test_bad_input(self):
        self.refuse(1, "nowhere.gguf", "inspect", "nowhere.gguf")
        self.refuse(2, "", "inspect", MODEL, "--budget", "many")


def main():
    if not (os.path.isfile(MODEL) and os.access(PROGRAM, os.X_OK)):
        print(f"skipped: {MODEL} or {PROGRAM} is missing")
        return SKIPPED
    unittest.main()


if __name__ == "__main__":
    sys.exit(main())
