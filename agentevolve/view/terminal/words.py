"""What the terminal shows, as `rich.text.Text`: its words are never read as markup, and what cannot be seen in them is named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from agentevolve.view.templates import count
from agentevolve.view.text import visible

WIDE = 60  # columns of a name in a list
BAR = 31  # columns of the line from 0 to 100 %
STYLES = {"solved": "green", "not solved": "yellow", "lost": "bold red", "under way": "bold cyan", "stopped on the way": "yellow"}
TITLE, ODD, DIM = "bold underline", "bold red", "dim"


def said(text: object, style: str = "") -> Text:
    """Words from anywhere, on as many lines as they have."""
    return Text(visible(str(text)), style)


def name(text: object, style: str = "", wide: int = WIDE) -> Text:
    """Words from anywhere on one line; of long ones the middle is left out, since names differ at their ends."""
    line = visible(str(text)).replace("\n", "⏎").replace("\t", " ")
    if len(line) > wide:
        line = f"{line[: wide // 2]}…{line[len(line) - wide // 2 :]}"
    return Text(line, style, no_wrap=True)


def badge(outcome: str) -> Text:
    """An outcome, or a run's state: the word says it, the colour too."""
    return name(outcome, STYLES.get(outcome, ""))


def figure(value: object) -> Text:
    """A number, aligned as numbers are."""
    return Text("–" if value is None else str(value), justify="right", no_wrap=True)


def cut(one: Mapping[str, Any], empty: str = "") -> Text:
    """A text that pages have cut (`cut` in shown.py), with how much more there is."""
    if not one["text"]:
        return Text(empty, DIM)
    return lines(said(one["text"]), Text(f"and {count(one['more'])} more characters", DIM) if one["more"] else None)


def titled(title: str, *texts: Text | None) -> Text | None:
    """Texts under a heading of the house's; nothing where there are none."""
    there = [one for one in texts if one is not None and one.plain]
    return lines(Text(), Text(title, TITLE), *there) if there else None


def lines(*texts: Text | None) -> Text:
    """The texts below each other, without those that are None."""
    return Text("\n").join(one for one in texts if one is not None)


def beside(*texts: Text | None, between: str = "  ") -> Text:
    """The texts after each other, without those that are None."""
    return Text(between).join(one for one in texts if one is not None)


def table(headings: Sequence[str], rows: Iterable[Sequence[Text]], title: str = "") -> Table:
    """A table of texts, under its title."""
    from rich import box

    heading = Text().append_text(name(title, TITLE))  # so that the style ends with the words
    made = Table(
        title=heading if title else None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for one in headings:
        made.add_column(name(one), overflow="fold")  # a figure is never cut
    for row in rows:
        made.add_row(*row)
    return made


def bar(report: Mapping[str, Any]) -> Text:
    """Success and its interval as a line from 0 to 100 %."""
    if not report["n"]:
        return Text("nothing counts", DIM)
    low, at, high = (round(report[key] * (BAR - 1)) for key in ("low", "success", "high"))
    signs = ["·"] * BAR
    signs[low : high + 1] = "├" + "─" * (high - low - 1) + "┤" if high > low else "│"
    signs[at] = "●"
    return Text("".join(signs), no_wrap=True)


def changed(parts: Iterable[Mapping[str, str]]) -> Text:
    """Two texts word by word: what is in the first alone struck out, what is in the second alone underlined."""
    styles = {"same": "", "gone": "red strike", "new": "bold green underline"}
    return Text().join(said(one["text"], styles[one["what"]]) for one in parts)
