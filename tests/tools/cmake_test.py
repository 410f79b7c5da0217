"""What CMake and ctest read from the environment, in small projects of their own."""

import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MESSAGE = "libllama: "


class CMakeTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def run_command(self, *command, **variables):
        kept = {name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "A2SF_MODEL")}
        done = subprocess.run(list(map(str, command)), cwd=self.folder, capture_output=True, text=True, timeout=60, check=False,
                              env={**kept, "HOME": str(self.folder), "PWD": str(self.folder), **variables})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def configure(self, text, *options, **variables):
        (self.folder / "CMakeLists.txt").write_text(f"cmake_minimum_required(VERSION 3.25)\n{text}\n")
        return self.run_command("cmake", "-S", ".", "-B", "build", *options, **variables)


class LibllamaTest(CMakeTest):
    PROJECT = f'project(probe LANGUAGES CXX)\ninclude("{ROOT}/cmake/Dependencies.cmake")'

    def put_llama(self, folder):
        package = self.folder / folder / "lib/cmake/llama"
        package.mkdir(parents=True)
        (package / "llama-config.cmake").touch()
        (package / "llama-config-version.cmake").write_text("set(PACKAGE_VERSION 0.5)\nset(PACKAGE_VERSION_COMPATIBLE TRUE)\n")
        return f"{MESSAGE}{package}\n"

    def pinned(self):
        """The name of the folder that tools/deps fills, by its own variables."""
        deps = (ROOT / "tools/deps").read_text()
        version = re.search(r"^llama_version=(\S+)", deps, re.MULTILINE)[1]
        return re.search(r"destination=\$cache/(llama-\$llama_version\S*)", deps)[1].replace("$llama_version", version)

    def test_it_is_found_where_deps_puts_it_and_an_empty_cache_variable_is_none(self):
        expected = self.put_llama(f".cache/a2sf/{self.pinned()}")
        self.assertIn(expected, self.configure(self.PROJECT))
        self.assertIn(expected, self.configure(self.PROJECT, "--fresh", XDG_CACHE_HOME=""))

    def test_an_earlier_pin_is_forgotten_and_a_named_copy_is_not(self):
        expected = self.put_llama(f".cache/a2sf/{self.pinned()}")
        self.put_llama(".cache/a2sf/llama-0.1")
        earlier = self.folder / ".cache/a2sf/llama-0.1/lib/cmake/llama"
        self.assertIn(expected, self.configure(self.PROJECT, f"-Dllama_DIR={earlier}"))
        named = self.put_llama("named")
        self.assertIn(named, self.configure(self.PROJECT, "--fresh", f"-DCMAKE_PREFIX_PATH={self.folder}/named"))
        self.assertIn(named, self.configure(self.PROJECT))


class ModelTest(CMakeTest):
    def test_tests_get_a_relative_model_from_where_the_caller_is(self):
        self.configure(f"""project(probe LANGUAGES NONE)
            enable_testing()
            set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES "{ROOT}/tests/environment.cmake")
            add_test(NAME model COMMAND "${{CMAKE_COMMAND}}" -E environment)""")
        for model, seen in (("model.gguf", f"{self.folder}/model.gguf"), ("/a/model.gguf", "/a/model.gguf")):
            output = self.run_command("ctest", "--test-dir", "build", "-V", A2SF_MODEL=model)
            self.assertIn(f"A2SF_MODEL={seen}\n", output)
        self.assertNotIn("A2SF_MODEL=/", self.run_command("ctest", "--test-dir", "build", "-V", A2SF_MODEL=""))


if __name__ == "__main__":
    unittest.main()
