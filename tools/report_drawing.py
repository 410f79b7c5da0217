"""What all pictures of tools/report share: colours, figures, images inside the page. The only part that needs matplotlib."""

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

def image(figure, alternative: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=170)
    return f'<img alt="{escape(alternative)}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
