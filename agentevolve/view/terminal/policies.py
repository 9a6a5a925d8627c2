"""What a run learnt in weights, in the terminal: each adapter with what it learnt from and its verdicts, and what is in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from textual.widgets import Static

from agentevolve.view.templates import count
from agentevolve.view.terminal import words
from agentevolve.view.terminal.page import Told


class Policies(Told):
    """The adapters of a run, and which policy is in place after each round."""

    def ask(self) -> dict[str, Any]:
        """The policies."""
        return self.pages.policies(self.of, {})

    def tell(self) -> None:
        """Show them."""
        many = len(self.values["adapters"])
        self.where(Text(f"{many} adapter{'s' if many != 1 else ''} learnt in this run"))
        self.query_one("#figures", Static).update(Group(*_policies(self.values)))


def _policies(values: Mapping[str, Any]) -> Iterator[RenderableType]:
    for one in values["adapters"]:
        yield words.lines(*_adapter(one, values["adapters"]), Text())
    if not values["adapters"]:
        yield Text("Nothing was learnt in weights.", words.DIM)
    if values["gates"]:
        yield words.table(("seed", "after round", "in place", "taken back"), map(_gate, values["gates"]), "What is in place")
    else:
        yield Text("The gate has not decided anything yet.", words.DIM)


def _adapter(one: Mapping[str, Any], all: Sequence[Mapping[str, Any]]) -> Iterator[Text | None]:
    names = {other["identity"]: other["name"] for other in all}
    start = names.get(one["start"], one["start"][:12]) if one["start"] else "the base"
    yield words.said(one["name"], words.TITLE)
    yield words.said(f"{one['objective']}, from {start} ({one['base'][:12]})")
    rows = f"{count(one['rows'])} rows of {count(one['trajectories'])} attempts, {count(one['tokens'])} tokens"
    yield Text(f"{rows}, loss {one['loss_first']:.3f} to {one['loss_last']:.3f}")
    yield from [words.said(f"- {line}") for line in one["verdicts"]] or [Text("It was not up for promotion.", words.DIM)]
    yield words.said(f"Went on from it: {', '.join(one['children'])}") if one["children"] else None


def _gate(one: Mapping[str, Any]) -> list[Text]:
    stays = Text("stays", words.DIM) if not one["promoted"] else None
    wheres = [f"after round {back['to']}" if back["to"] else "the base" for back in one["taken_back"]]
    backs = [f"to {where}: {back['why']}" for where, back in zip(wheres, one["taken_back"], strict=True)]
    place = words.beside(words.said(one["promoted"] or one["holder"]), stays)
    return [words.name(one["name"]), words.figure(one["round"]), place, words.said("; ".join(backs) or "–")]
