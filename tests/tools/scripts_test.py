"""Runs the scripts of tools/ in a copy of their folder, with an empty home; nothing is installed, built or downloaded."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.name for path in (ROOT / "tools").iterdir() if path.is_file() and not path.suffix)
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
SMALL_MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"


class ScriptTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root, self.home, self.here = (Path(scratch.name, name) for name in ("root", "home", "here"))
        for folder in (self.home, self.here):
            folder.mkdir()
        ignored = shutil.ignore_patterns("__pycache__")
        for folder in ("tools", "bench"):
            shutil.copytree(ROOT / folder, self.root / folder, ignore=ignored)
        shutil.copy(ROOT / "CMakePresets.json", self.root)
        self.before = self.files()

    def files(self):
        return sorted(path for folder in (self.root, self.home, self.here) for path in folder.rglob("*"))

    def run_script(self, name, *arguments, **variables):
        kept = {name: value for name, value in os.environ.items()
                if not name.startswith("A2SF_") and name not in ("XDG_CACHE_HOME", *PROXIES)}
        return subprocess.run([self.root / "tools" / name, *arguments], cwd=self.here, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=60, check=False,
                              env={**kept, "HOME": str(self.home), "PYTHONDONTWRITEBYTECODE": "1", **variables})

    def succeed(self, *arguments, **variables):
        done = self.run_script(*arguments, **variables)
        self.assertEqual((done.returncode, done.stderr), (0, ""), arguments)
        return done.stdout

    def in_cache(self, name, content="", mode=0o644):
        path = self.home / ".cache/a2sf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)
        return path


class ArgumentsTest(ScriptTest):
    def test_help_shows_usage_and_an_example_and_does_nothing(self):
        self.assertIn("demo", SCRIPTS)
        for name in SCRIPTS:
            for asked in (["--help"], ["-h"], ["--help", "more"]):
                shown = self.succeed(name, *asked)
                self.assertIn(f"tools/{name}", shown)
                self.assertRegex(shown, r"[Ee]xample: ?\n? *\S", name)
        self.assertEqual(self.files(), self.before)

    def test_unknown_arguments_are_one_line_and_nothing_is_done(self):
        wrong = {"bench": (["--frob"], ["depth", "512"], ["--of"], ["--of", "frob"], ["--rounds", "0"], ["--only", "frob"]),
                 "build": (["frob"], ["--frob"], ["release", "--frob"]), "convert": ([], ["--frob"], [".", "-o", "x", "--type", "q9"]),
                 "demo": (["frob"], ["--frob"]), "deps": (["frob"], ["test", "peer"]),
                 "fetch": ([], ["frob"], ["smollm2-135m", "gemma3-270m"]), "gpu-test": (["frob"], ["suite", "frob"]), "lint": (["frob"], ["--fix", "--fix"]),
                 "report": ([], ["--frob"]), "tag": ([], ["--frob"], ["text", "model"], ["text", "model", "-x", "file"]), "test": (["frob"], ["--quick", "ci"])}
        self.assertEqual(sorted(wrong), SCRIPTS)
        for name, cases in wrong.items():
            for arguments in cases:
                done = self.run_script(name, *arguments)
                self.assertEqual((done.returncode, done.stdout), (2, ""), (name, arguments, done.stderr))
                self.assertRegex(done.stderr, rf"^(tools/)?{name}: [^\n]+; see tools/{name} --help\n$")
        self.assertEqual(self.files(), self.before)

    def test_an_unknown_word_is_named_with_those_that_are_known(self):
        for name, words in (("deps", "test peer"), ("fetch", "smollm2-135m gemma3-270m"), ("lint", "--fix"), ("test", "--quick"),
                            ("build", "release debug ci asan tsan fuzz")):
            self.assertRegex(self.run_script(name, "frob").stderr, f"unknown .*'frob', expected: {words}; see")


class PathsTest(ScriptTest):
    def test_a_relative_model_is_where_the_caller_says(self):
        (self.here / "model.gguf").touch()
        self.assertEqual(self.succeed("fetch", "smollm2-135m", A2SF_MODEL="model.gguf"), f"{self.here}/model.gguf\n")
        self.assertEqual(self.succeed("fetch", "smollm2-135m", A2SF_MODEL="../here/model.gguf"), f"{self.here}/model.gguf\n")
        done = self.run_script("fetch", "smollm2-135m", A2SF_MODEL="none.gguf")
        self.assertEqual((done.returncode, done.stderr), (1, f"fetch: A2SF_MODEL: cannot read {self.here}/none.gguf\n"))

    def test_an_empty_cache_variable_is_none(self):
        model = self.in_cache(SMALL_MODEL)
        for variables in ({}, {"XDG_CACHE_HOME": ""}, {"XDG_CACHE_HOME": str(self.home / ".cache")}):
            self.assertEqual(self.succeed("fetch", "smollm2-135m", **variables), f"{model}\n")

    def test_python_scripts_run_where_the_caller_is(self):
        self.in_cache("venv/bin/python", '#!/bin/sh\npwd\necho "$@"\n', 0o755)
        for name in ("convert", "report"):
            self.assertEqual(self.succeed(name, "a b", "-o", "c", XDG_CACHE_HOME=""),
                             f"{self.here}\n{self.root}/tools/{name}.py a b -o c\n")


    def test_bench_writes_where_the_caller_is(self):
        (self.here / "model.gguf").touch()
        (self.root / "tools/deps").write_text("#!/bin/sh\necho /peer\n")
        (self.root / "tools/build").write_text("#!/bin/sh\n")
        self.in_cache("venv/bin/python", '#!/bin/sh\npwd\necho "$@"\n', 0o755)
        self.assertEqual(self.succeed("bench", "--only", "decode", "--json", "b.json", A2SF_MODEL="model.gguf"),
                         f"{self.here}\n{self.root}/bench/whole_model.py --model {self.here}/model.gguf --a2sf "
                         f"{self.root}/build/release/apps/a2sf/a2sf --llama-bench /peer/llama-bench "
                         "--only decode --json b.json\n")


SUDO = """#!/bin/bash
# Like sudo, it drops the variables that it is not told to keep.
kept=("PATH=$PATH")
while [[ ${1:-} == -* ]]; do
  if [[ $1 == --preserve-env=* ]]; then
    IFS=, read -ra names <<<"${1#*=}"
    for name in "${names[@]}"; do [[ ! -v $name ]] || kept+=("$name=${!name}"); done
  fi
  shift
done
exec env -i "${kept[@]}" "$@"
"""


class DependenciesTest(ScriptTest):
    """On a system without any of the packages, for a user who is not root; apt is not the real one."""

    def setUp(self):
        super().setUp()
        self.programs = self.home / "bin"
        self.programs.mkdir()
        self.put("id", "echo 1000")
        self.put("dpkg-query", "exit 1")
        self.put("apt-cache", "true")
        self.put_apt()
        (self.programs / "sudo").write_text(SUDO)
        (self.programs / "sudo").chmod(0o755)

    def put(self, name, command):
        (self.programs / name).write_text(f"#!/bin/bash\n{command}\n")
        (self.programs / name).chmod(0o755)

    def put_apt(self, update=0):
        self.put("apt-get", f"echo $1 >>{self.home}/calls; env >>{self.home}/seen; [[ $1 == update ]] && exit {update}; exit 100")

    def calls(self):
        return (self.home / "calls").read_text().split()

    def fail(self, *arguments, **variables):
        path = f"{self.programs}:{os.environ['PATH']}"
        done = self.run_script("deps", *arguments, PATH=path, **variables)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1), done.stderr)
        return done.stderr

    def test_sudo_keeps_the_proxies(self):
        proxies = {name: f"http://{name}.test:3128" for name in PROXIES}
        self.assertIn("is there a network?", self.fail(**proxies))
        self.assertEqual(self.calls(), ["update", "install"])
        seen = (self.home / "seen").read_text().splitlines()
        for name, value in (*proxies.items(), ("DEBIAN_FRONTEND", "noninteractive")):
            self.assertEqual(seen.count(f"{name}={value}"), 2, name)

    def test_packages_that_do_not_exist_here_are_named(self):
        self.put("apt-cache", "[[ $2 != libexpected-dev && $2 != clang-14 ]]")
        self.assertRegex(self.fail(), r"^deps: .+ has no package libexpected-dev: Debian 12 or newer is needed")
        self.assertRegex(self.fail("test"), r"has no package libexpected-dev clang-14: Debian 12 or newer is needed")
        self.assertEqual(self.calls(), ["update", "update"])

    def test_without_package_lists_it_is_the_network(self):
        self.put_apt(update=100)
        self.put("apt-cache", "exit 100")
        self.assertIn("could not install Debian packages; is there a network?", self.fail())


if __name__ == "__main__":
    unittest.main()
