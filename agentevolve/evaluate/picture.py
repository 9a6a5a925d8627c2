"""The learning curve: success over rounds, or of several arms at one round, with 95% intervals, as PNG or SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentevolve.evaluate.table import plain
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Report
from agentevolve.whole import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rounds = Mapping[int, Sequence[Report]]  # the reports of every arm, by round

WIDTH, DPI = 4.5, 200  # inches and dots: 900 pixels
INK, FAINT, GRID = "#24292f", "#6e7781", "#d8dee4"
COLOURS = ("#0969da", "#cf222e", "#1a7f37", "#8250df", "#bf8700", "#1b7c83", "#bc4c00", "#57606a")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")  # so that arms differ without colour too
CEILING, FLOOR = "oracle", "random"  # arms that learn nothing: reference lines
SUFFIXES = (".png", ".svg")


def learning_curve(reports_by_round: Rounds, path: Path, *, seeds: Sequence[Rounds] = (), title: str = "") -> Path:
    """Draw `reports_by_round` into `path`, whose suffix says PNG or SVG, and return it.

    With several rounds, each arm's success over rounds; with one round, a row an arm. The arm "oracle" is a reference line, and
    so is "random" over rounds. With `seeds`, the same reports for each single seed, these are drawn as small dots. Arms all of
    whose attempts were lost are left out. Raises AgentevolveError for no reports or another suffix.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise AgentevolveError(f"{path}: a picture's name ends in one of {', '.join(SUFFIXES)}")
    rounds, seeds = _measured(reports_by_round), [_measured(one) for one in seeds]
    if not rounds:
        raise AgentevolveError(f"{path}: no reports to draw")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    arms = [arm for arm in _arms(rounds) if arm != CEILING] or [CEILING]
    with matplotlib.rc_context(style()):  # type: ignore[arg-type]  # its stubs want literal keys
        height = 2.9 if len(rounds) > 1 else 1.05 + 0.34 * len(arms)
        figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        draw = _over_rounds if len(rounds) > 1 else _by_arm
        draw(axes, rounds, arms, seeds)
        if title:
            axes.set_title(plain(title), loc="left", fontsize=9, fontweight="bold", pad=16)
        return drawn(figure, path)


def drawn(figure: Figure, path: Path) -> Path:
    """Write the figure in the form that the path's suffix says, whole or not at all."""
    return write_whole(path, rendered(figure, path.suffix.lower().removeprefix(".")))


def rendered(figure: Figure, form: str) -> bytes:
    """The figure as "png" or "svg"."""
    made = BytesIO()
    figure.savefig(made, format=form, facecolor="white", metadata={"Date": None} if form == "svg" else None)
    return made.getvalue()


def _measured(rounds: Rounds) -> Rounds:
    kept = {number: [report for report in reports if report.n] for number, reports in sorted(rounds.items())}
    return {number: reports for number, reports in kept.items() if reports}


def _over_rounds(axes: Axes, rounds: Rounds, arms: Sequence[str], seeds: Sequence[Rounds]) -> None:
    curves = [arm for arm in arms if arm != FLOOR] or list(arms)
    for place, arm in enumerate(curves):
        found = _of(rounds, arm)
        shift = (place - (len(curves) - 1) / 2) * 0.06  # intervals side by side rather than over each other
        points = [number + shift for number, _ in found]
        colour, mark = COLOURS[place % len(COLOURS)], MARKS[place % len(MARKS)]
        success, span = _percent([report for _, report in found])
        axes.errorbar(points, success, yerr=span, color=colour, marker=mark, label=plain(arm), **_look())
        dots = [(number + shift + 0.05, report.success * 100) for one in seeds for number, report in _of(one, arm)]
        axes.scatter(*_columns(dots), s=7, color=colour, alpha=0.5, linewidths=0)
    _references(axes.axhline, rounds, [CEILING] + ([FLOOR] if curves != list(arms) else []))
    axes.set_xticks(list(rounds))
    axes.set_xlabel("round")
    axes.set_ylabel(_success(rounds))
    axes.set_ylim(-3, 103)
    axes.grid(axis="y")
    handles, labels = axes.get_legend_handles_labels()
    first = sorted(range(len(labels)), key=lambda at: labels[at] in (CEILING, FLOOR))  # the reference lines come last
    axes.legend(
        [handles[at] for at in first],
        [labels[at] for at in first],
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.02),
        handlelength=1.4,
    )


def _by_arm(axes: Axes, rounds: Rounds, arms: Sequence[str], seeds: Sequence[Rounds]) -> None:
    [(number, reports)] = rounds.items()
    for row, arm in enumerate(arms):
        report = next(report for report in reports if report.arm == arm)
        success, span = _percent([report])
        colour = FAINT if arm == FLOOR else COLOURS[0]
        axes.errorbar(success, [row], xerr=span, color=colour, marker="o", **_look())
        dots = [(one.success * 100, row + 0.22) for seed in seeds for at, one in _of(seed, arm) if at == number]
        axes.scatter(*_columns(dots), s=8, color=colour, alpha=0.5, linewidths=0)
        axes.annotate(f"{success[0]:.0f}", (success[0], row), (0, 5), textcoords="offset points", ha="center", fontsize=7.5)
    if list(arms) != [CEILING]:
        _references(axes.axvline, rounds, [CEILING])
        for _, report in _of(rounds, CEILING):
            axes.text(
                report.success * 100,
                1.01,
                f"{CEILING} {report.success * 100:.0f}",
                color=FAINT,
                fontsize=7.5,
                ha="right",
                va="bottom",
                transform=axes.get_xaxis_transform(),
            )
    axes.set_yticks(range(len(arms)), [plain(arm) for arm in arms])
    axes.set_ylim(len(arms) - 0.45, -0.65)
    axes.set_xlim(-3, 103)
    axes.set_xlabel(_success(rounds))
    axes.grid(axis="x")


def _references(line: Any, rounds: Rounds, names: Sequence[str]) -> None:
    for name, style in zip(names, ("--", ":"), strict=False):
        found = _of(rounds, name)
        if found:
            line(sum(report.success for _, report in found) / len(found) * 100, color=INK, ls=style, lw=1, label=name, zorder=1)


def _arms(rounds: Rounds) -> list[str]:
    return list(dict.fromkeys(report.arm for reports in rounds.values() for report in reports))


def _of(rounds: Rounds, arm: str) -> list[tuple[int, Report]]:
    return [(number, report) for number, reports in sorted(rounds.items()) for report in reports if report.arm == arm]


def _percent(reports: Sequence[Report]) -> tuple[list[float], list[list[float]]]:
    success = [report.success * 100 for report in reports]
    below = [(report.success - report.low) * 100 for report in reports]
    above = [(report.high - report.success) * 100 for report in reports]
    return success, [[max(0.0, span) for span in spans] for spans in (below, above)]


def _success(rounds: Rounds) -> str:
    reports = [report for reports in rounds.values() for report in reports]
    splits = "/".join(sorted({report.split for report in reports}))
    sizes = sorted({report.n for report in reports})
    n = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,}–{sizes[-1]:,}"
    return f"{splits} success, % (n = {n}, 95% interval)"


def _columns(dots: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in dots], [y for _, y in dots]


def _look() -> dict[str, Any]:
    return {"ms": 4.5, "lw": 1.4, "elinewidth": 1.1, "capsize": 2, "mec": "white", "mew": 0.6}


def style() -> dict[str, Any]:
    """How the house draws, as matplotlib settings."""
    return {
        "font.family": "sans-serif",
        "font.size": 8,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": GRID,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "xtick.color": FAINT,
        "ytick.color": INK,
        "xtick.labelcolor": INK,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "legend.fontsize": 7.5,
        "svg.hashsalt": "agentevolve",
        "text.parse_math": False,
    }
