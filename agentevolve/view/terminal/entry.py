"""An entry's page: its text, what it was worth, and the attempts that it came from and was shown to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.text import Text
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import DataTable, Static

from agentevolve.view.templates import count
from agentevolve.view.terminal import words
from agentevolve.view.terminal.page import Page
from agentevolve.view.terminal.turns import Replay


class Entry(Page):
    """One entry of a memory: its text, and below it the attempts that it came from and was shown to; Enter opens one."""

    def __init__(self, run: str, id: str, seed: int) -> None:
        super().__init__()
        self.of, self.entry, self.seed = run, id, seed

    def body(self) -> Iterable[Widget]:
        """The text, and the attempts."""
        yield VerticalScroll(Static(id="figures"), id="text")
        yield DataTable(id="links", cursor_type="row")

    async def on_mount(self) -> None:
        """The columns of the attempts."""
        table = self.query_one(DataTable)
        for one in ("", "attempt", "at", "outcome", "similarity", "tokens"):
            table.add_column(words.name(one))
        table.focus()

    def ask(self) -> dict[str, Any]:
        """The entry."""
        return self.pages.entry(self.of, {"id": self.entry, "seed": str(self.seed)})

    def tell(self) -> None:
        """Show it."""
        row = self.values["row"]
        self.where(words.name(row["id"], "bold"), words.name(row["state"], "" if row["state"] == "there" else words.ODD))
        self.query_one("#figures", Static).update(words.lines(*_entry(self.values)))
        table = self.query_one(DataTable)
        at = table.cursor_row
        table.clear()
        for what, one in self._links():
            table.add_row(*_link(what, one))
        table.move_cursor(row=at)

    def _links(self) -> list[tuple[str, dict[str, Any]]]:
        came, went = self.values["sources"], self.values["uses"]
        return [("came from", one) for one in came] + [("shown to", one) for one in went]

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Open the attempt, if it is in this run."""
        _, one = self._links()[event.cursor_row]
        if one["outcome"]:
            self.app.push_screen(Replay(self.of, one["id"], self.seed, one.get("turn", 0)))


def _entry(values: Mapping[str, Any]) -> Iterator[Text | None]:
    row, entry, credit = values["row"], values["entry"], values["credit"]
    about = f", about {entry['task']}" if entry["task"] else ""
    yield words.said(f"{entry['kind']} of round {entry['round']}, {entry['env']}{about}, reward {entry['reward']:.2f}")
    if row["gone"] is not None:
        since = "in quarantine since" if row["state"] == "quarantined" else "retired in"
        yield words.said(f"{since} round {row['gone']}: {row['why']}", words.ODD)
    if row["state"] == "set aside":
        yield Text("Your key has not signed it: it was edited, planted or brought from elsewhere. Nobody is shown it.", words.ODD)
    yield words.titled("Your note", words.said(row["note"]))
    yield words.titled("Found by", words.said(entry["key"]))
    yield words.titled("Shown as", words.cut(values["text"], "nothing"))
    yield words.titled("What it was worth", Text(_worth(credit)), *map(_gain, values["gains"]))
    yield words.titled("Learnt from in weights by", *(words.said(one) for one in values["adapters"]))
    shown = f", the first {len(values['uses'])} of them below" if row["uses"] > len(values["uses"]) else ""
    yield words.lines(Text(), Text(f"Shown to {count(row['uses'])} attempts{shown}."))


def _worth(credit: Mapping[str, Any]) -> str:
    if not credit["uses"]:
        return "It was not yet used on a task that was also tried without it."
    solved = f"{credit['solved']} of {credit['uses']} uses solved, without it {100 * credit['without']:.0f} %"
    harm = f"the chance that it does harm {100 * credit['harm']:.0f} %"
    return f"On tasks that were also tried without it: {solved}. Its gain is {credit['gain']:+.2f}, {harm}."


def _gain(one: Mapping[str, Any]) -> Text:
    return Text(f"written down after round {one['round']}: {one['gain']:+.2f}")


def _link(what: str, one: Mapping[str, Any]) -> list[Text]:
    at = "" if "turn" not in one else f"turn {one['turn']}" if one["turn"] else "start"
    similarity = f"{one['similarity']:.3f}" if one.get("similarity") is not None else "–"
    figures = (words.figure(similarity), words.figure(one.get("u_tokens")))
    return [Text(what), words.name(one["id"]), Text(at), words.badge(one["outcome"] or "not in this run"), *figures]
