"""The part of tools/report that shows `a2sf eval`: tasks over budgets as pictures, and the tables of the paper's form."""

import math
from collections import namedtuple
from html import escape

from report_drawing import OTHER, STYLES, add_legend, image, new_figure, scale_values

# All that rows of tasks can have: `key` in a row, `key`_stderr beside it and `key`_difference in a pair; shown are
# scale * value with so many places. A perplexity has no error and no difference of its own: its loss has them.
Measure = namedtuple("Measure", "key title scale places")
MEASURES = {measure.key: measure for measure in (
    Measure("acc", "accuracy, %", 100, 1),
    Measure("acc_norm", "accuracy by log p per character, %", 100, 1),
    Measure("gold_logprob", "log p of the right choice, nats", 1, 2),
    Measure("score", "score of answers, %", 100, 1),
    Measure("loss", "loss, nats per token", 1, 3),
    Measure("perplexity", "perplexity", 1, 2))}
NOTES = {"acc": "Accuracy is the share of items whose right choice is the most probable one.",
         "gold_logprob": "The log-probability of the right choice is finer: it moves before an answer does.",
         "score": "The score of an answer in words is the one that its task is published with, 0 to 100 %.",
         "loss": "Loss and perplexity of a text: lower is better.",
         "": "Bars are one standard error. Differences between two policies are paired, item by item, and mean something "
             "where they are several times their own error."}

def series_of(rows: list) -> dict:
    """Rows by (policy, options without the budget): what a line of a picture and a row of a table is."""
    series = {}
    for row in rows:
        options = [part for part in str(row.get("spec", "")).split(":")[1:] if not part.startswith("budget=")]
        series.setdefault((str(row.get("policy")), ":".join([str(row.get("policy"))] + options)), []).append(row)
    return series

def is_number(value) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False

def tasks_of(rows: list, measure: Measure) -> list:
    """The tasks that have the measure."""
    return list(dict.fromkeys(row["task"] for row in rows if is_number(row.get(measure.key))))

def budget_text(budget) -> str:
    if is_number(budget):
        return f"{100 * budget:g} %" if type(budget) is float and 0 < budget <= 1 else f"{budget:,}"
    return "–" if budget is None else str(budget)

def task_panels(tasks: list):
    """A figure, and (task, its axes, whether they are the first of a line) for each task."""
    columns = min(4, len(tasks))
    lines = -(-len(tasks) // columns)
    figure = new_figure(11.4 if columns > 1 else 5.6, 0.8 + (2.5 if columns > 2 else 2.9) * lines)
    return figure, [(task, figure.add_subplot(lines, columns, index + 1, title=task), index % columns == 0)
                    for index, task in enumerate(tasks)]

def draw_full(axes, rows: list, task: str, measure: Measure):
    """A dashed line for the full cache; None where it was not measured."""
    for row in rows:
        if row.get("policy") == "full" and row.get("task", "") == task and is_number(row.get(measure.key)):
            return axes.axhline(measure.scale * row[measure.key], color=STYLES["full"][0], linestyle=(0, (5, 3)), linewidth=1.2)
    return None

def draw_tasks(rows: list, measure: Measure) -> str | None:
    """A panel for each task: the measure over the budget, a line for each series, the full cache as a dashed line."""
    bounded = [row for row in rows if is_number(row.get("budget")) and is_number(row.get(measure.key))]
    tasks = tasks_of(bounded, measure)
    if not tasks:
        return None
    figure, panels = task_panels(tasks)
    budgets, series = sorted({row["budget"] for row in bounded}), series_of(bounded)
    handles = {}
    for task, axes, is_first in panels:
        handles["full"] = draw_full(axes, rows, task, measure) or handles.get("full")
        for number, ((policy, name), members) in enumerate(series.items()):
            own = sorted((row for row in members if row["task"] == task), key=lambda row: row["budget"])
            colour, marker = STYLES.get(policy, OTHER)
            # Budgets are equally far apart, whatever they are; bars of several series at one budget stand side by side.
            places = [budgets.index(row["budget"]) + (number - (len(series) - 1) / 2) * min(.05, .3 / len(series)) for row in own]
            handles[name] = axes.errorbar(places, [measure.scale * row[measure.key] for row in own],
                                          [error_of(row, measure) for row in own], color=colour, marker=marker,
                                          markersize=6, markeredgecolor="white", linewidth=1.5, elinewidth=.8, capsize=2,
                                          linestyle="-" if name == policy else "--")
        axes.set_xticks(range(len(budgets)), [budget_text(budget) for budget in budgets])
        axes.set(xlabel="budget", xlim=(-.4, len(budgets) - .6))
        fit_values(axes, measure)
        if is_first:
            axes.set_ylabel(measure.title)
    shown = {name: handle for name, handle in handles.items() if handle}
    add_legend(figure, list(shown.values()), list(shown))
    return image(figure, f"{measure.title} over the budget: " + ", ".join(tasks))

def fit_values(axes, measure: Measure) -> None:
    """Tenths of a percent are nothing to look at, least of all where all are equal; perplexities may be far apart."""
    low, high = axes.get_ylim()
    if measure.scale == 100 and high - low < 2:
        axes.set_ylim((low + high) / 2 - 1, (low + high) / 2 + 1)
    if measure.key == "perplexity":
        scale_values(axes, list(axes.dataLim.intervaly))

def error_of(row: dict, measure: Measure) -> float:
    error = row.get(measure.key + "_stderr")
    return measure.scale * error if is_number(error) and error > 0 else 0

def table(head: list, body: list) -> str:
    cells = "".join("<tr><td>" + "</td><td>".join(map(escape, line)) + "</td></tr>\n" for line in body)
    titles = "".join(f"<th scope=col>{escape(title)}</th>" for title in head)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>\n{cells}</tbody></table></div>'

def task_table(rows: list, measure: Measure) -> str:
    """Tasks as columns, policies and budgets as rows, as the paper has them; the last column is the mean of the tasks."""
    key, scale, places = measure.key, measure.scale, measure.places
    tasks, lines = tasks_of(rows, measure), {}
    for (_, name), members in series_of(rows).items():
        for row in members:
            if is_number(row.get(key)):
                lines.setdefault((name, budget_text(row.get("budget"))), {})[row["task"]] = scale * row[key]
    body = [[name, budget] + [f"{values[task]:.{places}f}" if task in values else "–" for task in tasks]
            + [f"{sum(values.values()) / len(tasks):.{places}f}" if len(values) == len(tasks) else "–"]
            for (name, budget), values in lines.items()]
    return table(["policy", "budget", *tasks, "mean"], body)

def pair_columns(pairs: list) -> list:
    """(title, key, format, scale) of the numbers that any pair has; a difference is finer than the measures themselves."""
    columns = []
    for measure in MEASURES.values():
        places = measure.places + 1
        columns.append((measure.title, measure.key + "_difference", f"+.{places}f", measure.scale))
        columns.append(("its error", measure.key + "_difference_stderr", f".{places}f", measure.scale))
        if measure.key == "acc":
            columns.append(("McNemar p", "mcnemar_p", ".2f", 1))
    return [column for column in columns if any(is_number(pair.get(column[1])) for pair in pairs)]

def pair_table(pairs: list) -> str:
    columns = pair_columns(pairs)
    body = [[str(pair.get("task")), budget_text(pair.get("budget")), str(pair.get("a")), str(pair.get("b"))]
            + [format(scale * pair[key], form) if is_number(pair.get(key)) else "–" for _, key, form, scale in columns]
            for pair in pairs]
    return table(["task", "budget", "first", "second", *(title for title, *_ in columns)], body)

def figure_of(picture: str | None, panels: int, caption: str = "") -> str:
    """One panel would be too large at the page's width."""
    if picture is None:
        return ""
    inner = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<div class="{"two" if panels == 1 else "one"}"><figure>{picture}{inner}</figure></div>'

def heading(measure: Measure) -> str:
    return f"<h3>{escape(measure.title[0].upper() + measure.title[1:])}</h3>"

def measure_of_tasks(rows: list, measure: Measure, drawn: list) -> str:
    picture = figure_of(draw_tasks(drawn, measure), len(tasks_of(rows, measure)))
    return heading(measure) + task_table(rows, measure) + picture

def sections_of(data: dict, swept: set) -> list:
    """(title, HTML) for each number of shots; specs in `swept` have pictures of their own, and would crowd these."""
    rows = [row for row in data["rows"] if isinstance(row.get("task"), str)]
    pairs = data.get("pairs")
    pairs = [pair for pair in pairs if isinstance(pair, dict)] if isinstance(pairs, list) else []
    sections = []
    for shots in dict.fromkeys(shots_text(row) for row in rows):
        own = [row for row in rows if shots_text(row) == shots]
        drawn = [row for row in own if str(row.get("spec")) not in swept]
        measures = [measure for measure in MEASURES.values() if tasks_of(own, measure)]
        body = "".join(measure_of_tasks(own, measure, drawn) for measure in measures)
        notes = [NOTES[key] for key in (*(measure.key for measure in measures), "") if key in NOTES]
        body += f'<p class="note">{" ".join(notes)}</p>'
        compared = [pair for pair in pairs if shots_text(pair) == shots]
        if compared:
            body += f"<details><summary>Policies in pairs: the first less the second</summary>{pair_table(compared)}</details>"
        sections.append((f"Tasks, {shots}", body))
    return sections

def shots_text(row: dict) -> str:
    return f"{row.get('shots')} {'example' if row.get('shots') == 1 else 'examples'} before each item"
