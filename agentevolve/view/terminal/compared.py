"""A comparison in the terminal: how the methods stand, and of each method all that is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import DataTable, Static

from agentevolve.view.templates import count
from agentevolve.view.terminal import words
from agentevolve.view.terminal.lists import Listed
from agentevolve.view.terminal.page import Page
from agentevolve.view.terminal.run import Run


class Comparison(Listed):
    """The standings of a comparison, a method a row, and what cannot be concluded from them; Enter opens a method."""

    def __init__(self, comparison: str) -> None:
        super().__init__()
        self.of = comparison

    @property
    def headings(self) -> Sequence[str]:
        """Those of the standings."""
        return ["task set", *next((one["standings"]["headings"] for one in self._sets() if one["methods"]), ("method", ""))]

    def body(self) -> Iterable[Widget]:
        """The standings, and a text."""
        yield DataTable(id="list", cursor_type="row")
        yield VerticalScroll(Static(id="figures"), id="text")

    def ask(self) -> dict[str, Any]:
        """The comparison."""
        return self.pages.comparison(self.of, {})

    def tell(self) -> None:
        """Show it."""
        asked = self.values["asked"]
        about = (
            f"{len(asked['methods'])} methods against no learning, {asked['model']}, seeds {', '.join(map(str, asked['seeds']))}"
        )
        self.say(words.beside(words.name(self.of, "bold"), words.badge(self.values["state"]), words.said(about)))
        self.fill()
        self.query_one("#figures", Static).update(words.lines(*_around(self.values)))

    def rows(self) -> list[dict[str, Any]]:
        """The methods that stand at each task set, no learning among them, and those that are not through."""
        there = [
            {"tasks": one["tasks"], "cells": row, "method": method}
            for one in self._sets()
            for row, method in zip(one["standings"]["rows"], one["methods"], strict=True)
        ]
        known = {(one["tasks"], one["method"]) for one in there}
        begun = [one for one in self.values.get("runs", ()) if one["method"] in self.values["asked"]["methods"]]
        late = [one for one in begun if (one["tasks"], one["method"]) not in known]
        return there + [{"tasks": one["tasks"], "cells": [one["method"], "not through"], "method": one["method"]} for one in late]

    def cells(self, one: dict[str, Any]) -> list[Text]:
        """A method's figures."""
        method, *figures = one["cells"]
        return [words.name(one["tasks"]), words.name(method), *map(words.figure, figures)]

    def open(self, one: dict[str, Any]) -> Page | None:
        """The method's page."""
        return Method(self.of, one["method"]) if one["method"] in self.values["asked"]["methods"] else None

    def _sets(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.values.get("sets", [])
        return found


class Method(Page):
    """A method of a comparison: its figures at each task set, its success round by round, and its runs; Enter opens one."""

    def __init__(self, comparison: str, method: str) -> None:
        super().__init__()
        self.of, self.method = comparison, method

    def body(self) -> Iterable[Widget]:
        """The figures, and the runs."""
        yield VerticalScroll(Static(id="figures"), id="text")
        yield DataTable(id="links", cursor_type="row")

    async def on_mount(self) -> None:
        """The columns of the runs."""
        table = self.query_one(DataTable)
        for one in ("task set", "seed", "state", "rounds", ""):
            table.add_column(words.name(one))
        table.focus()

    def ask(self) -> dict[str, Any]:
        """The method."""
        return self.pages.method(self.of, {"method": self.method})

    def tell(self) -> None:
        """Show it."""
        self.say(words.beside(words.name(self.of), words.name(self.method, "bold"), words.badge(self.values["state"])))
        self.query_one("#figures", Static).update(Group(*_figures(self.values)))
        table = self.query_one(DataTable)
        at = table.cursor_row
        table.clear()
        for tasks, one in self._runs():
            counted = Text("" if one["counted"] else "does not count yet", words.DIM)
            figures = words.figure(one["seed"]), words.badge(one["state"]), words.figure(one["rounds"])
            table.add_row(words.name(tasks), *figures, counted)
        table.move_cursor(row=at)

    def _runs(self) -> list[tuple[str, dict[str, Any]]]:
        return [(row["tasks"], one) for row in self.values["runs"] for one in row["seeds"]]

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Open the run."""
        self.app.push_screen(Run(self._runs()[event.cursor_row][1]["name"]))


def _around(values: Mapping[str, Any]) -> Iterator[Text | None]:
    """What the standings say, and what not."""
    yield from (words.said(line, words.ODD) for line in values["so_far"])
    if not values["standings"]:
        yield Text("Nothing can be held against each other yet: of no seed are the controls through.", words.DIM)
        return
    yield Text(
        "Success in percent and its difference to no learning in points, with 95% intervals over tasks, paired by task and seed; "
        "p is corrected for all methods that are shown (Holm); *: saw solutions that the worlds gave."
    )
    yield words.titled("What cannot be concluded", *(words.said(f"- {line}") for line in values["cannot_be_concluded"]))


def _figures(values: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A method's figures, a table for each task set, and its curve."""
    for one in values["standings"]:
        rows = [[words.name(name), words.said(cell)] for name, cell in one["figures"]]
        yield words.table(("", "figure"), rows, one["tasks"])
        points = [
            [
                words.figure(point["round"]),
                words.figure(f"{100 * point['success']:.0f}"),
                words.bar(point | {"n": point["seeds"], "low": point["success"], "high": point["success"]}),
                *(words.figure(count(point[name])) for name in ("episodes", "tokens", "seeds")),
            ]
            for point in one["curve"]
        ]
        if points:
            yield words.table(
                ("round", "success %", "from 0 to 100 %", "attempts", "learning tokens", "seeds"), points, "Round by round"
            )
    if not values["standings"]:
        yield Text("It is not through yet.", words.DIM)
    yield Text("Its runs, below:", words.TITLE)
