"""Kernels of a decoded token, compiled for Hopper: what they keep outside of registers must not grow unseen.

A kernel's registers are bounded by how many of its blocks are to run at once; what does not fit is spilled into memory.
The limits are those of nvcc 13.0. Skipped where the build has no CUDA.
"""

import json
import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

FILES = ("attend_rows.cu", "score_row.cu", "products.cu")
# Bytes of spilled stores; of all other kernels: 0.
SPILLED = {"attend_row<256>": 466, "score_rows": 4, "multiply_rows<Q6_K, (Inputs)0, 1, 1>": 24,
           "multiply_rows<Quants<FormQ4_K>, (Inputs)0, 1, 1>": 20, "multiply_rows<Quants<FormQ4_K>, (Inputs)0, 1, 2>": 8}
# Registers: those of 65,536 that a thread may have for the blocks that share a multiprocessor.
REGISTERS = {"attend_row": 255, "score_rows": 128, "multiply_rows": 128, "prepare": 64}

COMMANDS = Path(os.environ.get("A2SF_COMMANDS", "compile_commands.json"))


def compile_commands():
    """Of each of FILES that is built: the folder and the command, for sm_90a alone, that says what each kernel takes."""
    if not COMMANDS.exists():
        return {}
    found = {}
    for entry in json.loads(COMMANDS.read_text()):
        name = Path(entry["file"]).name
        if name in FILES:
            command = re.sub(r"--generate-code=arch=\S+|-o \S+|-Werror=\S+", "", entry["command"])
            found[name] = (entry["directory"], f"{command} -arch=sm_90a -cubin -Xptxas=-v -o {os.devnull}")
    return found


def kernels(report):
    """Yields the kernel's name, its registers and the bytes that it spills, from what ptxas says."""
    pattern = (r"Compiling entry function '(?:void )?([^']*?)\(a2sf::cuda::\w+Launch.*?(\d+) bytes spill stores"
               r".*?Used (\d+) registers")
    for name, spilled, registers in re.findall(pattern, report, re.DOTALL):
        yield re.sub(r"\(anonymous namespace\)::|a2sf::cuda::", "", name), int(registers), int(spilled)


class Registers(unittest.TestCase):
    def test_kernels_spill_no_more_than_is_known(self):
        for name, (folder, command) in compile_commands().items():
            done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            report = subprocess.run(["c++filt"], input=done.stdout + done.stderr, capture_output=True, text=True,
                                    check=True).stdout
            found = list(kernels(report))
            self.assertTrue(found, f"{name}: ptxas names no kernels")
            for kernel, registers, spilled in found:
                with self.subTest(file=name, kernel=kernel):
                    self.assertLessEqual(spilled, SPILLED.get(kernel, 0))
                    self.assertLessEqual(registers, REGISTERS[kernel.split("<")[0]])


if __name__ == "__main__":
    if not compile_commands():
        print("registers_test: no kernels in this build")
        sys.exit(77)
    unittest.main()
