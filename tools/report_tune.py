"""The part of tools/report that shows a profile, of `a2sf tune`: the budgets and memories of layers and heads."""

from html import escape

from report_drawing import INK, STYLES, image, new_figure
from report_eval import is_number

MAX_TABLES = 4

def is_profile(document: dict) -> bool:
    return "tables" in document or "shares" in document

def tables_of(profile: dict) -> list:
    """A file with shares at its top is a profile of one table, for any budget."""
    return profile["tables"] if "tables" in profile else [profile]

def mean_of(entry: dict) -> int:
    """0: any."""
    return entry.get("mean", 0)

def problem_of(profile) -> str | None:
    """What is wrong with it; the library's rules, as far as a picture needs them."""
    if not isinstance(profile, dict) or not is_profile(profile):
        return 'there is no "profile" with "tables" or "shares"'
    tables = tables_of(profile)
    if not isinstance(tables, list) or not tables or not all(isinstance(entry, dict) for entry in tables):
        return '"tables" is no list of tables'
    for entry in tables:
        if type(mean_of(entry)) is not int or not 0 <= mean_of(entry) < 1 << 31:
            return '"mean" of a table is no number of tokens'
        for key in ("shares", "memories"):
            if (key == "shares" or entry.get(key)) and not is_table(entry.get(key), tables[0].get("shares")):
                return f'"{key}" is no table [layer][KV head] of numbers above 0, as large as the first one'
    return None

def is_table(value, shape) -> bool:
    def is_lists(table):
        return isinstance(table, list) and table and all(isinstance(layer, list) and layer for layer in table)
    return (is_lists(value) and is_lists(shape) and [len(layer) for layer in value] == [len(shape[0])] * len(shape)
            and all(is_number(number) and number > 0 for layer in value for number in layer))

def numbers_of(table: list):
    """[layer][KV head]; sums and ratios of what is beyond these bounds may be no numbers."""
    import numpy
    return numpy.clip(numpy.array(table, float), 1e-9, 1e9)

def budgets_of(entry: dict):
    """Tokens, or % of the mean where that may be any. Of shares only the proportions count."""
    shares = numbers_of(entry["shares"])
    return shares / shares.mean() * (mean_of(entry) or 100)

def memories_of(entry: dict):
    return numbers_of(entry["memories"])

def name_of(entry: dict) -> str:
    return f"mean {mean_of(entry):,}" if mean_of(entry) else "any mean"

def figure_text(value: float) -> str:
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.2g}"

def names_of(texts) -> str:
    """Of what it was tuned on."""
    texts = texts if isinstance(texts, list) else []
    return ", ".join(str(text["name"]) for text in texts if isinstance(text, dict) and text.get("name"))

def chosen(tables: list) -> list:
    """The first, the last, and evenly between."""
    count = min(MAX_TABLES, len(tables))
    return [tables[index * (len(tables) - 1) // max(1, count - 1)] for index in range(count)]

def unit_of(entry: dict) -> str:
    return "tokens" if mean_of(entry) else "% of the mean"

def draw_tables(tables: list, values_of, name: str, relative: bool) -> str:
    """A line for each table: a map of layers and KV heads, and the mean of each layer. Equal colours are equal parts of the
    mean (`relative`), or equal numbers."""
    from matplotlib.colors import LogNorm
    maps = [values_of(entry) for entry in tables]
    units = [values.mean() if relative else 1.0 for values in maps]
    low = min((values / unit).min() for values, unit in zip(maps, units))
    high = max((values / unit).max() for values, unit in zip(maps, units))
    if high < 1.3 * low:  # nearly or wholly one number
        low, high = low / 2, high * 2
    heads = maps[0].shape[1]
    figure = new_figure(11.4, 0.4 + (1.35 + 0.09 * min(heads, 16)) * len(tables))
    axes = figure.subplots(len(tables), 2, squeeze=False, sharex=True, width_ratios=(1.25, 1))
    for (left, right), entry, values, unit in zip(axes, tables, maps, units):
        drawn = left.imshow(values.T, cmap="viridis", norm=LogNorm(low * unit, high * unit), aspect="auto", interpolation="nearest")
        left.set(title=name_of(entry), ylabel="KV head")
        left.grid(visible=False)
        left.set_yticks(range(0, heads, max(1, heads // 4)))
        add_bar(figure, drawn, left)
        layers = values.mean(axis=1)
        right.bar(range(len(layers)), layers, color=STYLES["h2o"][0], width=.8)
        right.axhline(values.mean(), color=INK, linewidth=1, linestyle=(0, (5, 3)))
        right.set(title=f"{name_of(entry)}: mean of the layer", ylabel=f"{name}, {unit_of(entry)}" if relative else f"{name}, budgets")
        right.grid(axis="x", visible=False)
        right.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        left.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes[-1]:
        axis.set_xlabel("layer")
    return image(figure, f"{name} by layer and KV head: " + ", ".join(map(name_of, tables)))

def add_bar(figure, drawn, axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter
    bar = figure.colorbar(drawn, ax=axes, pad=.01, aspect=12)
    bar.locator = LogLocator(subs=(1, 2, 5))
    bar.formatter = lambda value, _: figure_text(value)
    bar.update_ticks()
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.ax.tick_params(which="minor", right=False)
    bar.outline.set_visible(False)

def ranges(tables: list, values_of, form: str) -> str:
    texts = []
    for entry in tables:
        least, most = (format(value, form) for value in (values_of(entry).min(), values_of(entry).max()))
        texts.append((least if least == most else f"{least} to {most}") + f" ({name_of(entry)})")
    return ", ".join(texts)

def profile_of(profile: dict) -> str:
    """The section's HTML."""
    tables = chosen(tables_of(profile))
    whole = ranges(tables, budgets_of, ",.0f")
    figures = [(draw_tables(tables, budgets_of, "budget", True),
                "How the KV heads share a budget, and the mean of each layer beside it: equal colours are equal parts of "
                f"the mean, on a logarithmic scale; in {unit_of(tables[-1])} heads get {whole}.")]
    remembering = [entry for entry in tables if entry.get("memories")]
    if remembering:
        figures.append((draw_tables(remembering, memories_of, "memory", False),
                        "How long the KV heads remember, in budgets, where alpha = 1 - 1/(memory * budget), and the mean of each "
                        "layer beside it; colours are logarithmic; heads have "
                        + ranges(remembering, memories_of, ".2f") + "."))
    inner = "".join(f"<figure>{picture}<figcaption>{escape(text)}</figcaption></figure>" for picture, text in figures)
    return f'<div class="one">{inner}</div>'
