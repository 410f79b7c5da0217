"""Speed of a2sf beside llama.cpp and, if asked for, its descendants and OpenVINO GenAI; run it as `tools/bench`, see --help.

Machines drift, so the engines take turns: in every round each row is measured by every engine. What counts is the median
of the rounds' ratios. Of a peer's variants (with and without flash attention, or repacked weights) the fastest one counts.
"""

import itertools
import json
import platform
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import usage
from llama_bench import LlamaBench, peer

OURS, LLAMA, OPENVINO = "a2sf", "llama.cpp", "OpenVINO"
COLOURS = {OURS: "#D55E00", LLAMA: "#0072B2", OPENVINO: "#009E73"}
COLOURS_OF_OTHERS = ("#CC79A7", "#E69F00", "#56B4E9", "#999999")


@dataclass(frozen=True)
class Work:
    """Either `prompt` tokens in one go or `decode` tokens one by one, after `depth` tokens."""
    prompt: int = 0
    decode: int = 0
    depth: int = 0


@dataclass(frozen=True)
class Row:
    name: str
    work: Work
    policy: str  # of a2sf; the peers keep everything
    has_peers: bool = True


ROWS = (
    Row("decode-0", Work(decode=64), "full"),
    Row("decode-4096-full", Work(decode=32, depth=4096), "full"),
    Row("decode-4096", Work(decode=32, depth=4096), "a2sf:budget=256"),
    Row("decode-16384", Work(decode=32, depth=16384), "a2sf:budget=256", has_peers=False),
    Row("prompt-512", Work(prompt=512), "full"),
    Row("prompt-8192-256", Work(prompt=8192), "a2sf:budget=256"),
    Row("prompt-8192-512", Work(prompt=8192), "a2sf:budget=512"),
)


# ---- measuring: each function returns tokens per second by (engine, variant) ---------------------------------------
def run_json(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        sys.exit(f"bench: {Path(command[0]).name} failed with exit code {done.returncode}: {last}")
    return json.loads(done.stdout)


def measure_a2sf(arguments, row):
    work = row.work
    result = run_json(arguments.a2sf, "bench", "-m", arguments.model, "-p", work.prompt, "-n", work.decode, "-d", work.depth,
                      "-r", 1, "--policy", row.policy, "--threads", arguments.threads, "--json")
    return {(OURS, row.policy): result["rows"][0]["tokens_per_s"]}


def measure_openvino(arguments, work):
    result = run_json(sys.executable, Path(__file__).with_name("openvino_peer.py"), arguments.model, arguments.threads,
                      work.prompt, work.decode, work.depth)
    return {(OPENVINO, ""): result["tokens_per_s"]}


def measure_round(arguments, rows):
    """(row, speeds) one by one; rows of the same work share one measurement of the peers."""
    peers = {}
    for row in rows:
        if row.has_peers and row.work not in peers:
            peers[row.work] = {}
            for program in arguments.peers:
                peers[row.work] |= program.measure(run_json, arguments.model, arguments.threads, row.work)
            if arguments.openvino:
                peers[row.work] |= measure_openvino(arguments, row.work)
        yield row, peers.get(row.work, {}) | measure_a2sf(arguments, row)


# ---- results -------------------------------------------------------------------------------------------------------
def faster_variants(speeds):
    """{engine: (variant, speeds)} with the variant of the highest median of each engine."""
    best = {}
    for (engine, variant), values in speeds.items():
        if engine not in best or median(values) > median(best[engine][1]):
            best[engine] = (variant, values)
    return best


def summary_of(row, speeds):
    best = faster_variants(speeds)
    ours = best[OURS][1]
    engines = {}
    for engine, (variant, values) in best.items():
        engines[engine] = {"variant": variant, "tokens_per_s": median(values), "rounds_tokens_per_s": values}
        if engine != OURS:
            engines[engine]["ratio"] = median(mine / theirs for mine, theirs in zip(ours, values))
    return {"row": row.name, "policy": row.policy, "engines": engines}


def table_of(summaries, peers):
    lines = [["row", "policy", OURS] + [cell for peer in peers for cell in (peer, "", "ratio")]]
    for summary in summaries:
        line = [summary["row"], summary["policy"], f"{summary['engines'][OURS]['tokens_per_s']:.1f} tok/s"]
        for peer in peers:
            entry = summary["engines"].get(peer)
            line += [f"{entry['tokens_per_s']:.1f} tok/s", entry["variant"], f"{entry['ratio']:.2f}"] if entry else ["-", "", "-"]
        lines.append(line)
    widths = [max(map(len, column)) for column in zip(*lines)]
    texts = ["   ".join(cell.ljust(width) if i < 2 else cell.rjust(width)
                        for i, (cell, width) in enumerate(zip(line, widths))) for line in lines]
    return "\n".join(text.rstrip() for text in texts)


def draw(summaries, heading, path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = {engine for summary in summaries for engine in summary["engines"]}
    colours = COLOURS | dict(zip(sorted(names - COLOURS.keys()), itertools.cycle(COLOURS_OF_OTHERS)))
    used = [engine for engine in colours if engine in names]
    height = 0.8 / len(used)
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.75 * len(summaries)), layout="constrained")
    for i, engine in enumerate(used):
        for y, summary in enumerate(summaries):
            entry = summary["engines"].get(engine)
            if entry is None:
                continue
            at = y - 0.4 + (i + 0.5) * height
            ratio = f"  ({OURS}: {entry['ratio']:.2f} times)" if "ratio" in entry else ""
            axes.barh(at, entry["tokens_per_s"], 0.92 * height, color=colours[engine])
            axes.text(entry["tokens_per_s"], at, f" {entry['tokens_per_s']:.0f}{ratio}", va="center", fontsize=9)
    axes.set_yticks(range(len(summaries)), [f"{summary['row']}\n{summary['policy']}" for summary in summaries], fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set_xlabel("tokens per second")
    axes.set_title(heading, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend([pyplot.Rectangle((0, 0), 1, 1, color=colours[engine]) for engine in used], used, frameon=False)
    figure.savefig(path, dpi=130)


def processor():
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def parse_arguments():
    parser = usage.Parser(prog="tools/bench", description=__doc__.split("\n\n")[1].replace("\n", " "),
                          epilog="Rows: " + ", ".join(row.name for row in ROWS))
    paths = ("model", "a2sf", "llama-bench")
    for name in paths:
        parser.add_argument(f"--{name}", help=usage.HIDDEN)
    parser.add_argument("--check", action="store_true", help=usage.HIDDEN)  # of the other options, and nothing more
    parser.add_argument("--rounds", type=usage.count, default=3, metavar="N", help="how often each row is measured (default: 3)")
    parser.add_argument("--threads", type=usage.count, default=2, metavar="N", help="of every engine (default: 2)")
    parser.add_argument("--only", metavar="ROW,...", help="rows whose names begin so, for example decode-0,prompt")
    parser.add_argument("--peer", type=peer, action="append", default=[], metavar="[NAME=]PATH",
                        help="measure this program too, which is used like llama-bench; may be given again")
    parser.add_argument("--openvino", action="store_true", help="measure OpenVINO GenAI as well; installs it")
    parser.add_argument("--json", metavar="FILE", help="write every measurement")
    parser.add_argument("--picture", metavar="FILE.png", help="draw the table")
    arguments = parser.parse_args()
    wanted = tuple(arguments.only.split(",")) if arguments.only else ("",)
    arguments.rows = [row for row in ROWS if row.name.startswith(wanted)]
    if not arguments.rows:
        parser.error(f"--only {arguments.only}: no row begins so")
    for name in paths:
        if not arguments.check and not vars(arguments)[name.replace("-", "_")]:
            parser.error(f"--{name} FILE is missing")
    arguments.peers = [LlamaBench(LLAMA, arguments.llama_bench), *arguments.peer]
    taken = [OURS, OPENVINO, *(program.name for program in arguments.peers)]
    for name in taken:
        if taken.count(name) > 1:
            parser.error(f"two engines are called {name}: give --peer NAME=PATH")
    return arguments


def compare(arguments):
    speeds = {row: defaultdict(list) for row in arguments.rows}
    for number in range(1, arguments.rounds + 1):
        for row, measured in measure_round(arguments, arguments.rows):
            print(f"round {number} of {arguments.rounds}: {row.name}", file=sys.stderr)
            for engine, speed in measured.items():
                speeds[row][engine].append(speed)
    summaries = [summary_of(row, speeds[row]) for row in arguments.rows]
    heading = (f"{Path(arguments.model).stem}, {arguments.threads} threads, {processor()}, "
               f"median of {arguments.rounds} round{'s' if arguments.rounds > 1 else ''}")
    print(heading)
    print(table_of(summaries, [program.name for program in arguments.peers] + [OPENVINO] * arguments.openvino))
    if arguments.json:
        document = {"command": "whole_model", "model": arguments.model, "threads": arguments.threads,
                    "processor": processor(), "rounds": arguments.rounds, "rows": summaries}
        Path(arguments.json).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if arguments.picture:
        draw(summaries, heading, arguments.picture)


def main():
    arguments = parse_arguments()
    if arguments.check:
        return
    try:
        compare(arguments)
    except OSError as error:
        sys.exit(f"bench: {error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
