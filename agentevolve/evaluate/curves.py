"""Learning curves against the budget, a small panel for each method, on the same axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agentevolve.evaluate.picture import COLOURS, DPI, FAINT, INK, drawn, style
from agentevolve.evaluate.standing import Point, Standing
from agentevolve.evaluate.table import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS = 5  # panels in a row
PANEL = (1.75, 1.35)  # inches


def curves(rows: Sequence[Standing], path: Path, *, unit: str) -> Path:
    """Draw each method's success against what learning has cost in `unit` (episodes, tokens or usd) into `path`, PNG or SVG.

    A point is a round that every seed has finished; the last has its 95% interval, if it is every seed's last. The dashed line
    is no learning, the same in every panel.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    methods = [row for row in rows if row.difference]
    several = len({row.tasks for row in rows}) > 1
    across = min(ACROSS, len(methods))
    down = math.ceil(len(methods) / across)
    with matplotlib.rc_context(style()):  # type: ignore[arg-type]  # its stubs want literal keys
        figure = Figure(figsize=(max(3.2, PANEL[0] * across), PANEL[1] * down + 0.5), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for place, axes in enumerate(panels.flat):
            if place >= len(methods):
                axes.set_visible(False)
                continue
            row = methods[place]
            axes.set_title(plain(f"{row.tasks}: {row.method}" if several else row.method), loc="left", fontsize=7.5)
            base = next(one for one in rows if one.tasks == row.tasks and one.method == "no learning")
            _panel(axes, row, base, unit)
        figure.supxlabel(f"learning cost so far, {'USD' if unit == 'usd' else unit} (mean a seed)", fontsize=8)
        figure.supylabel("held-out success, %", fontsize=8)
        return drawn(figure, path)


def _panel(axes: Axes, row: Standing, base: Standing, unit: str) -> None:
    colour = {"better": COLOURS[2], "worse": COLOURS[1]}.get(row.verdict or "", COLOURS[0])
    xs = [_cost(point, unit) for point in row.curve]
    if base.n:
        axes.axhline(100 * base.success, color=INK, ls="--", lw=0.8)
    axes.plot(xs, [100 * point.success for point in row.curve], color=colour, marker="o", ms=3, lw=1.2)
    if set(row.rounds) == {len(xs) - 1} and len(xs) > 1:
        axes.vlines(xs[-1], 100 * row.low, 100 * row.high, color=colour, lw=1)
    elif len(xs) == 1:
        said = "no round fitted" + (" with every seed" if any(row.rounds) else "")
        axes.annotate(said, (0.5, 0.5), xycoords="axes fraction", ha="center", color=FAINT, fontsize=7)
    axes.set_ylim(-3, 103)
    axes.grid(axis="y")


def _cost(point: Point, unit: str) -> float:
    return {"episodes": point.episodes, "tokens": point.tokens, "usd": point.usd}[unit]
