"""The part of tools/report that shows sweeps: a measure over the values of one option of a policy, a line for each budget."""

import math
from dataclasses import dataclass, field

from report_drawing import STYLES, add_legend, image
from report_eval import (MEASURES, Measure, budget_text, draw_full, figure_of, fit_values, heading, is_number, shots_text, table,
                         task_panels)

OPTIONS = ("alpha", "memory", "recent", "sink", "block")
# What a policy does where its spec does not say; what is not here depends on more than the spec.
DEFAULTS = {"a2sf": {"memory": "1.5", "recent": "50%", "sink": "0", "block": "1"},
            "h2o": {"recent": "50%", "sink": "0", "block": "1"}, "tova": {"recent": "0%", "sink": "0", "block": "1"},
            "streaming": {"sink": "4", "block": "1"}, "local": {"sink": "0", "block": "1"}}
SHOWN = ("gold_logprob", "acc", "score", "perplexity")
LEAST_VALUES = 3  # fewer are a comparison, which the other tables have
BUDGET_COLOURS = ["#8fbbe0", "#12385f"]  # light to dark; the hues of policies mean policies
NOTE = ("All else is equal. The axis has the values in their order, equally far apart, as they were given; the option's default "
        "is among them where a row without the option was run. The ring is the best value of a line, by "
        "however little.")
BLOCK_NOTE = " Until a block is full its tokens are held beside the budget: larger blocks see more of them, and need the memory."

@dataclass
class Sweep:
    """Rows that differ in budget and in one option alone; rows[task][value][budget], where a value is as it was written."""
    policy: str    # with its other options
    option: str
    before: str    # examples before each item; empty: of a text
    rows: dict = field(default_factory=dict)

    def values(self, task: str | None = None) -> list:
        found = {value for name, by_value in self.rows.items() if task in (None, name) for value in by_value}
        return sorted(found, key=value_of)

    def add(self, task: str, value: str, row: dict) -> None:
        self.rows.setdefault(task, {}).setdefault(value, {}).setdefault(row["budget"], row)

def value_of(text: str) -> float | None:
    """The place of an option's value among others; None: it is no number. A cut at the end of the prompt is the longest block."""
    try:
        value = float("inf" if text == "prompt" else text.removesuffix("%"))
    except ValueError:
        return None
    return None if math.isnan(value) else value

def options_of(row: dict) -> dict:
    """Of the spec: {option: text}; the budget is the row's."""
    pairs = (part.partition("=") for part in str(row.get("spec", "")).split(":")[1:])
    return {name: text for name, _, text in pairs if name != "budget"}

def defaults_of(row: dict, options: dict) -> dict:
    """A fixed alpha has no memory; a profile may say another one for each head, and power 1.5 has another default."""
    known = dict(DEFAULTS.get(str(row.get("policy")), {}))
    if row.get("profile") or "alpha" in options or "power" in options:
        known.pop("memory", None)
    return known

def places_of(row: dict):
    """(option, value, what else the spec says) for each option whose value is known: each is a sweep that the row may be in."""
    said = options_of(row)
    known = defaults_of(row, said)
    special = {name: text for name, text in said.items() if known.get(name) != text}
    for option in OPTIONS:
        value = said.get(option, known.get(option))
        if value is not None and value_of(value) is not None:
            yield option, value, {name: text for name, text in special.items() if name != option}

def sweeps_of(rows: list) -> list:
    sweeps = {}
    for row in rows:
        if not is_number(row.get("budget")):
            continue
        for option, value, others in places_of(row):
            policy = ":".join([str(row.get("policy"))] + [f"{name}={text}" for name, text in others.items()])
            before = shots_text(row) if "shots" in row else ""
            # A share of the budget and a number of tokens have no common axis; files of one name may differ.
            key = (policy, option, before, value.endswith("%"), str(row.get("profile")), str(row.get("budget_table")))
            sweeps.setdefault(key, Sweep(policy, option, before)).add(str(row.get("task", "")), value, row)
    for sweep in sweeps.values():
        sweep.rows = {task: values for task, values in sweep.rows.items() if len(values) >= LEAST_VALUES}
    return [sweep for sweep in sweeps.values() if sweep.rows]

def specs_of(sweeps: list) -> set:
    """Of the rows in sweeps, those with a value that is no default: pictures over the budget would be crowded by them."""
    return {str(row.get("spec")) for sweep in sweeps for by_value in sweep.rows.values()
            for value, by_budget in by_value.items() for row in by_budget.values()
            if DEFAULTS.get(str(row.get("policy")), {}).get(sweep.option) != value}

def lines_of(sweep: Sweep, task: str, measure: Measure) -> dict:
    """{budget: {value: number}}, of budgets that have two values or more."""
    lines = {}
    for value in sweep.values(task):
        for budget, row in sweep.rows[task][value].items():
            if is_number(row.get(measure.key)):
                lines.setdefault(budget, {})[value] = measure.scale * row[measure.key]
    return {budget: lines[budget] for budget in sorted(lines) if len(lines[budget]) > 1}

def best_of(line: dict, measure: Measure) -> str:
    return (min if measure.key in ("loss", "perplexity") else max)(line, key=line.get)

def is_crowded(labels: list, panels: int) -> bool:
    """A letter takes .08 inches, a panel of task_panels() has so many."""
    return .08 * sum(len(label) + 2 for label in labels) > (4.8 if panels == 1 else 10.4 / min(4, panels) - .3)

def shade_of(budget, budgets: list) -> str:
    from matplotlib.colors import LinearSegmentedColormap, to_hex
    place = budgets.index(budget) / (len(budgets) - 1) if len(budgets) > 1 else 1.0
    return to_hex(LinearSegmentedColormap.from_list("budgets", BUDGET_COLOURS)(place))

def draw_lines(axes, lines: dict, values: list, budgets: list, measure: Measure) -> dict:
    """{budget: its line}; the best value has a ring around it."""
    markers, handles = [marker for _, marker in STYLES.values()], {}
    for budget, line in lines.items():
        colour, marker = shade_of(budget, budgets), markers[budgets.index(budget) % len(markers)]
        handles[budget], = axes.plot([values.index(value) for value in line], list(line.values()), color=colour, marker=marker,
                                     markersize=6, markeredgecolor="white", linewidth=1.5)
        best = best_of(line, measure)
        if list(line.values()).count(line[best]) == 1:
            axes.plot(values.index(best), line[best], "o", markersize=11, markerfacecolor="none", color=colour)
    return handles

def draw_sweep(sweep: Sweep, tasks: list, measure: Measure, rows: list) -> str:
    """A panel for each task, a line for each budget; `rows` may have the full cache, a dashed line."""
    values = sweep.values()
    budgets = sorted({budget for task in tasks for budget in lines_of(sweep, task, measure)})
    figure, panels = task_panels(tasks)
    handles, full = {}, None
    for task, axes, is_first in panels:
        handles |= draw_lines(axes, lines_of(sweep, task, measure), values, budgets, measure)
        full = draw_full(axes, rows, task, measure) or full
        axes.set_xticks(range(len(values)), values, rotation=45 if is_crowded(values, len(panels)) else 0)
        axes.set(xlabel=sweep.option, xlim=(-.4, len(values) - .6))
        fit_values(axes, measure)
        if is_first:
            axes.set_ylabel(measure.title)
    labels = {f"budget {budget_text(budget)}": handles[budget] for budget in budgets} | ({"full": full} if full else {})
    add_legend(figure, list(labels.values()), list(labels))
    return image(figure, f"{measure.title} over {sweep.option}" + (": " + ", ".join(tasks) if any(tasks) else ""))

def sweep_table(sweep: Sweep, tasks: list, measure: Measure) -> str:
    values = sweep.values()
    body = [[task, budget_text(budget)] + [f"{line[value]:.{measure.places}f}" if value in line else "–" for value in values]
            for task in tasks for budget, line in lines_of(sweep, task, measure).items()]
    skipped = 0 if any(tasks) else 1  # perplexity files have no tasks
    return table(["task", "budget", *(f"{sweep.option} {value}" for value in values)][skipped:], [line[skipped:] for line in body])

def sections_of_sweeps(rows: list, sweeps: list) -> list:
    """(title, HTML) for each sweep."""
    sections = []
    for sweep in sweeps:
        body = ""
        of_shots = [row for row in rows if not sweep.before or shots_text(row) == sweep.before]
        for measure in map(MEASURES.get, SHOWN):
            tasks = [task for task in sweep.rows if lines_of(sweep, task, measure)]
            if tasks:
                picture = figure_of(draw_sweep(sweep, tasks, measure, of_shots), len(tasks))
                body += heading(measure) + picture + sweep_table(sweep, tasks, measure)
        title = f"{sweep.policy} over {sweep.option}" + (f", {sweep.before}" if sweep.before else "")
        note = NOTE + (BLOCK_NOTE if sweep.option == "block" else "")
        sections.append((title, f'{body}<p class="note">{note}</p>'))
    return sections
