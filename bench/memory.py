"""Peak memory of a long prompt under a budget beside what it has to hold."""

import json
import subprocess
import sys
from pathlib import Path

import usage

MEBIBYTE = 1 << 20
ALLOWANCE = 64 * MEBIBYTE
PROMPT, SPEC = 8192, "a2sf:budget=512"


def measure(a2sf, model, threads, repack):
    command = [a2sf, "bench", "-m", model, "-p", PROMPT, "-n", 0, "-r", 1, "--policy", SPEC, "--threads", threads,
               "--repack", repack, "--json"]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return json.loads(done.stdout)["rows"][0]


def parts_of(row, file):
    """(peak memory, file, KV cache, what is left of the peak) in bytes."""
    peak, cache = row["peak_rss_bytes"], row["kv_bytes"]
    return peak, file, cache, peak - file - cache


def line_of(weights, parts):
    return f"{weights:>22}" + "".join(f"{part / MEBIBYTE:{width}.1f}" for part, width in zip(parts, (13, 8, 10, 7)))


def parse_arguments():
    parser = usage.Parser(prog="memory.py", description=__doc__,
                          epilog="example: memory.py build/release/apps/a2sf/a2sf model.gguf 2")
    parser.add_argument("a2sf", metavar="A2SF", help="the program")
    parser.add_argument("model", metavar="MODEL.gguf", type=Path)
    parser.add_argument("threads", metavar="THREADS", type=usage.count, nargs="?", default=2, help="default: 2")
    return parser.parse_args()


def compare(a2sf, model, threads):
    print(f"{model.stem}, prompt of {PROMPT} tokens, {SPEC}, in MiB")
    print(f"{'weights':>22}{'peak memory':>13}{'file':>8}{'KV cache':>10}{'else':>7}")
    fits = True
    for repack, weights in (("on", "regrouped (default)"), ("off", "as they are mapped")):
        parts = parts_of(measure(a2sf, model, threads, repack), model.stat().st_size)
        fits = fits and parts[-1] <= ALLOWANCE
        print(line_of(weights, parts))
    print(f"aim: else at most {ALLOWANCE // MEBIBYTE} MiB: {'reached' if fits else 'missed'}")


def main():
    arguments = parse_arguments()
    try:
        compare(arguments.a2sf, arguments.model, arguments.threads)
    except OSError as error:
        sys.exit(f"memory.py: {error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
