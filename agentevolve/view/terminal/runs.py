"""The list of comparisons, runs and memories."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.text import Text
from textual.widget import Widget
from textual.widgets import DataTable, Static

from agentevolve.view.templates import count
from agentevolve.view.terminal import words
from agentevolve.view.terminal.compared import Comparison
from agentevolve.view.terminal.lists import Listed, Memory
from agentevolve.view.terminal.page import Page
from agentevolve.view.terminal.run import Run

LAST = 6  # verdicts of a run in the list of runs
LISTS = {"comparisons": "comparison", "runs": "run", "memories": "memory"}


class Runs(Listed):
    """All comparisons, and the runs and memories that belong to none, with how far they are and what the gate said last."""

    COLUMNS = ("", "name", "state", "rounds", "attempts", "solved", "lost", "tokens", "model")

    def body(self) -> Iterable[Widget]:
        """A table, and below it what was decided in the run at the cursor."""
        yield DataTable(id="list", cursor_type="row")
        yield Static(id="verdicts")

    def ask(self) -> dict[str, Any]:
        """All of them."""
        return self.pages.runs({})

    def tell(self) -> None:
        """Show them."""
        counts = [(len(self.values[name]), name if len(self.values[name]) != 1 else one) for name, one in LISTS.items()]
        said = ", ".join(f"{many} {name}" for many, name in counts if many)
        self.say(words.beside(Text(f"{said} at or below"), words.said(self.values["root"]), between=" "))
        self.fill()

    def rows(self) -> list[dict[str, Any]]:
        """Their values, each with what it is."""
        return [one | {"is": what} for name, what in LISTS.items() for one in self.values.get(name, ())]

    def cells(self, one: dict[str, Any]) -> list[Text]:
        """One of them; one that cannot be read says why."""
        about = [Text(one["is"], words.DIM), words.name(one["name"])]
        if one["error"]:
            return [*about, words.name(one["error"], words.ODD)]
        about.append(words.badge(one["state"]))
        if one["is"] == "comparison":
            of = words.figure(f"{one['begun']} of {one['all']} runs")
            return [*about, of, *[Text()] * 4, words.name(one["asked"]["model"])]
        if one["is"] == "memory":
            return [*about, words.figure(f"{count(one['entries'])} entries"), *[Text()] * 4, words.name(one["model"])]
        rounds = ", ".join(str(seed["rounds"]) for seed in one["seeds"])
        of = words.figure(rounds + (f" of {one['asked']['rounds']}" if one["asked"]["rounds"] else ""))
        sums = [words.figure(count(sum(seed[key] for seed in one["seeds"]))) for key in ("attempts", "solved", "lost")]
        return [*about, of, *sums, words.figure(count(one["spent"]["tokens"])), words.name(one["asked"]["model"] or "–")]

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Say what was decided last in the run at the cursor."""
        decided = (self.current() or {}).get("verdicts", ())[-LAST:]
        self.query_one("#verdicts", Static).update(words.lines(*(words.said(line) for line in decided)))

    def open(self, one: dict[str, Any]) -> Page | None:
        """Its screen, if it can be read."""
        return None if one["error"] else first(one["is"], one["name"])


def first(what: str, name: str) -> Page:
    """The screen of a run, a comparison or a memory."""
    return {"run": Run, "comparison": Comparison, "memory": Memory}[what](name)
