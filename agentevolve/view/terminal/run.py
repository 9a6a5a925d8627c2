"""A run: arms with their intervals, what was decided, what it cost, and why attempts were lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from rich.console import Group, RenderableType
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import Static

from agentevolve.view.templates import count, seconds
from agentevolve.view.terminal import words
from agentevolve.view.terminal.lists import Attempts, Memory
from agentevolve.view.terminal.page import Told
from agentevolve.view.terminal.policies import Policies


class Run(Told):
    """One run: its figures as `agentevolve report` has them, with the intervals drawn."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "attempts", "attempts"),
        Binding("m", "memory", "memory"),
        Binding("p", "policies", "policies"),
    ]

    def ask(self) -> dict[str, Any]:
        """The run."""
        return self.pages.run(self.of, {})

    def tell(self) -> None:
        """Show its figures."""
        settings = self.values["settings"]
        asked = [str(settings[key]) for key in ("tasks", "model", "method") if settings.get(key)]
        self.where(words.said(", ".join(asked)))
        self.query_one("#figures", Static).update(Group(*_figures(self.values)))

    def action_attempts(self) -> None:
        """To its attempts."""
        self.app.push_screen(Attempts(self.of))

    def action_memory(self) -> None:
        """To its memory."""
        self.app.push_screen(Memory(self.of))

    def action_policies(self) -> None:
        """To what it learnt in weights."""
        self.app.push_screen(Policies(self.of))


def _figures(run: Mapping[str, Any]) -> Iterator[RenderableType]:
    for title, one in run["tables"].items():
        yield words.table(one["headings"], [[words.said(cell) for cell in row] for row in one["rows"]], title)
        bars = [[words.said(row[0]), words.bar(report)] for row, report in zip(one["rows"], one["reports"], strict=True)]
        yield words.table(("arm", "success, from 0 to 100 %"), bars)
    if run["tables"]:
        yield Text("Success in percent and its difference in points, with 95% intervals over tasks; costs are means an attempt.")
    else:
        yield Text("Nothing is measured yet.", words.DIM)
    if told := words.titled("What was decided", *(words.said(line) for line in run["verdicts"])):
        yield told
    yield Text()
    yield words.table(("seed", "rounds ended", "attempts", "solved", "lost"), map(_seed, run["seeds"]), "How far it is")
    costs = [[words.name(phase), *_cost(one)] for phase, one in run["costs"].items()]
    yield words.table(("phase", "calls", "tokens", "waited", "USD"), costs, "What it cost")
    lost = [[words.figure(count(one["count"])), words.said(one["reason"])] for one in run["lost"]]
    yield words.table(("attempts", "reason"), lost, "Lost attempts") if lost else Text("No attempt was lost.", words.DIM)


def _seed(one: Mapping[str, Any]) -> list[Text]:
    return [words.name(one["name"]), *(words.figure(count(one[key])) for key in ("rounds", "attempts", "solved", "lost"))]


def _cost(one: Mapping[str, Any]) -> list[Text]:
    figures = (count(one["calls"]), count(one["tokens"]), seconds(one["seconds"]), f"{one['usd']:.4f}")
    return [words.figure(value) for value in figures]
