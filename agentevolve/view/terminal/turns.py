"""An attempt turn by turn: the turns in a list, the one that is looked at beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from rich.console import Group, RenderableType
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from agentevolve.view.templates import count, seconds
from agentevolve.view.terminal import words
from agentevolve.view.terminal.page import Page

NARROW = 24  # columns of an action in the list of turns


class Turns(Page):
    """Turns, one at a time: 0 is the start."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "walk(1)", "next"),
        Binding("k", "walk(-1)", "previous"),
    ]

    def __init__(self, run: str, turn: int = 0) -> None:
        super().__init__()
        self.of, self.turn = run, turn

    def body(self) -> Iterable[Widget]:
        """The list of turns, and the turn."""
        yield Horizontal(
            VerticalScroll(Static(id="turns"), id="steps", can_focus=False), VerticalScroll(Static(id="turn"), id="text")
        )

    def show(self, steps: Iterable[Text], turn: RenderableType) -> None:
        """Show the list and the turn from its start."""
        listed = [*steps]
        self.query_one("#turns", Static).update(words.lines(*listed))
        self.query_one("#turn", Static).update(turn)
        at = next((number for number, one in enumerate(listed) if one.style), 0)
        self.query_one("#steps", VerticalScroll).scroll_to(y=max(0, at - 5), animate=False)

    def step(self, number: int, *texts: Text | None) -> Text:
        """A turn's line in the list; the one that is shown stands out."""
        line = words.beside(Text("start" if number == 0 else f"{number:4}"), *texts, between=" ")
        line.style = "reverse" if number == self.turn else ""
        return line

    async def action_walk(self, step: int) -> None:  # type: ignore[override]
        """The next or the previous turn."""
        if self.values:
            await self.go(max(0, min(self.turn + step, self.values["turns"])))

    async def go(self, turn: int) -> None:
        """Show that turn, from its start."""
        if turn != self.turn:
            self.turn = turn
            if await self.read():
                self.tell()
                self.query_one("#text", VerticalScroll).scroll_home(animate=False)


class Replay(Turns):
    """One attempt."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left_square_bracket", "beside('before')", "before"),
        Binding("right_square_bracket", "beside('after')", "after"),
        Binding("v", "mark", "mark"),
    ]

    def __init__(self, run: str, id: str, seed: int, turn: int = 0) -> None:
        super().__init__(run, turn)
        self.attempt, self.seed = id, seed

    def ask(self) -> dict[str, Any]:
        """The attempt, with the turns around the one that is shown."""
        return self.pages.attempt(self.of, {"id": self.attempt, "seed": str(self.seed), "turn": str(self.turn)})

    def tell(self) -> None:
        """Show it."""
        self.turn = self.values["turn"]
        self.where(*_head(self.values["row"]))
        steps, text = self.values["steps"], _start(self.values["start"])
        if self.turn:
            text = _turn(next(one for one in steps if one["number"] == self.turn), self.values["turns"])
        self.show([self.step(0), *(self.step(one["number"], _action(one)) for one in steps)], Group(*text))

    async def action_beside(self, which: str) -> None:
        """The attempt before or after this one at the same task."""
        if other := self.values.get("beside", {}).get(which):
            self.attempt, self.seed, self.turn = other["id"], other["seed"], 0
            if await self.read():
                self.query_one("#text", VerticalScroll).scroll_home(animate=False)

    def action_mark(self) -> None:
        """Mark this attempt, or compare it with the marked one."""
        self.inspector.mark(self.of, self.attempt, self.seed)


def _head(row: Mapping[str, Any]) -> Iterator[Text | None]:
    of = f", round {row['round']}" if row["round"] is not None else ""
    yield words.name(row["id"], "bold")
    yield words.badge(row["outcome"])
    yield words.said(f"\nat {row['task']}, arm {row['arm']}{of}, seed {row['seed']}; {row['policy']['model']}")
    cost = f"{count(row['tokens'])} tokens, {seconds(row['took'])}, {row['recalled']} entries recalled"
    yield Text(f"\nreward {row['reward']:.2f}, {row['ended']} after {row['turns']} turns; {cost}")
    yield words.said(f"\nlost: {row['error']}", words.ODD) if row["error"] else None
    yield Text("\nWhat was said in it was forgotten; its figures stay.", words.ODD) if row["forgotten"] else None


def _action(one: Mapping[str, Any]) -> Text:
    return words.name(one["action"]["text"], wide=NARROW)


def _start(it: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What the agent was shown before its first action."""
    demos = [words.lines(words.said(one["role"], "bold"), words.cut(one)) for one in it["demos"]]
    more = Text(f"and {it['demos_more']} more messages", words.DIM) if it["demos_more"] else None
    nothing = "nothing: it was forgotten, or there was none"
    yield Text("Start", words.TITLE)
    yield from _looked(it["looked"])
    yield from filter(
        None,
        (
            words.titled("Recalled text", words.cut(it["context"])),
            words.titled("Recalled attempts, as messages", *demos, more),
            words.titled("House rules", words.cut(it["system"])),
            words.titled("Hint", words.cut(it["hint"])),
            words.titled("Prompt", words.cut(it["prompt"], nothing)),
            words.titled("Tools", words.said(", ".join(it["tools"]))),
        ),
    )


def _turn(one: Mapping[str, Any], turns: int) -> Iterator[RenderableType]:
    """A turn: the action, what was thought of and could be done, what came back."""
    odd = Text("not admitted", words.ODD) if one["admissible"] is False else None
    yield Text(f"Turn {one['number']} of {turns}", words.TITLE)
    yield words.beside(words.beside(Text("> "), words.cut(one["action"]), between=""), odd)
    yield from filter(None, (words.titled("Thinking", words.cut(one["thinking"])), _admitted(one)))
    yield from _looked(one["looked"])
    context, came = words.titled("Recalled text", words.cut(one["context"])), words.cut(one["observation"], "nothing came back")
    yield from filter(None, (context, words.titled("What came back", came), Text()))
    yield Text(f"reward {one['reward']:.2f} · {count(one['tokens'])} tokens · {seconds(one['seconds'])}", words.DIM)


def _admitted(one: Mapping[str, Any]) -> Text | None:
    listed, chosen = one["admitted"], one["action"]["text"]
    more = Text(f"and {count(listed['more'])} more", words.DIM) if listed["more"] else None
    actions = [words.said(("> " if action == chosen else "  ") + action) for action in listed["actions"]]
    return words.titled("Admissible actions", *actions, more)


def _looked(found: list[Mapping[str, Any]]) -> Iterator[RenderableType]:
    """The entries that were thought of, with what became of them."""
    if found:
        shown = sum(one["shown"] for one in found)
        rows = [[words.name(one["id"]), _became(one), _similarity(one)] for one in found]
        yield words.table(("entry", "what became of it", "similarity"), rows, f"{shown} recalled of {len(found)} thought of")


def _became(one: Mapping[str, Any]) -> Text:
    if not one["shown"]:
        return words.said(one["why"])
    return Text(f"shown, {one['cut']} turns left out" if one["cut"] else "shown")


def _similarity(one: Mapping[str, Any]) -> Text:
    return words.figure(None if one["similarity"] is None else f"{one['similarity']:.3f}")
