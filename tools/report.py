"""Turns results and traces of a2sf into one self-contained HTML page; run it as `tools/report`, see --help."""

import argparse
import json
import math
import os
import re
import sys
from collections import namedtuple
from dataclasses import dataclass
from html import escape
from pathlib import Path

from report_drawing import CSS, INK, OTHER, STYLES, add_legend, image, new_figure, scale_values
from report_eval import budget_text, sections_of
from report_masks import masks_of
from report_sweep import sections_of_sweeps, specs_of, sweeps_of
from report_tune import is_profile, names_of, problem_of, profile_of

MIB, COMMANDS = 1024 * 1024, ("compare", "perplexity", "bench", "eval", "eval --masks", "tune")
MAX_RESULT_BYTES = 64 * MIB  # a result is a few kB; more is something else, and not worth parsing
PLACES = {"kl_to_full": 3, "perplexity": 2}  # printed decimals of what says how good a row is, the better measure first
# Runs that differ in one of these have no place in one table. The hash tells models apart, whatever their path.
SAME_RUN = ("model_hash", "kv_type", "repack", "threads", "isa", "version")
SAME_TEXT = ("text", "tokens", "ctx", "score", "prompt")
SAME_TASKS = ("model_hash", "rules", "limit")  # a sweep may lie in several files
MAX_HEADS, MAX_CELLS = 6, 360  # maps per trace; rows and columns of a map
EXPECTED = "expected the output of `a2sf compare|perplexity|bench|eval|tune --json`, a profile or a file of `a2sf trace`"
AGAIN = "is cut off or no trace line; run `a2sf trace` again to the end, or delete that line"

Source = namedtuple("Source", "path command data rows maps heads")  # one input file; maps and heads: of a trace
Bar = namedtuple("Bar", "label policy value low high")

class ReportError(Exception):
    """Bad input; the message names the file and what would work."""

@dataclass
class Row:
    """One policy at one budget; values is the JSON row, of which get() gives a number or None."""
    policy: str
    spec: str
    budget: int | float | str | None
    values: dict
    label: str = ""
    ordinal: int = 0  # counts the series of a policy
    best: bool = False

    def get(self, key):
        return number(self.values.get(key))

@dataclass
class HeadMap:
    """Tokens kept by one KV head; counts[row][column] adds up `size` steps and `size` positions, lines counts the steps."""
    layer: int
    kv_head: int
    size: int
    counts: list
    lines: list
    step: int = -1    # the last one, and what is kept after it
    kept: tuple = ()

    @property
    def name(self):
        return f"Layer {self.layer}, KV head {self.kv_head}"

def number(value) -> float | None:
    try:
        return float(value) if type(value) in (int, float) and math.isfinite(value) else None
    except OverflowError:
        return None

# ---- reading -------------------------------------------------------------------------------------------------------
def parse_object(text: bytes) -> dict | None:
    try:
        return value if isinstance(value := json.loads(text), dict) else None
    except (ValueError, RecursionError):
        return None

def load(path: str) -> Source:
    if not os.path.isfile(path):
        raise ReportError(f"{path}: no such file, or not a regular one; {EXPECTED}")
    with open(path, "rb") as file:
        first = parse_object(file.readline(MAX_RESULT_BYTES))
    unnamed = first and not ({"command", "rows", "tables", "shares"} & set(first))  # the latter two: a profile
    if first and (unnamed or first.get("command") == "trace"):
        return load_trace(path, first)
    return load_result(path)

def load_result(path: str) -> Source:
    data = parse_object(Path(path).read_bytes()) if os.path.getsize(path) <= MAX_RESULT_BYTES else None
    if data is None:
        raise ReportError(f"{path}: not one whole JSON object; {EXPECTED}")
    command = data.get("command", "tune" if is_profile(data) else None)
    if command not in COMMANDS:
        raise ReportError(f"{path}: \"command\" is {json.dumps(command)[:40]}; {EXPECTED}")
    if command == "tune":
        return load_profile(path, data)
    rows = data.get("rows", [data] if command == "perplexity" else None)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ReportError(f"{path}: \"rows\" is missing or empty; run `a2sf {command} --json` again to the end")
    return Source(path, command, data, [load_row(path, row) for row in rows], [], 0)

def load_profile(path: str, data: dict) -> Source:
    """Its own or that in a document of `a2sf tune`; what the document says of itself stands beside it."""
    profile = data if is_profile(data) else data.get("profile")
    if problem := problem_of(profile):
        raise ReportError(f"{path}: {problem}; run `a2sf tune` again to the end, or repair the profile")
    own = {key: value for key, value in data.items() if key != "profile"}
    return Source(path, "tune", profile | {"tuned on": names_of(profile.get("texts"))} | own, [], [], 0)

def load_row(path: str, data: dict) -> Row:
    spec = str(data.get("spec") or data.get("policy") or "")
    policy = str(data.get("policy") or spec.split(":")[0])
    if not policy:
        raise ReportError(f"{path}: a row has neither \"policy\" nor \"spec\"; {EXPECTED}")
    budget = data.get("budget")
    simple = budget is None or isinstance(budget, str) or number(budget) is not None
    return Row(policy, spec, budget if simple else json.dumps(budget), data, policy)

def load_trace(path: str, header: dict) -> Source:
    tokens = header.get("tokens")
    length = len(tokens) if isinstance(tokens, list) else 0
    if length == 0 or "step" in header or "policy" not in header:
        raise ReportError(f"{path}: the first line is no trace header (model, policy, tokens); {EXPECTED}")
    if not (heads := sorted({head for _, head, _ in trace_lines(path)})):
        raise ReportError(f"{path}: a trace header without steps; run `a2sf trace` again to the end")
    count = min(MAX_HEADS, len(heads))
    chosen = [heads[i * (len(heads) - 1) // max(1, count - 1)] for i in range(count)]  # first, last, evenly between
    return Source(path, "trace", header, [], load_maps(path, length, chosen), len(heads))

def trace_lines(path: str):
    """Yields line number, (layer, KV head), line; parses no JSON, so that a large trace takes seconds."""
    layer_in, head_in = re.compile(rb'"layer"\s*:\s*(\d{1,9})\b'), re.compile(rb'"kv_head"\s*:\s*(\d{1,9})\b')
    with open(path, "rb") as file:
        file.readline()
        for count, line in enumerate(file, 2):
            layer, head = layer_in.search(line), head_in.search(line)
            if layer and head and line.rstrip().endswith(b"}"):
                yield count, (int(layer[1]), int(head[1])), line
            elif line.strip():
                raise ReportError(f"{path}: line {count} {AGAIN}")

def load_maps(path: str, length: int, chosen: list) -> list:
    size = -(-length // MAX_CELLS)
    cells = -(-length // size)
    maps = {key: HeadMap(*key, size, [[0] * cells for _ in range(cells)], [0] * cells)
            for key in chosen}
    for count, key, line in trace_lines(path):
        if key in maps and not add_step(maps[key], parse_object(line) or {}, length):
            raise ReportError(f"{path}: line {count} {AGAIN}")
    return list(maps.values())

def add_step(head: HeadMap, entry: dict, length: int) -> bool:
    step, kept = entry.get("step"), entry.get("kept")
    valid = type(step) is int and 0 <= step < length and isinstance(kept, list)
    if not valid or not all(type(position) is int and 0 <= position <= step for position in kept):
        return False
    counts = head.counts[step // head.size]
    for position in kept:
        counts[position // head.size] += 1
    head.lines[step // head.size] += 1
    if step > head.step:
        head.step, head.kept = step, kept
    return True

def shares(head: HeadMap) -> list:
    """Kept share, 0 to 1, by row and column; NaN where no token is yet. Steps left out repeat the row before."""
    grid, last = [], []
    for row, (counts, lines) in enumerate(zip(head.counts, head.lines)):
        if lines:  # in the bin on the diagonal about half of the pairs lie in the future
            last = [count / (lines * head.size) for count in counts[:row]]
            last.append(min(1.0, counts[row] / (lines * (lines + 1) / 2)))
        grid.append(last + [0.0] * (row + 1 - len(last)) + [math.nan] * (len(head.lines) - row - 1))
    return grid

# ---- arranging -----------------------------------------------------------------------------------------------------
def name_series(rows: list) -> None:
    """Rows of a policy that differ only in budget are a series; two series of a policy are told apart by their options."""
    series = {}
    for row in rows:
        options = [part for part in row.spec.split(":")[1:] if not re.match("budget=[^@]", part)]
        series.setdefault(row.policy, {}).setdefault(":".join(options), []).append(row)
    for policy, members in series.items():
        shared = set.intersection(*(set(options.split(":")) for options in members))
        for ordinal, (options, own) in enumerate(members.items()):
            label = ":".join([policy] + [part for part in options.split(":") if part not in shared and part])
            for row in own:
                row.ordinal, row.label = ordinal, label

def mark_best(rows: list) -> None:
    """By KL to full, where it was measured; what the printed digits do not tell apart is equally good."""
    bounded = [row for row in rows if row.budget is not None
               and row.policy not in ("full", "ideal")]  # ideal is an oracle, nothing one can run
    key = next((key for key in PLACES if any(row.get(key) is not None for row in bounded)), None)
    measured = [(row, round(row.get(key), PLACES[key])) for row in bounded if row.get(key) is not None]
    for row, value in measured:
        rivals = {other for rival, other in measured if rival.budget == row.budget}
        row.best = len(rivals) > 1 and value == min(rivals)

def merge(sources: list, keys: tuple) -> list:
    """(data, rows) of the files that agree in `keys`: perplexity and bench measure one policy a run. full comes first."""
    groups = {}
    for source in sources:
        groups.setdefault(json.dumps([source.data.get(key) for key in keys]), (source.data, []))[1].extend(source.rows)
    return [(data, sorted(rows, key=lambda row: row.policy != "full")) for data, rows in groups.values()]

# ---- drawing --------------------------------------------------------------------------------------------------------
def scale_budgets(axes, x_values: list) -> None:
    """Logarithmic, with a tick at each value that is not too close to the one before."""
    ticks = []
    for value in sorted(set(x_values)):
        if not ticks or value > 1.25 * ticks[-1]:
            ticks.append(value)
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:,g}" if tick >= 100 else f"{tick:.3g}" for tick in ticks])
    axes.set_xticks([], minor=True)

def draw_lines(rows: list, x_of, x_label: str, full: Row | None) -> str | None:
    """Perplexity over x_of(row), a line per series; `full` is a horizontal line, and a point where it has an x."""
    points = [row for row in rows if row.get("perplexity") is not None and (x_of(row) or 0) > 0]
    lines = [row for row in points if row is not full]
    if not lines:
        return None
    figure = new_figure(5.6, 4.2)
    axes = figure.add_subplot(xlabel=x_label, ylabel="perplexity (lower is better)")
    for key in dict.fromkeys((row.policy, row.ordinal) for row in lines):
        members = sorted((row for row in lines if (row.policy, row.ordinal) == key), key=x_of)
        colour, marker = STYLES.get(key[0], OTHER)
        axes.plot([x_of(row) for row in members], [row.get("perplexity") for row in members], color=colour,
                  marker=marker, markersize=10 if marker == "*" else 7, markeredgecolor="white", linewidth=1.8,
                  linestyle=("-", "--", ":", "-.")[key[1] % 4], label=members[0].label)
    level = full.get("perplexity") if full else None
    if level is not None:
        axes.axhline(level, color=STYLES["full"][0], linestyle=(0, (5, 3)), linewidth=1.2, label="full", zorder=1)
        axes.plot([x_of(full)] * (full in points), [level] * (full in points), "D", color=STYLES["full"][0])
    scale_budgets(axes, [x_of(row) for row in points])
    scale_values(axes, [row.get("perplexity") for row in lines] + ([level] if level else []))
    add_legend(figure, *axes.get_legend_handles_labels())
    return image(figure, f"perplexity over {x_label}")

def draw_bars(panels: dict) -> str | None:
    """A panel of horizontal bars for each title that has any, side by side."""
    if not (panels := {title: bars for title, bars in panels.items() if bars}):
        return None
    figure = new_figure(11.4, 0.9 + 0.3 * max(map(len, panels.values())))
    for index, (title, bars) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), index, xlabel="tokens per second (longer is better)")
        spread = [[bar.value - bar.low for bar in bars], [bar.high - bar.value for bar in bars]]
        drawn = axes.barh(range(len(bars)), [bar.value for bar in bars], height=.68, xerr=spread,
                          color=[STYLES.get(bar.policy, OTHER)[0] for bar in bars],
                          error_kw={"ecolor": "#8b949e", "elinewidth": int(any(map(any, spread)))})
        axes.bar_label(drawn, [digits(bar.value) for bar in bars], padding=5, color=INK, fontsize=9)
        axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
        axes.set(title=title, xlim=(0, max(bar.high for bar in bars) * 1.15 or 1), ylim=(len(bars) - .4, -.6))
        axes.grid(axis="y", visible=False)
    return image(figure, "tokens per second: " + ", ".join(panels))

def draw_map(head: HeadMap) -> str:
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    colours = LinearSegmentedColormap.from_list("kept", ["#ffffff", "#7fa3c7", "#12385f"]).with_extremes(bad="#eef0f3")
    axes = new_figure(3.5, 3.5).add_subplot(xlabel="position of the token", ylabel="step")
    end = len(head.lines) * head.size
    axes.imshow(shares(head), cmap=colours, norm=PowerNorm(.6, 0, 1), extent=(0, end, end, 0), interpolation="nearest")
    axes.grid(visible=False)
    axes.locator_params(nbins=5, integer=True)
    return image(axes.figure, f"kept tokens, {head.name}")

# ---- writing -------------------------------------------------------------------------------------------------------
def digits(value: float | None, places: int | None = None, unit: float = 1) -> str:
    places = int((value or 0) < 99.95) if places is None else places
    return "–" if value is None else f"{value / unit:,.{places}f}"

def table_columns(full: Row | None) -> list:
    """(title, row -> text) of every table of rows; html_table leaves out what a document lacks."""
    whole = full.get("kv_bytes") if full else None
    plain = [("tokens", "n_tokens", 0, 1), ("depth", "depth", 0, 1), ("perplexity", "perplexity", PLACES["perplexity"], 1),
             ("KL to full", "kl_to_full", PLACES["kl_to_full"], 1), ("same top-1, %", "top1_agreement", 1, .01),
             ("KV cache, MiB", "kv_bytes", 1, MIB), ("% of full", "kv_bytes" if whole else "", 1, (whole or 1) / 100),
             ("prompt, tok/s", "prompt_tokens_per_s", None, 1), ("decode, tok/s", "decode_tokens_per_s", None, 1),
             ("tok/s", "tokens_per_s", None, 1), ("repeats", "repeats", 0, 1), ("windows", "windows", 0, 1),
             ("tokens scored", "tokens_scored", 0, 1), ("peak memory, MiB", "peak_rss_bytes", 0, MIB)]
    return [("policy", lambda row: row.label), ("budget", lambda row: budget_text(row.budget)),
            ("test", lambda row: str(row.values.get("test", "–")))] + [
        (title, lambda row, rest=rest: digits(row.get(rest[0]), rest[1], rest[2])) for title, *rest in plain]

def html_table(rows: list, full: Row | None = None) -> str:
    columns = [column for column in table_columns(full) if any(column[1](row) != "–" for row in rows)]
    body = ""
    for row in rows:
        cells = [escape(text(row)) for _, text in columns]
        cells[0] += ' <span class="badge">best at this budget</span>' if row.best else ""
        body += f'<tr{" class=best" if row.best else ""}><td>' + "</td><td>".join(cells) + "</td></tr>\n"
    head = "".join(f"<th scope=col>{title}</th>" for title, _ in columns)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'

def html_figures(kind: str, figures: list) -> str:
    inner = [f"<figure>{picture}<figcaption>{escape(text)}</figcaption></figure>" for picture, text in figures if picture]
    return f'<div class="{kind}">' + "\n".join(inner) + "</div>"

def html_section(title: str, data: dict, body: str) -> str:
    tokens = len(data["tokens"]) if isinstance(data.get("tokens"), list) else data.get("tokens")
    facts = [Path(str(data.get("model") or "unnamed model")).name.removesuffix(".gguf")]
    for value, text in ((tokens, "{} tokens"), (data.get("text"), "{}"), (data.get("ctx"), "{} tokens a window"),
                        (data.get("score"), "{} of it scored"), (data.get("prompt") or None, "a prompt of {} tokens"),
                        (data.get("rules"), "{} rules"), (data.get("limit") or None, "the first {} items of a task"),
                        (data.get("threads"), "{} threads"), (data.get("isa"), "{}"), (data.get("kv_type"), "{} cache"),
                        ("weights as mapped" if data.get("repack") is False else None, "{}")):
        if isinstance(value, (str, int)):
            facts.append(text.format(Path(value).name if isinstance(value, str) else f"{value:,}"))
    return f'<section><h2>{escape(title)}</h2><p class="facts">{escape(" · ".join(facts))}</p>{body}</section>\n'

READING = ("Budget: tokens kept per layer and KV head. Perplexity: how surprised the model is by the text, lower is better. "
           "KL to full: how far its predictions move from those with the full cache, in nats, 0 is identical. Same top-1: "
           "how often its first choice of next token is that of the full cache. Ideal: an oracle, not usable in practice. Best "
           "at this budget: the smallest KL to full or, where none was measured, perplexity; equal digits share it.")

def html_policies(title: str, data: dict, rows: list, sweeps: list = ()) -> str:
    swept = specs_of(sweeps)
    name_series(sorted(rows, key=lambda row: row.spec in swept))  # the first few of a policy have line styles of their own
    mark_best(rows)
    full = next((row for row in rows if row.policy == "full"), None)
    shown = [row for row in rows if row.spec not in swept]
    real = [row for row in shown if row.policy != "ideal"]  # an oracle over the whole cache: no memory or time to show
    by_budget = draw_lines(shown, lambda row: number(row.budget), "budget", full)
    by_memory = draw_lines(real, lambda row: (row.get("kv_bytes") or 0) / MIB, "KV cache, MiB", full)
    quality = [(by_budget, "Quality over budget: the nearer to the dashed line of the full cache, the better."),
               (by_memory, "Quality over memory: low and to the left is good.")]
    speeds = draw_bars({name: [bar(row, key) for row in real if row.get(key) is not None] for name, key in
                        (("Reading the prompt", "prompt_tokens_per_s"), ("Writing the answer", "decode_tokens_per_s"))})
    caption = "Speed: tokens per second that each policy reads and writes; the number after its name is the budget."
    return html_section(title, data, html_table(rows, full) + f'<p class="note">{READING}</p>'
                        + html_figures("two", quality) + html_figures("one", [(speeds, caption)]))

def html_sweeps(data: dict, rows: list, sweeps: list) -> list:
    return [html_section(title, data, text) for title, text in sections_of_sweeps([row.values for row in rows], sweeps)]

def html_perplexity(sources: list) -> list:
    sections = []
    for data, rows in merge(sources, SAME_RUN + SAME_TEXT):
        sweeps = sweeps_of([row.values for row in rows])
        sections += [html_policies("Perplexity", data, rows, sweeps)] + html_sweeps(data, rows, sweeps)
    return sections

def html_tasks(sources: list) -> list:
    groups = [(data, rows, sweeps_of([row.values for row in rows])) for data, rows in merge(sources, SAME_TASKS)]
    swept = set().union(*(specs_of(sweeps) for _, _, sweeps in groups))
    sections = [html_section(title, source.data, text) for source in sources for title, text in sections_of(source.data, swept)]
    return sections + [section for group in groups for section in html_sweeps(*group)]

def bar(row: Row, key: str, suffix: str = "") -> Bar:
    label = row.label + ("" if row.budget is None else f" {budget_text(row.budget)}") + suffix
    value, low, high = row.get(key), row.get(key + "_min"), row.get(key + "_max")
    return Bar(label, row.policy, value, min(value, value if low is None else low), max(value, high or 0))

def html_bench(data: dict, rows: list) -> str:
    panels = {}
    for row in rows:
        if row.get("tokens_per_s") is not None:
            suffix = f", {digits(row.get('n_tokens'), 0)} at depth {digits(row.get('depth'), 0)}"
            panels.setdefault(str(row.values.get("test", "")), []).append(bar(row, "tokens_per_s", suffix))
    caption = "Depth is how many tokens the model had read before; the thin line spans the slowest and the fastest repeat."
    return html_section("Speed", data, html_table(rows) + html_figures("one", [(draw_bars(panels), caption)]))

def range_text(value) -> str:
    """A fact of a trace's header, or the range of one that differs by head; empty if it is neither."""
    if isinstance(value, list):
        numbers = [x for layer in value if isinstance(layer, list) for x in layer if number(x) is not None]
        return f"{min(numbers):g} to {max(numbers):g} by head" if numbers else ""
    return str(value) if isinstance(value, (str, int, float)) else ""

def of_head(value, head: HeadMap) -> float | None:
    """A number of a trace's header: one for all heads, or a table [layer][KV head]."""
    try:
        return number(value[head.layer][head.kv_head] if isinstance(value, list) else value)
    except (IndexError, TypeError):
        return None

def explain(head: HeadMap, recent: float | None) -> str:
    text = f"{head.name}: after step {head.step:,} it keeps {len(head.kept):,} of {head.step + 1:,} tokens"
    if head.kept and recent and recent >= 1:
        newest = sum(position > head.step - recent for position in head.kept)
        text += f", {newest:,} among the newest {recent:,.0f} and {len(head.kept) - newest:,} older"
    return text + (f"; its oldest is at position {min(head.kept):,}." if head.kept else ".")

def html_trace(source: Source) -> str:
    facts = [f"{key} {text}" for key in ("policy", "budget", "alpha", "recent", "sink")
             if (text := range_text(source.data.get(key)))] + [f"{len(source.maps)} of {source.heads} traced heads"]
    maps = [(draw_map(head), explain(head, of_head(source.data.get("recent"), head))) for head in source.maps]
    return html_section("What is kept", source.data, f'<p class="facts">{escape(", ".join(facts))}</p>{MAPS}'
                        + html_figures("three", maps))

def html_origin(sources: list) -> str:
    """What the documents say of themselves: what all agree in once, the rest by file."""
    def text(value):
        return ", ".join(f"{key} {entry}" for key, entry in value.items()) if isinstance(value, dict) else str(value)

    facts = [{key: text(value) for key, value in source.data.items()
              if key != "command" and value is not None and not isinstance(value, list)}
             | {"specs": ", ".join(dict.fromkeys(row.spec for row in source.rows))} for source in sources]
    shared = {key: value for key, value in facts[0].items() if all(own.get(key) == value for own in facts)}
    blocks = [("All files", shared)] * bool(shared) + [
        (Path(source.path).name, {"command": f"a2sf {source.command}"} | {key: own[key] for key in own if key not in shared})
        for source, own in zip(sources, facts)]
    body = ""
    for title, block in blocks:
        entries = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in block.items() if value)
        body += f"<h3>{escape(title)}</h3><dl>{entries}</dl>\n"
    return f"<section><h2>How the results were got</h2>{body}</section>"

INTRODUCTION = ("A language model keeps a note of every token it has read, its KV cache, which grows with the text; a cache "
                "policy forgets some of them to stay within a budget, and this page shows what that costs in quality and "
                "what it saves in memory and time.")
MAPS = ("<p>Time runs downwards: each row is the cache after one step, dark where a token is still kept, white where it was "
        "forgotten, grey where no token is yet. The diagonal is the newest token, a vertical line one that stays; where "
        "the line ends, the token was forgotten. A point of a long trace averages neighbours.</p>")
def html_page(sources: list) -> str:
    of = {name: [source for source in sources if source.command == name] for name in COMMANDS + ("trace",)}
    body = [html_policies("Policies side by side", source.data, source.rows) for source in of["compare"]]
    body += html_perplexity(of["perplexity"]) + html_tasks(of["eval"])
    body += [html_section("What is kept, beside the ideal mask", source.data, masks_of(source.data))
             for source in of["eval --masks"]]
    body += [html_section("A profile", source.data, profile_of(source.data)) for source in of["tune"]]
    body += [html_bench(*group) for group in merge(of["bench"], SAME_RUN)] + list(map(html_trace, of["trace"]))
    return ('<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>A2SF report</title>\n'
            f'<meta name="viewport" content="width=device-width"><style>{CSS}</style></head>\n<body><main>'
            f'<h1>A2SF report</h1>\n<p class="lead">{INTRODUCTION}</p>\n'
            f'{"".join(body)}{html_origin(sources)}</main></body></html>\n')

def write(path: str, text: str) -> None:
    """Aside, then renamed: a reader never sees half a page, and a failure leaves the old one."""
    target = os.path.realpath(path)
    aside = f"{target}.{os.getpid()}.tmp"
    try:
        Path(aside).write_text(text, encoding="utf-8", errors="replace")
        os.replace(aside, target)
    except OSError as error:
        Path(aside).unlink(missing_ok=True)
        raise ReportError(f"{path}: cannot write: {error.strerror}; give -o a file in a folder you may write to") from None

def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="tools/report", formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="tools/report -o report.html RESULT.json ... TRACE.jsonl ...",
        description="Turns results of a2sf into one HTML page that needs nothing else.",
        epilog="example:\n  a2sf compare -m MODEL -f FILE --policies full,local,h2o,a2sf --budget 128,256 --json > c.json\n"
               "  a2sf trace -m MODEL -f FILE --tokens 1000 -o t.jsonl\n  tools/report -o report.html c.json t.jsonl")
    parser.add_argument("-o", metavar="report.html", dest="output", required=True, help="the page to write")
    parser.add_argument("files", nargs="+", metavar="FILE",
                        help="output of `a2sf compare|perplexity|bench|eval|tune --json`, a profile, a file of `a2sf trace`")
    parser.error = lambda message: parser.exit(2, f"tools/report: {message}; see tools/report --help\n")
    arguments = parser.parse_args()
    taken = os.path.realpath(arguments.output) in map(os.path.realpath, arguments.files)
    if taken or os.path.exists(arguments.output) and not os.path.isfile(arguments.output):
        parser.error(f"-o {arguments.output} is an input as well, or no regular file; name the page to write")
    return arguments

def main() -> int:
    arguments = parse_arguments()
    try:
        write(arguments.output, html_page([load(path) for path in arguments.files]))
        return 0
    except (ReportError, ImportError) as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}; {EXPECTED}"
    except KeyboardInterrupt:
        return 130
    print(f"tools/report: {message}", file=sys.stderr)
    return 1

if __name__ == "__main__":
    sys.exit(main())
