"""The part of tools/report that shows `a2sf eval --masks`: what policies keep beside what rows attend to."""

from html import escape

from report_drawing import INK, OTHER, STYLES, image, new_figure
from report_eval import budget_text, is_number, series_of, table

SCORELESS = ("local", "streaming")  # their score decides nothing
KEPT_BOTH, KEPT_ONLY, MISSED, NOT_YET = "#12385f", "#e58a3c", "#a9c9e8", "#eef0f3"

NOTE = ("Each text is read with the full cache; every policy keeps what it would keep of the same queries and keys. The ideal "
        "mask of a row is itself and as many earlier tokens of highest attention as the budget allows. Cosine and Jaccard "
        "compare a mask with the ideal one, 1 is the same; the mass is the share of the row's attention that is kept; the age "
        "of a kept token is 0 for the newest and 1 for the first one. Rows that have no more tokens than the budget are not "
        "counted. A mask may differ much from the ideal one and lose little: the mass says what it costs.")
MASKS = ("The longest text, budget {}; rows are steps, columns positions. Dark: kept, as the ideal mask does; orange: kept, "
         "and the ideal mask would not; light blue: the ideal mask would, and it is gone. The number is the cosine of this head "
         "over all texts.")
HEADS = "Agreement by layer and KV head: where a policy finds the tokens that count, and where it does not."
MASS = "Attention that is kept; the black line is what the ideal mask keeps at the same budget."
PLACES = ("By place in the text, budget {}, the last quarter of each text. Left: what a row really attends to, and the score by "
          "which policies choose, as shares of their sum (logarithmic). A sum without forgetting grows for as long as a token is "
          "there, so that the oldest have most. Right: where the kept tokens are; the nearer to the ideal curve, the better.")
SPARSITY = ("Sparsity: the share of a row's tokens that together have 95 % of its attention. A point is a KV head, the line the "
            "mean of a layer: heads need very unequal parts of a budget.")

def style_of(row: dict) -> tuple:
    return STYLES.get(row.get("policy"), OTHER)

def name_of(row: dict) -> str:
    """The spec without its budget."""
    return next(iter(series_of([row])))[1]

def is_ideal(row: dict) -> bool:
    return row.get("policy") == "ideal"

def smallest_budget(rows: list) -> list:
    """The rows of the smallest budget that any policy was compared at, the ideal one first."""
    budgets = [row["budget"] for row in rows
               if is_number(row.get("budget")) and is_number(row.get("cosine")) and not is_ideal(row)]
    own = [row for row in rows if budgets and row.get("budget") == min(budgets)]
    return sorted(own, key=lambda row: not is_ideal(row))

def by_head(row: dict, key: str):
    """[KV head][layer], NaN where nothing was compared."""
    import numpy
    return numpy.array([[head[key] if is_number(head[key]) else numpy.nan for head in layer] for layer in row["heads"]]).T

def bitmap(rows_of_ranges: list):
    """[step][position] of lines like "0-3,7"."""
    import numpy
    kept = numpy.zeros((len(rows_of_ranges),) * 2, bool)
    for step, ranges in enumerate(rows_of_ranges):
        for part in ranges.split(","):
            first, _, last = part.partition("-")
            kept[step, int(first):int(last or first) + 1] = True
    return kept

def draw_mask(axes, kept, ideal) -> None:
    import numpy
    from matplotlib.colors import ListedColormap
    classes = numpy.select([kept & ideal, kept, ideal], [1, 2, 3], 0)
    classes[numpy.triu_indices(len(kept), 1)] = 4
    axes.imshow(classes, cmap=ListedColormap(["#ffffff", KEPT_BOTH, KEPT_ONLY, MISSED, NOT_YET]), vmin=0, vmax=4,
                interpolation="nearest")
    axes.grid(visible=False)
    axes.locator_params(nbins=4, integer=True)

def draw_masks(rows: list) -> str | None:
    """A line of masks for each head that was drawn: the ideal one, then each policy's."""
    heads = rows[0]["pictures"] if rows and is_ideal(rows[0]) else []
    if not heads:
        return None
    figure = new_figure(11.4, 0.3 + 11.0 / len(rows) * len(heads))
    for line, head in enumerate(heads):
        ideal = bitmap(head["kept"])
        for column, row in enumerate(rows):
            axes = figure.add_subplot(len(heads), len(rows), line * len(rows) + column + 1)
            draw_mask(axes, bitmap(row["pictures"][line]["kept"]), ideal)
            cosine = row["heads"][head["layer"]][head["kv_head"]]["cosine"]
            axes.set_title(name_of(row) + (f"  {cosine:.2f}" if is_number(cosine) and not is_ideal(row) else ""), fontsize=9.5)
            axes.tick_params(labelsize=7.5, labelbottom=line == len(heads) - 1, labelleft=column == 0)
            if column == 0:
                axes.set_ylabel(f"layer {head['layer']}, KV head {head['kv_head']}\nstep", fontsize=9)
    return image(figure, "masks of " + ", ".join(map(name_of, rows)))

def draw_heads(rows: list) -> str | None:
    """A strip for each policy and budget: cosine by layer and KV head, on one scale."""
    import numpy
    rows = [row for row in rows if is_number(row.get("cosine")) and not is_ideal(row)]
    if not rows:
        return None
    maps = [by_head(row, "cosine") for row in rows]
    strip = 0.26 + 0.1 * max(2, len(maps[0]))
    figure = new_figure(11.4, 0.7 + strip * len(rows))
    axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    for index, (axis, row, cosines) in enumerate(zip(axes, rows, maps)):
        drawn = axis.imshow(cosines, cmap="viridis", vmin=numpy.nanmin(maps), vmax=1, aspect="auto")
        axis.set_yticks([])
        axis.set_ylabel(f"{name_of(row)}, {budget_text(row.get('budget'))}", rotation=0, ha="right", va="center", color=INK,
                        fontsize=9.5)
        axis.tick_params(bottom=index == len(rows) - 1)
        axis.grid(visible=False)
    axes[-1].set_xlabel("layer")
    figure.colorbar(drawn, ax=list(axes), label="cosine with the ideal mask", aspect=30, pad=.01)
    return image(figure, "cosine by layer and KV head")

def draw_mass(rows: list) -> str | None:
    """A group of bars for each budget, and a line across each bar for what the ideal mask keeps."""
    rows = [row for row in rows if is_number(row.get("mass")) and is_number(row.get("budget")) and not is_ideal(row)]
    if not rows:
        return None
    budgets, series = sorted({row["budget"] for row in rows}), series_of(rows)
    figure = new_figure(5.6, 3.8)
    axes = figure.add_subplot(xlabel="budget", ylabel="attention kept, %")
    width = .8 / len(series)
    for number, ((policy, name), members) in enumerate(series.items()):
        places = [budgets.index(row["budget"]) + (number - (len(series) - 1) / 2) * width for row in members]
        bars = axes.bar(places, [100 * row["mass"] for row in members], width * .92, label=name,
                        color=STYLES.get(policy, OTHER)[0])
        axes.bar_label(bars, [f"{100 * row['mass']:.0f}" for row in members], label_type="center", fontsize=9, color="white")
        axes.hlines([100 * row["ideal_mass"] for row in members], [place - width / 2 for place in places],
                    [place + width / 2 for place in places], color="black", linewidth=1.6)
    axes.set(ylim=(0, 102))
    axes.set_xticks(range(len(budgets)), [budget_text(budget) for budget in budgets])
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside lower center", ncols=5)
    return image(figure, "attention kept")

def draw_places(data: dict, rows: list) -> str | None:
    """Left: attention and scores by place, right: kept tokens by place."""
    from matplotlib.ticker import LogLocator, NullFormatter
    attention = data.get("attention_by_place")
    if not rows or not attention:
        return None
    figure = new_figure(11.4, 4.0)
    scores = figure.add_subplot(1, 2, 1, title="Scores, and the attention they stand for", ylabel="share of the sum, %",
                                yscale="log")
    slots = figure.add_subplot(1, 2, 2, title="Kept tokens", ylabel="share of the kept tokens, %")
    places = [(2 * bin + 1) / (2 * len(attention)) for bin in range(len(attention))]

    def curve(axes, shares, colour, marker, label=None, **line):
        axes.plot(places, [100 * share for share in shares], color=colour, marker=marker, markersize=10 if marker == "*" else 6,
                  markeredgecolor="white", linewidth=1.6, label=label, **line)

    curve(scores, attention, STYLES["full"][0], "D", "attention (full)", linestyle="--")
    for row in rows:
        if row.get("slots_by_place"):
            curve(slots, row["slots_by_place"], *style_of(row), name_of(row), linestyle="--" if is_ideal(row) else "-")
        if row.get("scores_by_place") and row.get("policy") not in SCORELESS:
            curve(scores, row["scores_by_place"], *style_of(row))
    scores.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    scores.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    scores.yaxis.set_minor_formatter(NullFormatter())
    for axes in (scores, slots):
        axes.set(xlim=(0, 1), xlabel="place in the text: oldest to newest")
    figure.legend(loc="outside lower center", ncols=6)
    return image(figure, "attention, scores and kept tokens by place")

def draw_sparsity(sparsity: list) -> str | None:
    if not sparsity:
        return None
    figure = new_figure(5.6, 3.8)
    axes = figure.add_subplot(xlabel="layer", ylabel="tokens with 95 % of the attention, %")
    for layer, heads in enumerate(sparsity):
        axes.plot([layer] * len(heads), [100 * share for share in heads], ".", color=STYLES["h2o"][0], alpha=.55, markersize=8,
                  label=None if layer else "KV head")
    axes.plot([100 * sum(heads) / len(heads) for heads in sparsity], color=STYLES["a2sf"][0], linewidth=1.8,
              label="mean of the layer")
    axes.set(ylim=(0, 100))
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=2)
    return image(figure, "sparsity by layer")

def mask_table(rows: list) -> str:
    keys = ("cosine", "jaccard", "mass", "ideal_mass", "age")
    body = [[name_of(row), budget_text(row.get("budget"))]
            + [f"{row[key]:.3f}" if is_number(row.get(key)) else "–" for key in keys] for row in rows]
    return table(["policy", "budget", "cosine", "Jaccard", "mass kept", "mass of ideal", "mean age"], body)

def masks_of(data: dict) -> str:
    """The section's HTML."""
    rows = [row for row in data["rows"] if isinstance(row.get("heads"), list)]
    shown = smallest_budget(rows)
    budget = budget_text(shown[0]["budget"]) if shown else ""
    figures = {"one": [(draw_masks(shown), MASKS.format(budget)), (draw_places(data, shown), PLACES.format(budget)),
                       (draw_heads(rows), HEADS)],
               "two": [(draw_mass(rows), MASS), (draw_sparsity(data.get("sparsity")), SPARSITY)]}
    body = f'{mask_table(rows)}<p class="note">{escape(NOTE)}</p>'
    for kind, pictures in figures.items():
        inner = [f"<figure>{picture}<figcaption>{escape(text)}</figcaption></figure>" for picture, text in pictures if picture]
        body += f'<div class="{kind}">{"".join(inner)}</div>'
    return body
