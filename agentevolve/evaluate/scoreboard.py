"""Standings for reading: as a table for a terminal, as Markdown, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentevolve.evaluate.standing import Standing
from agentevolve.evaluate.stats import judged
from agentevolve.evaluate.table import NOTHING, percent, plain, points
from agentevolve.records import Difference

if TYPE_CHECKING:
    from rich.table import Table

NARROW = ("method", "success %", "vs no learning", "by seed", "p (Holm)", "verdict", "tokens", "learning tokens", "rounds")
NESTED = {"difference", "from_memory", "without_memory", "forgotten"}  # each becomes three columns of the CSV


def columns(rows: Sequence[Standing]) -> list[str]:
    """The headings that the rows have something to say under."""
    shown = ["method", "n", "success %", "vs no learning", "by seed", "p (Holm)", "verdict"]
    if any(row.k > 1 for row in rows):
        shown += [f"pass@{rows[0].k} %", f"pass^{rows[0].k} %"]
    if any(row.errors for row in rows):
        shown.append("errors")
    shown += ["turns", "tokens", "attempts", "learning tokens"]
    if any(row.usd for row in rows):
        shown.append("USD")
    shown += ["seconds", "rounds"]
    if any(row.from_memory for row in rows):
        shown.append("vs shuffled memory")
    if any(row.without_memory for row in rows):
        shown.append("empty memory vs no learning")
    if any(row.forgotten for row in rows):
        shown.append("guard")
    return shown


def cells(row: Standing, shown: Sequence[str]) -> list[str]:
    """A row's texts under the headings `shown`. Percent and points; costs are means a seed, `tokens` a measured attempt."""
    learnt = row.difference is not None
    all_of = {
        "method": plain(row.method) + ("*" if row.taught else ""),
        "n": f"{row.n:,}",
        "success %": percent(row),
        "vs no learning": _points(row.difference),
        "by seed": " ".join(NOTHING if one is None else f"{100 * one:+.0f}" for one in row.by_seed) or NOTHING,
        "p (Holm)": NOTHING if row.p_holm is None else f"{row.p_holm:.3f}",
        "verdict": row.verdict or NOTHING,
        f"pass@{row.k} %": f"{100 * row.pass_any:.0f}" if row.n else NOTHING,
        f"pass^{row.k} %": f"{100 * row.pass_all:.0f}" if row.n else NOTHING,
        "errors": f"{row.errors:,}",
        "turns": f"{row.turns:.1f}" if row.n else NOTHING,
        "tokens": f"{row.tokens:,.0f}",
        "attempts": f"{row.episodes:,.0f}" if learnt else NOTHING,
        "learning tokens": f"{row.learning_tokens:,.0f}" if learnt else NOTHING,
        "USD": f"{row.usd:.3f}" if learnt else NOTHING,
        "seconds": f"{row.seconds:,.0f}" if learnt else NOTHING,
        "rounds": " ".join(map(str, row.rounds)) or NOTHING,
        "vs shuffled memory": _points(row.from_memory),
        "empty memory vs no learning": _points(row.without_memory),
        "guard": _points(row.forgotten),
    }
    return [all_of[name] for name in shown]


def board(rows: Sequence[Standing], title: str) -> Table:
    """The rows of one task set as a table for a terminal; `*` marks methods that saw the worlds' solutions.

    It has the columns that fit; the files that a comparison writes have all of them.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(plain(title)), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    shown = [name for name in columns(rows) if name in NARROW]
    for name in shown:
        made.add_column(
            Text(name),
            justify="left" if name in ("method", "verdict") else "right",
            overflow="fold",
            no_wrap=name in ("method", "verdict"),
        )
    for row in rows:
        made.add_row(*(Text(cell) for cell in cells(row, shown)))
    return made


def markdown(rows: Sequence[Standing], caveats: Sequence[str], made_by: str) -> str:
    """All tables, one a task set, how they were made, and what cannot be concluded."""
    parts = ["# Methods compared\n", f"{made_by}\n"]
    for tasks in dict.fromkeys(row.tasks for row in rows):
        of_set = [row for row in rows if row.tasks == tasks]
        shown = columns(of_set)
        lines = [f"## {_escaped(tasks)}\n", line(shown), line(["---"] * len(shown))]
        parts.append("\n".join(lines + [line(cells(row, shown)) for row in of_set]) + "\n")
    parts.append(
        "Success and differences in percent and points, with 95% intervals over tasks; differences are paired by task and seed. "
        "`n` attempts count; errors are attempts lost to the backend or the world, left out with their pairs. "
        "`tokens` is the mean of a measured attempt; attempts, learning tokens and seconds (on the clock, with all workers busy) "
        "are what learning cost, a mean a seed. "
        "`*`: saw solutions that the worlds gave.\n"
    )
    return "\n".join([*parts, "## What cannot be concluded\n", *(f"- {_escaped(line)}" for line in caveats)]) + "\n"


def to_csv(rows: Sequence[Standing]) -> str:
    """One line a row; a difference is three columns, its mean and its interval, empty if too much was lost for it.

    Lists are separated by spaces.
    """
    named = [name for name in Standing.model_fields if name != "curve"]
    header = [
        part for name in named for part in ([f"{name}_{end}" for end in ("mean", "low", "high")] if name in NESTED else [name])
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([part for name in named for part in _flat(name, getattr(row, name))])
    return text.getvalue()


def _flat(name: str, value: object) -> list[object]:
    if name in NESTED:
        return [value.mean, value.low, value.high] if isinstance(value, Difference) and judged(value) else [""] * 3
    if isinstance(value, tuple):
        return [" ".join(NOTHING if one is None else str(one) for one in value)]
    return ["" if value is None else value]


def _points(found: Difference | None) -> str:
    return NOTHING if found is None else points(found)


def line(texts: Sequence[str]) -> str:
    """A row of a Markdown table; what Markdown would take for more than text is escaped."""
    return "| " + " | ".join(text if text == "---" else _escaped(text) for text in texts) + " |"


def _escaped(text: str) -> str:
    return "".join(f"\\{sign}" if sign in "\\|`*_<>[]" else sign for sign in text)
