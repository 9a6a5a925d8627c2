"""Reports for reading: as a table for a terminal of 100 columns or a pipe, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from pydantic import JsonValue

from agentevolve.evaluate.stats import judged
from agentevolve.records import Difference, Record, Report

if TYPE_CHECKING:
    from rich.table import Table

NOTHING = "–"


class Share(Protocol):
    """A share solved of `n` attempts, in [0, 1], with its interval: a report, a standing, a stage of a run."""

    @property
    def n(self) -> int:
        """How many attempts count."""

    @property
    def success(self) -> float:
        """The share."""

    @property
    def low(self) -> float:
        """The lower end."""

    @property
    def high(self) -> float:
        """The upper end."""


SHOWN = 60  # characters of a name
DIFFERENCE = 3  # the column of the difference


def table(reports: Sequence[Report], title: str) -> Table:
    """One row an arm. Success in percent and its difference in points, each with a 95% interval; costs are means an attempt.

    `n` attempts count, errors are those lost; the costs are of both. Seconds are those that the model was waited for. Where
    there were any: tokens that came from a prompt cache (`cached`), attempts that saw something of memory shortened (`cut`).
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(plain(title)), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    names, rows = grid(reports)
    made.add_column(names[0], overflow="fold", min_width=8)
    for place, name in enumerate(names[1:], 1):
        made.add_column(Text(name), justify="right", no_wrap=place != DIFFERENCE, overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def grid(reports: Sequence[Report]) -> tuple[list[str], list[tuple[str, ...]]]:
    """The headings and the rows of `table`, as texts."""
    versus = sorted({report.versus for report in reports if report.difference})
    difference = f"vs {plain(versus[0])}" if len(versus) == 1 and versus[0] else "difference"
    cached, cut = any(report.usage.cached_tokens for report in reports), any(report.cut for report in reports)
    names = ["arm", "n", "success %", difference, "turns", "tokens", "cached" * cached, "seconds", "errors", "cut" * cut]
    rows = [_cells(report, named=len(versus) > 1, cached=cached, cut=cut) for report in reports]
    return list(filter(None, names)), rows


def to_json(reports: Sequence[Record]) -> list[JsonValue]:
    """The reports, or standings, as JSON values, every field as in the record."""
    return [report.model_dump(mode="json") for report in reports]


def percent(found: Share) -> str:
    """An arm's success in percent with its interval; nothing if no attempt counts."""
    return f"{100 * found.success:.0f} [{100 * found.low:.0f}, {100 * found.high:.0f}]" if found.n else NOTHING


def points(found: Difference) -> str:
    """A difference in points with its interval, if enough pairs count for one."""
    if not judged(found):
        return "no verdict"
    return f"{100 * found.mean:+.0f} [{100 * found.low:+.0f}, {100 * found.high:+.0f}]"


def plain(text: str) -> str:
    """The start of `text` on one line, without what a terminal or an encoder would trip over."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text[: SHOWN + 1])
    return shown if len(text) <= SHOWN else shown[: SHOWN - 1] + "…"


def _cells(report: Report, named: bool, cached: bool, cut: bool) -> tuple[str, ...]:
    played = report.n + report.errors
    return (
        plain(report.arm),
        f"{report.n:,}",
        percent(report),
        _difference(report, named),
        f"{report.turns:.1f}" if report.n else NOTHING,
        f"{report.usage.tokens / played:,.0f}" if played else NOTHING,
        *([f"{report.usage.cached_tokens / played:,.0f}" if played else NOTHING] if cached else []),
        f"{report.usage.seconds / played:.2f}" if played else NOTHING,
        f"{report.errors:,}",
        *([f"{report.cut:,}"] if cut else []),
    )


def _difference(report: Report, named: bool) -> str:
    found = report.difference
    if found is None:
        return NOTHING
    shown = points(found)
    return f"{shown} vs {plain(report.versus)}" if named else shown
