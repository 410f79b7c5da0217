"""A peer that is measured by its llama-bench: llama.cpp's own, or one that descends from it."""

import itertools
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

# What makes one program fast and another slow: every combination that it knows is measured.
SWITCHES = ("-fa", "-rtr")


@dataclass(frozen=True)
class LlamaBench:
    name: str
    path: str

    @cached_property
    def options(self):
        """The short options that its help names."""
        done = subprocess.run([self.path, "--help"], capture_output=True, text=True, check=False)
        return set(re.findall(r"^\s+(-\w+)[, ]", done.stdout, re.MULTILINE))

    def variants(self):
        """The command's end and the name of each combination of switches."""
        known = [switch for switch in SWITCHES if switch in self.options]
        for values in itertools.product("01", repeat=len(known)):
            words = [word for pair in zip(known, values) for word in pair]
            yield words, " ".join(words)

    def arguments(self, work):
        """Of a test: `-d` where the program has it, else a decode test after a prompt that is not counted (-gp)."""
        # A warm-up of a long prompt would read all of it.
        warm_up = [] if work.prompt <= 1024 else ["-w", "0"] if "-w" in self.options else ["--no-warmup"]
        if "-d" in self.options:
            return ["-p", work.prompt, "-n", work.decode, "-d", work.depth, *warm_up]
        if work.depth == 0:
            return ["-p", work.prompt, "-n", work.decode, *warm_up]
        if work.prompt > 0:
            sys.exit(f"bench: {self.path} measures no prompt after {work.depth} tokens")
        return ["-p", 0, "-n", 0, "-gp", f"{work.depth},{work.decode}", *warm_up]

    def measure(self, run_json, model, threads, work):
        """{(name, variant): tokens per second}"""
        speeds = {}
        for words, variant in self.variants():
            results = run_json(self.path, "-m", model, *self.arguments(work), "-t", threads, "-r", 1, "-o", "json", *words)
            if len(results) != 1:
                sys.exit(f"bench: {self.path} gave {len(results)} results for one test")
            speeds[(self.name, variant)] = results[0]["avg_ts"]
        return speeds


def peer(text):
    """NAME=PATH, or a path whose folder above `bin` or `build` names it."""
    name, equals, path = text.partition("=")
    if equals:
        return LlamaBench(name, path)
    folders = [part for part in Path(text).resolve().parts[:-1] if part not in ("/", "bin", "build")]
    return LlamaBench(folders[-1] if folders else Path(text).name, text)
