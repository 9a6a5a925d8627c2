"""Two attempts side by side, turn by turn, with what differs first; what they were shown at the start, word by word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agentevolve.view.templates import count
from agentevolve.view.terminal import words
from agentevolve.view.terminal.turns import Turns

PROMPTS = {"system": "House rules", "demos": "Recalled attempts", "context": "Recalled text", "prompt": "Prompt"}


class Compare(Turns):
    """Two attempts side by side, from their first difference on."""

    def __init__(self, run: str, one: tuple[str, int], other: tuple[str, int]) -> None:
        super().__init__(run, -1)  # until the first difference is known
        self.both = one, other

    def ask(self) -> dict[str, Any]:
        """Both, with the turns around the one that is shown."""
        (a, seed_a), (b, seed_b) = self.both
        turn = {"turn": str(max(1, self.turn))} if self.turn >= 0 else {}
        return self.pages.compare(self.of, {"a": a, "seed_a": str(seed_a), "b": b, "seed_b": str(seed_b), **turn})

    def tell(self) -> None:
        """Show the turn of both."""
        apart, steps = self.values["apart"], self.values["steps"]
        self.turn = (apart or 0) if self.turn < 0 else self.turn
        self.where(Text(_differs(self.values["differs"], apart)))
        listed = [self.step(0, Text("≠", words.ODD) if self.values["differs"] == 0 else None)]
        listed += [self.step(one["number"], self._sign(one)) for one in steps]
        if self.turn:
            text = self._turn(next(one for one in steps if one["number"] == self.turn))
        else:
            text = _prompts(self.values["prompts"])
        self.show(listed, Group(_sides(map(_side, self.values["rows"])), *text))

    def _sign(self, one: Mapping[str, Any]) -> Text:
        """Whether the turn is the same for both; if not, in what, and whether it is the first such turn."""
        if one["number"] in self.values["same"]:
            return Text("the same", words.DIM)
        differs = "another action" if _other_action(one["sides"]) else "came back otherwise"
        first = one["number"] == self.values["apart"]
        return Text(f"≠ first: {differs}", words.ODD) if first else Text(f"≠ {differs}")

    def _turn(self, one: Mapping[str, Any]) -> Iterator[RenderableType]:
        yield words.beside(Text(f"Turn {one['number']}", words.TITLE), self._sign(one))
        yield Text()
        yield _sides(_acted(side, _other_action(one["sides"])) for side in one["sides"])


def _other_action(sides: Sequence[Mapping[str, Any] | None]) -> bool:
    one, other = (side and side["action"] for side in sides)
    return one != other


def _differs(differs: int | None, apart: int | None) -> str:
    if differs is None:
        return "They are the same, turn by turn."
    if differs == 0:
        return "They differ from the start: in what they were shown" + (f"; then first at turn {apart}." if apart else ".")
    return f"The same until turn {apart}, where they differ first."


def _sides(texts: Iterable[Text]) -> Table:
    made = Table.grid(expand=True, padding=(0, 2, 0, 0))
    made.add_column(ratio=1, overflow="fold")
    made.add_column(ratio=1, overflow="fold")
    made.add_row(*texts)
    return made


def _side(row: Mapping[str, Any]) -> Text:
    of = f", round {row['round']}" if row["round"] is not None else ""
    about = f"reward {row['reward']:.2f}, {row['turns']} turns, {row['recalled']} recalled; {row['arm']}{of}"
    return words.lines(words.said(row["id"], "bold"), words.badge(row["outcome"]), words.said(about), Text())


def _acted(side: Mapping[str, Any] | None, differs: bool) -> Text:
    """What one of the two did at a turn; an action that the other did not do stands out."""
    if side is None:
        return Text("ended before", words.DIM)
    action = words.cut(side["action"])
    action.stylize("bold reverse" if differs else "bold")
    came, reward = words.cut(side["observation"], "nothing came back"), Text(f"reward {side['reward']:.2f}", words.DIM)
    return words.lines(words.beside(Text("> "), action, between=""), Text(), came, Text(), reward)


def _prompts(prompts: Mapping[str, Mapping[str, Any]]) -> Iterator[RenderableType]:
    """What both were shown at the start, word by word where it differs."""
    for what, one in prompts.items():
        if one["empty"]:
            continue
        more = Text(f"and {count(one['more'])} more characters", words.DIM) if one["more"] else None
        shown = words.cut(one["text"]) if one["same"] else words.changed(one["parts"])
        yield words.titled(PROMPTS[what] + (", the same for both" if one["same"] else ""), shown, more) or Text()
