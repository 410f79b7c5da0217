"""The part of tools/report that shows `a2sf eval`: tasks over ratios as pictures, and the tables of the paper's form."""

from html import escape

from report_drawing import OTHER, STYLES, image, new_figure

NOTE = ("Accuracy is the share of items whose right choice is the most probable one; the bars are one standard error. The "
        "log-probability of the right choice is finer: it moves before an answer does. Differences between two policies are "
        "paired, item by item, and mean something where they are several times their own error.")

def series_of(rows: list) -> dict:
    """Rows by (policy, options without the budget): what a line of a picture and a row of a table is."""
    series = {}
    for row in rows:
        options = [part for part in str(row.get("spec", "")).split(":")[1:] if not part.startswith("budget=")]
        series.setdefault((str(row.get("policy")), ":".join([str(row.get("policy"))] + options)), []).append(row)
    return series

def is_number(value) -> bool:
    return type(value) in (int, float)

def budget_text(budget) -> str:
    if budget is None:
        return "–"
    return f"{100 * budget:g} %" if type(budget) is float and 0 < budget <= 1 else str(budget)

def draw_tasks(rows: list, key: str, label: str, scale: float) -> str | None:
    """A panel for each task: `key` over the budget, a line for each series, the full cache as a dashed line."""
    bounded = [row for row in rows if is_number(row.get("budget")) and is_number(row.get(key))]
    tasks = list(dict.fromkeys(row["task"] for row in bounded))
    if not tasks:
        return None
    columns = min(4, len(tasks))
    lines = -(-len(tasks) // columns)
    figure = new_figure(11.4, 0.5 + 2.5 * lines)
    budgets = sorted({row["budget"] for row in bounded})
    handles = {}
    for index, task in enumerate(tasks, 1):
        axes = figure.add_subplot(lines, columns, index, title=task)
        for full in (row for row in rows if row.get("task") == task and row.get("policy") == "full"):
            if is_number(full.get(key)):
                handles["full"] = axes.axhline(scale * full[key], color=STYLES["full"][0], linestyle=(0, (5, 3)), linewidth=1.2)
        for number, ((policy, name), members) in enumerate(series_of(bounded).items()):
            own = sorted((row for row in members if row["task"] == task), key=lambda row: row["budget"])
            colour, marker = STYLES.get(policy, OTHER)
            # Bars of several series at one budget stand side by side.
            shift = (number - 2) * .006 * (budgets[-1] - budgets[0] or 1)
            handles[name] = axes.errorbar([row["budget"] + shift for row in own], [scale * row[key] for row in own],
                                          [scale * (row.get(key + "_stderr") or 0) for row in own], color=colour, marker=marker,
                                          markersize=6, markeredgecolor="white", linewidth=1.5, elinewidth=.8, capsize=2,
                                          linestyle="-" if name == policy else "--")
        axes.set_xticks(budgets, [budget_text(budget) for budget in budgets])
        if (index - 1) % columns == 0:
            axes.set_ylabel(label)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return image(figure, f"{label} over the budget: " + ", ".join(tasks))

def table(head: list, body: list) -> str:
    cells = "".join("<tr><td>" + "</td><td>".join(map(escape, line)) + "</td></tr>\n" for line in body)
    titles = "".join(f"<th scope=col>{escape(title)}</th>" for title in head)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>\n{cells}</tbody></table></div>'

def task_table(rows: list, key: str, scale: float, places: int) -> str:
    """Tasks as columns, policies and budgets as rows, as the paper has them; the last column is the mean of the tasks."""
    tasks = list(dict.fromkeys(row["task"] for row in rows if is_number(row.get(key))))
    lines = {}
    for (_, name), members in series_of(rows).items():
        for row in members:
            if is_number(row.get(key)):
                lines.setdefault((name, budget_text(row.get("budget"))), {})[row["task"]] = scale * row[key]
    body = [[name, budget] + [f"{values[task]:.{places}f}" if task in values else "–" for task in tasks]
            + [f"{sum(values.values()) / len(tasks):.{places}f}" if len(values) == len(tasks) else "–"]
            for (name, budget), values in lines.items()]
    return table(["policy", "budget", *tasks, "mean"], body)

def pair_table(pairs: list) -> str:
    def signed(value, scale=1.0, places=1):
        return f"{scale * value:+.{places}f}" if is_number(value) else "–"
    body = [[str(pair.get("task")), budget_text(pair.get("budget")), str(pair.get("a")), str(pair.get("b")),
             signed(pair.get("acc_difference"), 100), f"{pair['mcnemar_p']:.2f}" if is_number(pair.get("mcnemar_p")) else "–",
             signed(pair.get("gold_logprob_difference"), places=3), signed(pair.get("gold_logprob_difference_stderr"), places=3)[1:]]
            for pair in pairs]
    return table(["task", "budget", "first", "second", "accuracy, points", "McNemar p", "log-probability", "its error"], body)

def sections_of(data: dict) -> list:
    """(title, HTML) for each number of shots."""
    rows = [row for row in data["rows"] if isinstance(row.get("task"), str)]
    pairs = [pair for pair in data.get("pairs", []) if isinstance(pair, dict)]
    sections = []
    for shots in dict.fromkeys(row.get("shots") for row in rows):
        own = [row for row in rows if row.get("shots") == shots]
        pictures = [draw_tasks(own, "acc", "accuracy, %", 100), draw_tasks(own, "gold_logprob", "log p of right", 1)]
        figures = "".join(f"<figure>{picture}</figure>" for picture in pictures if picture)
        body = (f'<h3>Accuracy, %</h3>{task_table(own, "acc", 100, 1)}'
                f'<h3>Accuracy by log-probability per character, %</h3>{task_table(own, "acc_norm", 100, 1)}'
                f'<h3>Log-probability of the right choice, nats</h3>{task_table(own, "gold_logprob", 1, 2)}'
                f'<p class="note">{NOTE}</p><div class="one">{figures}</div>')
        compared = [pair for pair in pairs if pair.get("shots") == shots]
        if compared:
            body += f"<details><summary>Policies in pairs: the first less the second</summary>{pair_table(compared)}</details>"
        sections.append((f"Tasks, {shots} {'example' if shots == 1 else 'examples'} before each item", body))
    return sections
