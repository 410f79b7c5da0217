"""What all parts of tools/report share in looks: the page's style, colours, figures, images inside the page."""

import base64
import io
from html import escape

# Okabe and Ito's palette: distinguishable with every common form of colour blindness; the markers differ as well.
STYLES = {"full": ("#4a4a4a", "D"), "local": ("#E69F00", "v"), "streaming": ("#56B4E9", "^"), "h2o": ("#0072B2", "s"),
          "tova": ("#CC79A7", "P"), "a2sf": ("#D55E00", "o"), "ideal": ("#009E73", "*")}
OTHER, INK, MUTED = ("#7a6c9d", "X"), "#27303a", "#4b5560"

def new_figure(width: float, height: float):
    import matplotlib
    from matplotlib.figure import Figure
    matplotlib.rcParams.update({
        "text.parse_math": False, "axes.titlelocation": "left", "axes.titlesize": 10.5, "axes.titlecolor": INK,
        "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#9aa3ad", "axes.labelcolor": MUTED,
        "xtick.color": MUTED, "ytick.color": MUTED, "axes.grid": True, "grid.color": "#e8ebef", "axes.axisbelow": True,
        "legend.frameon": False})
    return Figure(figsize=(width, height), layout="constrained")

def legend_columns(labels: list, width: float) -> int:
    """As many as fit, filled one after the other; a letter takes about .08 inches."""
    for count in range(len(labels), 1, -1):
        rows, longer = divmod(len(labels), count)  # the first few have one row more
        starts = [column * rows + min(column, longer) for column in range(count + 1)]
        if sum(.58 + .08 * max(map(len, labels[start:end])) for start, end in zip(starts, starts[1:])) <= width:
            return count
    return 1

def add_legend(figure, handles: list, labels: list) -> None:
    """Under the panels, which keep their height."""
    columns = legend_columns(labels, figure.get_figwidth())
    figure.set_figheight(figure.get_figheight() + .21 * (-(-len(labels) // columns) - 1))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.3)

def scale_values(axes, values: list) -> None:
    """Logarithmic with plain numbers, where values above 0 are far apart."""
    from matplotlib.ticker import LogLocator, NullFormatter
    if min(values) > 0 and max(values) > 2 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.2, 1.5, 2, 3, 5, 7)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
        axes.yaxis.set_minor_formatter(NullFormatter())

def image(figure, alternative: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=170)
    return f'<img alt="{escape(alternative)}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'

CSS = """
:root { color-scheme: light; } main { max-width: 1120px; margin: 0 auto; padding: 48px 20px; }
body { margin: 0; background: #f5f6f8; color: #27303a; font: 16px/1.55 system-ui, sans-serif; }
h1, h2, figure, dd { margin: 0; } h2 { font-size: 21px; } h3 { font-size: 15px; margin: 20px 0 6px; }
.lead { max-width: 74ch; margin: 8px 0 32px; } .note { max-width: 100ch; } .scroll { overflow-x: auto; }
section { background: #fff; border: 1px solid #e3e7ec; border-radius: 12px; padding: 26px 30px; margin: 0 0 26px; }
.facts, .note, figcaption { color: #5f6a76; font-size: 14px; margin: 4px 0 14px; } img { width: 100%; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { font-size: 13px; color: #5f6a76; } tr.best { background: #fff6ec; font-weight: 600; }
th, td { padding: 7px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid #edf0f3; }
th:first-child, td:first-child { text-align: left; } .two { --least: 400px; } .three { --least: 280px; }
.badge { font-size: 11px; color: #8a3f00; border: 1px solid #e7b98f; border-radius: 9px; padding: 1px 7px; }
.one, .two, .three { display: grid; gap: 18px 26px; margin-top: 18px; }
.two, .three { grid-template-columns: repeat(auto-fill, minmax(min(var(--least), 100%), 1fr)); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 0; font-size: 14px; }
dt { color: #5f6a76; } dd { overflow-wrap: anywhere; }
"""
