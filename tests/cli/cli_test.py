"""Runs every command of the program end to end, with small sizes. A2SF_PROGRAM names it, A2SF_MODEL the model."""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "a2sf"
MODEL = os.environ.get("A2SF_MODEL") or str(CACHE / "SmolLM2-135M-Instruct.Q4_1.gguf")
PROGRAM = os.environ.get("A2SF_PROGRAM") or str(Path(__file__).parents[2] / "build/release/apps/a2sf/a2sf")
COMMANDS = ("run", "chat", "serve", "compare", "perplexity", "eval", "tune", "bench", "trace", "inspect", "policies")
TEXT = "The lighthouse keeper wrote down the weather every evening, and every morning he read what he had written. " * 20
SKIPPED = 77


def a2sf(*arguments, stdin=b"", binary=False, env=None):
    done = subprocess.run([PROGRAM, *map(str, arguments)], input=stdin, capture_output=True, timeout=600, check=False,
                          env={**os.environ, **(env or {})})
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

    def warned(self, *arguments):
        """What is said on stderr, where that is warnings alone, without their beginning."""
        done = a2sf(*arguments)
        self.assertEqual(done.returncode, 0, (arguments, done.stderr))
        for line in done.stderr.splitlines():
            self.assertRegex(line, "^a2sf: warning: ")
        return [line.removeprefix("a2sf: warning: ") for line in done.stderr.splitlines()]

    def compare(self, *arguments):
        return self.read("compare", "-m", MODEL, "-f", self.text, "--tokens", 160, *arguments)


class HelpTest(CliTest):
    def test_every_help_ends_with_an_example(self):
        for command in COMMANDS:
            lines = self.succeed(command, "--help").rstrip().splitlines()
            self.assertIn("Example:", lines[-2], command)
            self.assertTrue(lines[-1].strip().startswith(f"a2sf {command}"), lines[-1])

    def test_defaults_are_said(self):
        run, compare, bench = (" ".join(self.succeed(command, "--help").split()) for command in ("run", "compare", "bench"))
        for text in ("--policy P What stays, with options if wanted: a2sf:alpha=0.9:sink=4 (see: a2sf policies) (default: a2sf)",
                     '{"budgets": [[64, 32], [16, "all"]]} (default: 1024)', "Format of keys and values (default: f16)",
                     "Threads to compute with; 0: as many as the process may keep busy (default: 0)", "slow (default: cpu)", "mapped (default: on)"):
            self.assertIn(text, run)
        self.assertIn("(default: full,local,h2o,a2sf)", compare)
        self.assertIn("(default: 1024)", compare)
        self.assertIn("(default: 512)", bench)

    def test_help_is_aligned_and_plain(self):
        for command in COMMANDS:
            text = self.succeed(command, "--help")
            self.assertTrue(text.startswith(f"Usage: a2sf {command}"), text)
            self.assertNotRegex(text, r"FLOAT|INT\b|FUNCTION|REQUIRED|\bin \[|\{on,off\}")
            options = [line for line in text.splitlines() if line.startswith("  -") or line.startswith("      --")]
            self.assertEqual(sum("--help" in line for line in options), 1, text)
            for line in options:
                self.assertRegex(line, r"^.{24}(  ?\S|$)", command)
                self.assertLessEqual(len(line), 100)
        self.assertIn("Usage: a2sf run -m FILE (-p TEXT | -f FILE) [options]", self.succeed("run", "--help"))

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

    def test_log_probabilities_of_the_tokens_and_of_the_likeliest_ones(self):
        result = self.read("run", "-m", MODEL, "-p", "The capital of France is", "-n", 4, "--logprobs", 3)
        self.assertEqual([token["token"] for token in result["logprobs"]], result["tokens"])
        self.assertEqual("".join(token["text"] for token in result["logprobs"]), result["text"])
        for token in result["logprobs"]:  # greedy: the token is the likeliest one
            self.assertEqual({key: token[key] for key in ("token", "text", "logprob")}, token["top"][0])
            logprobs = [other["logprob"] for other in token["top"]]
            self.assertEqual((logprobs, len(logprobs)), (sorted(logprobs, reverse=True), 3))
            self.assertLess(logprobs[0], 0)
        tokens = ["run", "-m", MODEL, "-p", "The capital of France is", "-n", 4, "--temp", 2]
        plain, recorded = self.read(*tokens), self.read(*tokens, "--logprobs", 0)
        self.assertNotIn("logprobs", plain)
        self.assertEqual(recorded["tokens"], plain["tokens"])
        self.assertEqual([token["top"] for token in recorded["logprobs"]], [[]] * 4)
        self.assertEqual(self.warned(*tokens, "--logprobs", 1), ["--logprobs does nothing without --json or --output"])
        self.refuse(2, "not in range 0 to 20", *tokens, "--logprobs", 21)

    def test_bad_input(self):
        self.refuse(1, "empty", "run", "-m", MODEL, "-p", "", "-n", 4)
        self.refuse(1, "empty", "run", "-m", MODEL, "-f", self.file("empty.txt", b""), "-n", 4)
        self.refuse(1, "UTF-8", "run", "-m", MODEL, "-f", self.file("wrong.txt", b"ab\xffcd"), "-n", 4)
        self.refuse(1, "nowhere.txt", "run", "-m", MODEL, "-f", "nowhere.txt", "-n", 4)
        self.refuse(1, "nowhere.gguf", "run", "-m", "nowhere.gguf", "-p", "x", "-n", 4)
        self.refuse(1, "text.txt", "run", "-m", self.text, "-p", "x", "-n", 4)
        self.refuse(1, "--device cpu", "run", "-m", MODEL, "-p", "x", "--device", "cuda", env={"CUDA_VISIBLE_DEVICES": ""})

    def test_wrong_usage(self):
        for arguments in (["--alpha", "1.5"], ["--alpha", "x"], ["--alpha", ""], ["--budget", "0"], ["--budget", "-3"],
                          ["--policy", "lru"], ["--policy", "a2sf:beta=1"], ["--temp", "-1"], ["--temp", "nan"],
                          ["--top-p", "0"], ["--min-p", "2"], ["--seed", "-2"], ["--repeat-penalty", "0"],
                          ["--budget", "8", "--sink", "9"],
                          ["--policy", "pyramidkv", "--budget", "40", "--sink", "35"],
                          ["--kv-type", "q4"], ["--threads", "-1"], ["--nonsense"]):
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


class UsageTest(CliTest):
    def test_unknown_commands_are_named_and_the_known_ones_listed(self):
        self.refuse(2, "unknown command 'frob': there are run, chat, serve, ", "frob")
        self.refuse(2, "unknown command 'comapre'; did you mean compare?", "comapre")
        self.refuse(2, "a command is needed: run, chat, serve, ")

    def test_unknown_options_are_named_as_typed(self):
        for option, mention in (("-hf", "models are local files"), ("-ngl", "unknown option -ngl "),
                                ("--budgt", "unknown option --budgt; did you mean --budget? "),
                                ("-psd", "unknown option -psd "), ("--budgt=3", "unknown option --budgt; ")):
            self.refuse(2, mention, "run", option, "0")
            self.refuse(2, mention, "run", "-m", MODEL, "-p", "x", option, "0")
        self.refuse(2, "unknown option --nonsense (see a2sf policies --help)", "policies", "--nonsense")
        self.refuse(2, "unknown option --json", "--json", "policies")
        self.refuse(2, "--json takes no value", "policies", "--json=3")

    def test_a_context_size_is_answered_with_the_budget(self):
        for option in ("-c", "--ctx-size"):
            for command in ("run", "chat", "compare", "bench", "trace"):
                self.refuse(2, "--budget N bounds its cache", command, "-m", MODEL, option, 4096)
        self.assertEqual(self.read("perplexity", "-m", MODEL, "-f", self.text, "-c", 64, "--tokens", 64, "--budget", 32)["ctx"], 64)

    def test_left_over_arguments_are_listed_as_typed(self):
        self.refuse(2, "unexpected arguments one two three (", "policies", "one", "two", "three")
        self.refuse(2, "unexpected argument extra (", "inspect", MODEL, "extra")

    def test_values_that_are_missing_or_given_twice(self):
        self.refuse(2, "--threads needs a value (", "bench", MODEL, "--threads")
        self.refuse(2, "--budget is given more than once (", "inspect", MODEL, "--budget", 8, "--budget", 9)
        self.refuse(2, "--model is given more than once (", "inspect", MODEL, "-m", MODEL)

    def test_standard_input_is_called_so(self):
        self.refuse(1, "standard input is empty", "compare", MODEL, "-f", "-")
        self.assertIn("12 tokens of standard input, ", self.succeed("compare", MODEL, "-f", "-", "--tokens", 12, "--budget", 8,
                                                                    "--policies", "local", stdin=TEXT.encode()))

    def test_what_looks_like_an_option_may_be_a_value(self):
        self.assertEqual(self.read("run", "-m", MODEL, "-p", "-ngl", "-n", 0)["generated_tokens"], 0)
        self.assertEqual(self.read("run", "-m", MODEL, "-p", "--nonsense", "-n0")["generated_tokens"], 0)

    def test_threads_in_short(self):
        self.assertEqual(self.read("run", "-m", MODEL, "-p", "x", "-n", 0, "-t", 1)["threads"], 1)

    def test_the_model_stands_first_or_after_an_option(self):
        first, after = self.read("run", MODEL, "-p", "x", "-n", 0), self.read("inspect", "-m", MODEL)
        self.assertEqual(first["model_hash"], after["model_hash"])

    def test_a_fetched_model_has_a_name(self):
        kept = Path(self.folder.name) / "a2sf"
        cache = {"XDG_CACHE_HOME": self.folder.name}
        self.refuse(1, "tools/fetch smollm2-135m fetches it", "inspect", "smollm2-135m", env=cache)
        self.refuse(1, "it has smollm2-135m and gemma3-270m", "inspect", "smollm2")
        tool = (Path(__file__).parents[2] / "tools/fetch").read_text()
        names = dict(re.findall(r"^  (\S+)\)\n    file=(\S+)$", tool, re.MULTILINE))
        self.assertEqual(sorted(names), ["gemma3-270m", "smollm2-135m"])
        for name, file in names.items():
            self.refuse(1, f"no model {kept / file} yet", "inspect", name, env=cache)
        kept.mkdir()
        (kept / "SmolLM2-135M-Instruct.Q4_1.gguf").symlink_to(MODEL)
        for arguments in (["inspect", "smollm2-135m"], ["run", "-m", "smollm2-135m", "-p", "x", "-n", 0]):
            self.assertEqual(self.read(*arguments, env=cache)["model"], str(kept / "SmolLM2-135M-Instruct.Q4_1.gguf"))

    def test_blanks_after_commas(self):
        rows = self.compare("--policies", "full, h2o", "--budget", "32, 64")["rows"]
        self.assertEqual([(row["policy"], row["budget"]) for row in rows], [("full", None), ("h2o", 32), ("h2o", 64)])

    def test_a_device_that_is_not_there(self):
        hidden = {"CUDA_VISIBLE_DEVICES": ""}
        for command in (["bench"], ["compare", "-f", self.text]):
            self.refuse(1, "use --device cpu", *command, "-m", MODEL, "--device", "cuda", env=hidden)
        self.refuse(2, "cpu, cuda or reference", "bench", "-m", MODEL, "--device", "tpu")


class IdleOptionTest(CliTest):
    def run_with(self, *arguments):
        return self.warned("run", "-m", MODEL, "-p", "x", "-n", 0, *arguments)

    def test_what_a_policy_says_itself_or_has_no_use_for(self):
        profile = self.file("profile.json", json.dumps({"shares": [[1] * 3] * 30}).encode())
        for arguments, expected in (
                (["--policy", "a2sf:budget=64", "--budget", 128], "--budget 128 does nothing under a2sf:budget=64"),
                (["--policy", "full", "--budget", 128], "--budget 128 does nothing under full"),
                (["--policy", "full", "--sink", 2], "--sink 2 does nothing under full"),
                (["--policy", "full", "--recent", 2], "--recent 2 does nothing under full"),
                (["--policy", "full", "--alpha", "auto"], "--alpha auto does nothing under full"),
                (["--policy", "full", "--block", 2], "--block 2 does nothing under full"),
                (["--policy", "full", "--pin", 2], "--pin 2 does nothing under full"),
                (["--policy", "full", "--profile", profile], f"--profile {profile} does nothing under full"),
                (["--policy", "local", "--alpha", 0.5], "--alpha 0.5 does nothing under local"),
                (["--policy", "streaming", "--alpha", 0.5, "--budget", "20%"], "--alpha 0.5 does nothing under streaming"),
                (["--policy", "ideal", "--recent", 4], "--recent 4 does nothing under ideal"),
                (["--policy", "full:sink=4"], "sink=4 does nothing in full:sink=4")):
            with self.subTest(arguments=arguments):
                self.assertEqual(self.run_with(*arguments), [expected])

    def test_what_is_used_is_not_warned_of(self):
        for arguments in (["--policy", "full"], ["--budget", 128], ["--policy", "local", "--sink", 4],
                          ["--policy", "local", "--recent", 8, "--alpha", 0.5], ["--policy", "a2sf:budget=64", "--alpha", 0.9],
                          ["--policy", "tova", "--alpha", 0.5], ["--policy", "ideal", "--budget", 9]):
            with self.subTest(arguments=arguments):
                self.assertEqual(self.run_with(*arguments), [])

    def test_in_a_list_one_policy_that_uses_an_option_is_enough(self):
        compare = ["compare", "-m", MODEL, "-f", self.text, "--tokens", 20, "--budget", 8]
        self.assertEqual(self.warned(*compare, "--policies", "full,local,a2sf", "--alpha", 0.5, "--sink", 1), [])
        self.assertEqual(self.warned(*compare, "--policies", "full,local", "--alpha", 0.5),
                         ["--alpha 0.5 does nothing under full, local"])
        self.assertEqual(self.warned(*compare, "--policies", "full"), ["--budget 8 does nothing under full"])
        self.assertEqual(self.warned(*compare[:-1], "4,8", "--policies", "full,local:alpha=0.5"),
                         ["alpha=0.5 does nothing in local:alpha=0.5"])
        self.assertEqual(self.warned(*compare[:-1], "4,8", "--policies", "a2sf", "--sink", 2, "--recent", 2, "--alpha", 0.9), [])
        self.assertEqual(self.warned(*compare, "--policies", "a2sf:budget=9,local"), [])

    def test_budgets_that_hold_everything(self):
        text = ["-m", MODEL, "-f", self.text, "--tokens", 40]
        self.assertEqual(self.warned("perplexity", *text, "--ctx", 20, "--budget", 20),
                         ["a2sf evicts nothing: a budget of 20 holds all 20 tokens of a window"])
        self.assertEqual(self.warned("perplexity", *text, "--ctx", 20, "--budget", 19), [])
        self.assertEqual(self.warned("perplexity", *text, "--ctx", 20, "--policy", "full"), [])
        self.assertEqual(self.warned("compare", *text, "--policies", "full,local,a2sf", "--budget", "8,40,100%"),
                         ["local, a2sf evict nothing: a budget of 40 holds all 40 tokens of the text"])
        self.assertEqual(self.warned("inspect", MODEL, "--ctx", 100, "--budget", 100),
                         ["a2sf evicts nothing: a budget of 100 holds all 100 tokens of a sequence"])
        self.assertEqual(self.warned("inspect", MODEL, "--ctx", 100), [])
        self.assertEqual(self.warned("compare", *text, "--policies", "pyramidkv", "--budget", 40, "--prompt", 20), [])
        self.assertEqual(self.warned("trace", *text, "-o", "/dev/null", "--layers", 0),
                         ["a2sf evicts nothing: a budget of 1024 holds all 40 tokens of the text"])

    def test_a_budget_of_one_freezes_by_itself(self):
        [warning] = self.run_with("--budget", 1)
        self.assertRegex(warning, "^alpha=auto without a recent window .* use a larger budget or a smaller alpha$")


class TerminalControlTest(CliTest):
    """Nothing that names a file or stands in one moves a cursor or sets a title."""

    EVIL = "e\x1b]0;owned\x07\x9bm"

    def assert_harmless(self, *arguments):
        done = a2sf(*arguments)
        shown = done.stdout + done.stderr
        self.assertNotRegex(shown, r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", arguments)
        return done

    def test_names_in_error_texts(self):
        for arguments in (["inspect", self.EVIL], ["run", "-m", MODEL, "-f", self.EVIL], [self.EVIL],
                          ["run", "--" + self.EVIL], ["policies", self.EVIL], ["run", "-m", MODEL, "-p", "x", "--budget", self.EVIL],
                          ["run", "-m", MODEL, "-p", "x", "-n", self.EVIL], ["bench", MODEL, "-d", self.EVIL],
                          ["compare", MODEL, "-f", self.text, "--policies", self.EVIL],
                          ["compare", MODEL, "-f", self.text, "-o", "/nowhere/" + self.EVIL]):
            done = self.assert_harmless(*arguments)
            self.assertIn(done.returncode, (1, 2))
            self.assertIn("e\\x1b]0;owned\\x07\\x9bm", done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1)

    def test_facts_of_a_file(self):
        known = (Path(__file__).parents[1] / "model/fixtures/llama.gguf").read_bytes()
        name = len("general.name").to_bytes(8, "little") + b"general.name" + (8).to_bytes(4, "little") + (5).to_bytes(8, "little")
        self.assertIn(name + b"llama", known)
        other = self.file("named.gguf", known.replace(name + b"llama", name + b"\x1b[31m").replace(b"llama", b"\n\x1b]x\n", 1))
        for arguments in (["inspect", other], ["inspect", other, "--tensors"], ["inspect", other, "--json"]):
            self.assert_harmless(*arguments)
        shown = self.succeed("inspect", other)
        self.assertRegex(shown, r"(?m)^model +\\x1b\[31m$")
        self.assertRegex(shown, r"(?m)^architecture +\\x1b\]x")

    def test_headings(self):
        model, text = Path(self.folder.name) / (self.EVIL + ".gguf"), self.file(self.EVIL + ".txt", TEXT.encode())
        model.symlink_to(MODEL)
        for arguments in (["bench", model, "-p", 4, "-n", 0, "-r", 1],
                          ["compare", model, "-f", text, "--tokens", 12, "--budget", 8, "--policies", "local"],
                          ["trace", model, "-f", text, "--tokens", 12, "--budget", 8, "--layers", 0, "-o", text + "l"],
                          ["compare", model, "-f", text, "--tokens", 12, "--budget", 8, "--json"]):
            self.assertEqual(self.assert_harmless(*arguments).returncode, 0)


class OutputTest(CliTest):
    def jobs(self):
        text = ["-m", MODEL, "-f", self.text, "--tokens", 40, "--budget", 8]
        return {"run": ["run", "-m", MODEL, "-p", "x", "-n", 2], "compare": ["compare", *text, "--policies", "local"],
                "perplexity": ["perplexity", *text, "--ctx", 20], "bench": ["bench", "-m", MODEL, "-p", 4, "-n", 0, "-r", 1],
                "trace": ["trace", *text, "--layers", 0, "-o", "/dev/null"], "inspect": ["inspect", MODEL],
                "policies": ["policies"]}

    @staticmethod
    def into(redirection, *arguments):
        """The exit code and stderr of the program with its output redirected by a shell."""
        done = subprocess.run(["sh", "-c", f'exec "$0" "$@" {redirection}', PROGRAM, *map(str, arguments)],
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=False)
        return done.returncode, done.stderr.decode()

    def test_output_that_is_not_taken_is_an_error(self):
        jobs = [*self.jobs().values(), ["--help"], ["--version"], ["run", "--help"], ["policies", "--json"],
                ["trace", *self.jobs()["trace"][1:-1], "-"]]
        for arguments in jobs:
            with self.subTest(arguments=arguments):
                self.assertEqual(self.into(">/dev/full", *arguments),
                                 (1, "a2sf: cannot write the output: No space left on device\n"))

    def test_a_closed_output_is_an_error_and_ends_up_in_no_file(self):
        path = Path(self.folder.name) / "run.json"
        for arguments in (["policies"], [*self.jobs()["run"], "-o", path]):
            self.assertEqual(self.into(">&-", *arguments), (1, "a2sf: cannot write the output: Bad file descriptor\n"))
        self.assertEqual(os.listdir(self.folder.name), ["text.txt"])

    def test_messages_that_are_not_taken_change_no_exit_code(self):
        self.assertEqual(self.into("2>/dev/full", "inspect", "/nowhere"), (1, ""))
        self.assertEqual(self.into("2>/dev/full", "frob"), (2, ""))
        self.assertEqual(self.into("2>/dev/full >/dev/full", "policies"), (1, ""))
        self.assertEqual(self.into("2>/dev/full", *self.jobs()["run"], "--policy", "full", "--sink", 3), (0, ""))

    def test_every_document_says_how_its_weights_and_its_cache_are_held(self):
        jobs = {name: job for name, job in self.jobs().items() if name not in ("inspect", "policies")}
        documents = [self.read(*job, "--kv-type", "f32", "--repack", "off") for job in jobs.values()]
        documents.append(self.read("chat", "-m", MODEL, "--kv-type", "f32", "--repack", "off"))
        self.assertEqual([(each["command"], each["repack"], each["kv_type"]) for each in documents],
                         [(name, False, "f32") for name in [*jobs, "chat"]])
        self.assertIs(self.read(*jobs["bench"])["repack"], True)

    def test_a_dash_is_standard_output(self):
        jobs = self.jobs()
        for name in ("run", "compare", "perplexity", "bench"):
            self.assertEqual(json.loads(self.succeed(*jobs[name], "-o", "-"))["command"], name)
        header, *lines = map(json.loads, self.succeed(*jobs["trace"][:-1], "-").splitlines())
        self.assertEqual((header["command"], len(lines)), ("trace", 3 * 40))
        self.refuse(2, "-o", *jobs["trace"][:-1], "-", "--json")
        self.assertFalse(Path("-").exists())

    def test_a_file_that_is_replaced_keeps_its_mode(self):
        old, new = Path(self.folder.name) / "old.json", Path(self.folder.name) / "new.json"
        before = os.umask(0o027)
        try:
            old.touch()
            for mode in (0o600, 0o664):
                old.chmod(mode)
                self.succeed(*self.jobs()["perplexity"], "-o", old)
                self.assertEqual((old.stat().st_mode & 0o7777, json.loads(old.read_text())["command"]), (mode, "perplexity"))
            self.succeed(*self.jobs()["perplexity"], "-o", new)
            self.assertEqual(new.stat().st_mode & 0o7777, 0o640)
        finally:
            os.umask(before)

    def test_a_ratio_prints_as_it_was_typed(self):
        shown = self.succeed("perplexity", "-m", MODEL, "-f", self.text, "--tokens", 40, "--ctx", 40, "--budget", "0.07")
        self.assertTrue(shown.startswith("a2sf:budget=7%: "), shown)


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
            plain, shared = (self.read("run", "-m", MODEL, "-f", self.text, "-n", 16, "--budget", budget, "--profile", profile)
                             for profile in ("none", equal))
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

    def test_a_budget_over_the_length_is_full_and_warned_of(self):
        done = a2sf("compare", "-m", MODEL, "-f", self.text, "--tokens", 160, "--policies", "h2o", "--budget", "200",
                    "--json")
        self.assertLess(json.loads(done.stdout)["rows"][1]["kl_to_full"], 1e-4)
        self.assertEqual(done.stderr, "a2sf: warning: h2o evicts nothing: a budget of 200 holds all 160 tokens of the text\n")

    def test_a_whole_prompt_needs_its_length(self):
        arguments = ["--policies", "a2sf", "--budget", "32", "--block", "prompt"]
        self.refuse(2, "--prompt", "compare", "-m", MODEL, "-f", self.text, *arguments)
        self.assertEqual(self.compare(*arguments, "--prompt", 100)["tokens_scored"], 60)

    def test_rows_are_named_by_what_sets_them_apart(self):
        table = self.succeed("compare", "-m", MODEL, "-f", self.text, "--tokens", 100, "--policies",
                             "h2o:sink=4,tova,a2sf:alpha=0.9:block=3", "--budget", 32).splitlines()
        self.assertEqual([line.split()[0] for line in table[2:]],
                         ["full", "h2o:sink=4", "tova", "a2sf:alpha=0.9:block=3"])
        every = self.succeed("compare", "-m", MODEL, "-f", self.text, "--tokens", 100, "--policies", "h2o,a2sf",
                             "--budget", 32, "--sink", 2).splitlines()
        self.assertEqual([line.split()[0] for line in every[2:]], ["full", "h2o:sink=2", "a2sf:sink=2"])

    def test_chosen_layers_and_options_of_the_score(self):
        policies = "a2sf:layers=2-29,a2sf:power=1.5:value-weight=on:sink=1,tova:budget=all"
        document = self.read("compare", "-m", MODEL, "-f", self.text, "--tokens", 80, "--policies", policies,
                             "--budget", 16)
        specs = [row["spec"] for row in document["rows"]]
        self.assertEqual(specs, ["full", "a2sf:budget=16:layers=2-29",
                                 "a2sf:power=1.5:value-weight=on:budget=16:sink=1", "tova:budget=all"])
        full, layers, weighed, everything = document["rows"]
        self.assertLess(weighed["kv_bytes"], layers["kv_bytes"])
        self.assertLess(layers["kv_bytes"], full["kv_bytes"])
        self.assertEqual(everything["perplexity"], full["perplexity"])
        self.assertEqual(everything["budget"], "all")
        self.refuse(1, "layer 30", "compare", "-m", MODEL, "-f", self.text, "--tokens", 20, "--policies",
                    "a2sf:layers=0-30", "--budget", 16)
        self.refuse(2, "sink", "compare", "-m", MODEL, "-f", self.text, "--policies", "a2sf", "--value-weight", "on")

    def test_a_spec_with_a_budget_table_reads_back(self):
        table = self.file("budgets.json", json.dumps({"budgets": [[8, 20, 8]] * 30}).encode())
        row = self.compare("--policies", "a2sf", "--budget", f"@{table}")["rows"][1]
        self.assertEqual(row["spec"], f"a2sf:budget=@{table}")
        self.assertEqual(row["budget"], 12)
        self.assertEqual(row["budget_table"]["file"], table)
        again = self.compare("--policies", row["spec"])["rows"][1]
        for key in ("spec", "budget_table", "perplexity", "kv_bytes"):
            self.assertEqual(again[key], row[key])

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

    def test_sequences_decode_together(self):
        result = self.read("bench", "-m", MODEL, "-p", 8, "-n", 4, "-d", 32, "-r", 1, "--budget", 16, "--sequences", "1,3")
        self.assertEqual([(row["test"], row["sequences"]) for row in result["rows"]],
                         [("prompt", 1), ("decode", 1), ("decode", 3)])
        one, three = (row["kv_bytes"] for row in result["rows"][1:])
        self.assertEqual(three, 3 * one)
        self.refuse(2, "--sequences", "bench", "-m", MODEL, "--sequences", 0)

    def test_a_shape_needs_no_file(self):
        result = self.read("bench", "--shape", "smollm2-135m:q4_0", "-p", 8, "-n", 4, "-r", 1)
        self.assertEqual(result["model"], "smollm2-135m:q4_0")
        self.assertTrue(all(row["tokens_per_s"] > 0 and row["peak_rss_bytes"] > 75e6 for row in result["rows"]))
        self.assertIn("random smollm2-135m:q4_0", self.succeed(
            "bench", "--shape", "smollm2-135m:q4_0", "-p", 4, "-n", 0, "-r", 1))

    def test_help_says_how_a_shape_is_given(self):
        self.assertIn("--shape llama-3-8b:q4_0", " ".join(self.succeed("bench", "--help").split()))

    def test_bad_shapes(self):
        self.refuse(2, "llama-3-8b", "bench", "--shape", "llama-9:q4_0")
        self.refuse(2, "q4_0", "bench", "--shape", "llama-3-8b:q9")
        self.refuse(2, "q4_0", "bench", "--shape", "llama-3-8b")
        self.refuse(2, "blocks of 256", "bench", "--shape", "smollm2-135m:q4_K")
        self.refuse(2, "--shape", "bench", "-p", 4)
        self.refuse(2, "--shape", "bench", "-m", MODEL, "--shape", "smollm2-135m:q4_0")
        if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 280e9:
            self.refuse(1, "GiB are available", "bench", "--shape", "llama-3-70b:f32", "-p", 4, "-n", 0)

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

    def test_ranges_of_layers_and_heads(self):
        _, lines = self.trace("--layers", "0-2, 5,1-2", "--heads", "0-1", "--every", 99)
        self.assertEqual({(line["layer"], line["kv_head"]) for line in lines},
                         {(layer, head) for layer in (0, 1, 2, 5) for head in (0, 1)})
        self.assertEqual(len(lines), 2 * 8)

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
        self.refuse(2, "--heads: there is no 3; the model has 0 to 2", *common, "-o", "/dev/null", "--heads", "0-3")
        self.refuse(2, "--layers: 5-2 ends before", *common, "-o", "/dev/null", "--layers", "5-2")
        self.refuse(2, "--layers", *common, "-o", "/dev/null", "--layers", "1-")


class InspectTest(CliTest):
    def test_facts_and_costs(self):
        result = self.read("inspect", MODEL, "--budget", 256, "--ctx", 4096, "--memory", "2GiB")
        self.assertEqual(result["memory_bytes"], 2 << 30)
        self.assertGreater(result["bounded_sequences"], result["full_sequences"])
        slot = 2 * result["head_dim"] * 2 + 4 + 4
        self.assertEqual(result["cache"]["bounded_kv_bytes"], result["layers"] * result["kv_heads"] * 272 * slot)
        self.assertIn("chat template", self.succeed("inspect", MODEL))

    def test_one_kv_head_is_singular(self):
        self.assertIn("1 KV head,", self.succeed("inspect", Path(__file__).parents[1] / "model/fixtures/tokenizer-gpt-2.gguf"))

    def test_memory_is_bytes_with_or_without_a_unit(self):
        for text, expected in (("8G", 8 << 30), ("8GiB", 8 << 30), ("512MiB", 512 << 20), ("4096", 4096)):
            self.assertEqual(self.read("inspect", MODEL, "--memory", text)["memory_bytes"], expected)
        for text in ("-1", "+1", "8X", "1e9", ""):
            self.refuse(2, "", "inspect", MODEL, "--memory", text)

    def test_costs_are_what_a_run_allocates(self):
        profile = self.file("profile.json", json.dumps({"shares": [[1, 1, 4]] * 30}).encode())
        table = self.file("table.json", json.dumps({"budgets": [[9, 30, 9]] * 30}).encode())
        for arguments in (["--budget", 20, "--profile", "none"], ["--budget", 20, "--profile", "auto"],
                          ["--budget", 20, "--profile", profile], ["--budget", f"@{table}"],
                          ["--budget", 20, "--profile", "none", "--kv-type", "f32"]):
            for tokens in (4, 60):
                result = self.read("run", "-m", MODEL, "-p", "The sea", "-n", tokens, *arguments)
                length = result["prompt_tokens"] + tokens
                # It may warn that the budget holds everything.
                costs = json.loads(a2sf("inspect", MODEL, "--ctx", length, *arguments, "--json").stdout)["cache"]
                self.assertEqual(costs["bounded_kv_bytes"], result["kv_bytes"], (arguments, tokens))

    def test_a_budget_beyond_the_sequence_costs_no_more_than_full(self):
        def bytes_of(*policy):
            return self.read("run", "-m", MODEL, "-p", "The sea", "-n", 4, *policy)["kv_bytes"]
        self.assertEqual(bytes_of("--budget", 100000), bytes_of("--policy", "full"))

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
