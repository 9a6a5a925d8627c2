"""The lists of a run: attempts and entries with their filter, page by page. A list's state is the browser's query."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import DataTable, Input, OptionList
from textual.widgets.option_list import Option

from agentevolve.view.templates import count, seconds
from agentevolve.view.terminal import words
from agentevolve.view.terminal.entry import Entry
from agentevolve.view.terminal.page import Page
from agentevolve.view.terminal.turns import Replay


class Listed(Page):
    """A screen with a table; Enter opens a row."""

    COLUMNS: ClassVar[tuple[str, ...]] = ()

    @property
    def headings(self) -> Sequence[str]:
        """The columns' names."""
        return self.COLUMNS

    async def on_mount(self) -> None:
        """The keys go to the table."""
        self.table.focus()

    @property
    def table(self) -> DataTable[Text]:
        """The table."""
        return self.query_one("#list", DataTable)

    def rows(self) -> list[dict[str, Any]]:
        """The rows' values."""
        found: list[dict[str, Any]] = self.values.get("rows", [])
        return found

    def cells(self, one: dict[str, Any]) -> list[Text]:
        """The cells of a row."""
        raise NotImplementedError

    def open(self, one: dict[str, Any]) -> Page | None:
        """The screen of a row, if it has one."""
        raise NotImplementedError

    def fill(self) -> None:
        """Show the rows; the cursor stays where it was."""
        table = self.table
        at = table.cursor_row
        table.clear(columns=True)  # a column is as wide as it has to be for these rows
        rows = [self.cells(one) for one in self.rows()]
        for place, name in enumerate(self.headings):
            heading = words.name(name)
            if any(cell.justify == "right" for row in rows for cell in row[place : place + 1]):
                heading.justify = "right"  # as what is below it
            table.add_column(heading)
        for row in rows:
            table.add_row(*row)
        table.move_cursor(row=min(at, max(0, len(rows) - 1)))

    def current(self) -> dict[str, Any] | None:
        """The row at the cursor."""
        rows, at = self.rows(), self.table.cursor_row
        return rows[at] if at < len(rows) else None

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Open the row."""
        one = self.current()
        page = self.open(one) if one else None
        if page:
            self.app.push_screen(page)


class Filtered(Listed):
    """A list of a run with a search, facets and pages; `asked` is its query, as the browser's address has it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "search"),
        Binding("f", "facets", "filter"),
        Binding("left_square_bracket", "first", "first"),
        Binding("right_square_bracket", "next", "next"),
        Binding("escape", "list", show=False),
    ]

    def __init__(self, run: str) -> None:
        super().__init__()
        self.of, self.asked = run, dict[str, str]()
        self.choices: list[tuple[str, Any, bool] | None] = []

    def body(self) -> Iterable[Widget]:
        """The search, the facets, the table."""
        yield Input(id="search", placeholder="words to look for", compact=True)
        yield Horizontal(OptionList(id="facets"), DataTable(id="list", cursor_type="row"))

    def tell(self) -> None:
        """Show the filter in words, its facets, the rows."""
        self.where(words.said(self.values["said"]))
        self._offer()
        self.fill()

    def _offer(self) -> None:
        """Show the facets that have something to choose, each value with how often it is there."""
        offered = self.query_one("#facets", OptionList)
        at, options = offered.highlighted, []
        self.choices = []
        for facet, values in self.values["facets"].items():
            if len(values) > 1 or any(one["chosen"] for one in values):
                options.append(Option(Text(facet, words.TITLE), disabled=True))
                options += [Option(_value(one)) for one in values]
                self.choices += [None, *((facet, one["value"], one["chosen"]) for one in values)]
        offered.clear_options().add_options(options)
        offered.highlighted = at if at is not None and at < len(options) else None

    async def _look_for(self, asked: dict[str, str]) -> None:
        """Show what is asked for now; where that cannot be asked for, all stays and the line says why."""
        before, self.asked = self.asked, {key: value for key, value in asked.items() if value}
        if await self.read():
            self.table.move_cursor(row=0)
        else:
            self.asked = before

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Look for the words."""
        await self._look_for(self.asked | {"text": event.value.strip(), "after": ""})
        self.table.focus()

    async def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Choose a facet's value, or no longer."""
        if choice := self.choices[event.option_index]:
            facet, value, chosen = choice
            await self._look_for(self.asked | {facet: "" if chosen else str(value), "after": ""})

    def action_search(self) -> None:
        """To the search."""
        self.query_one("#search", Input).focus()

    def action_facets(self) -> None:
        """To the facets; a narrow screen shows them only now."""
        self.add_class("asked")
        self.query_one("#facets", OptionList).focus()

    def action_list(self) -> None:
        """Back to the list."""
        self.remove_class("asked")
        self.table.focus()

    async def action_first(self) -> None:
        """The first page."""
        await self._look_for(self.asked | {"after": ""})

    async def action_next(self) -> None:
        """The next page, if there is one."""
        if self.values.get("next"):
            await self._look_for(dict(parse_qsl(self.values["next"])))


class Attempts(Filtered):
    """The attempts of a run."""

    COLUMNS = ("", "attempt", "outcome", "reward", "turns", "tokens", "time", "recalled", "lost because")
    BINDINGS: ClassVar[list[BindingType]] = [Binding("v", "mark", "mark")]

    async def on_screen_resume(self) -> None:
        """An attempt may have been marked meanwhile."""
        self.fill()

    def ask(self) -> dict[str, Any]:
        """A page of them."""
        return self.pages.attempts(self.of, self.asked)

    def cells(self, one: dict[str, Any]) -> list[Text]:
        """An attempt; its seed where there are several."""
        mark = Text("●" if self.inspector.marked == (self.of, one["id"], one["seed"]) else " ", "bold cyan")
        seed = f" seed {one['seed']}" if len(self.values["seeds"]) > 1 else ""
        figures = (f"{one['reward']:.2f}", one["turns"], count(one["tokens"]), seconds(one["took"]), one["recalled"])
        id = words.beside(words.name(one["id"]), Text(seed, words.DIM), between="")
        return [mark, id, words.badge(one["outcome"]), *map(words.figure, figures), words.name(one["error"], words.ODD)]

    def open(self, one: dict[str, Any]) -> Page:
        """The attempt, turn by turn."""
        return Replay(self.of, one["id"], one["seed"])

    def action_mark(self) -> None:
        """Mark the attempt at the cursor, or compare it with the marked one."""
        if one := self.current():
            self.inspector.mark(self.of, one["id"], one["seed"])
            self.fill()


class Memory(Filtered):
    """What a run remembers."""

    COLUMNS = ("entry", "kind", "state", "round", "reward", "uses", "gain", "your note", "text")

    @property
    def headings(self) -> Sequence[str]:
        """Your notes have a column where there are any."""
        return [name for name in self.COLUMNS if name != "your note" or self._noted()]

    def _noted(self) -> bool:
        return any(one["note"] for one in self.rows())

    def ask(self) -> dict[str, Any]:
        """A page of the entries."""
        return self.pages.memory(self.of, self.asked)

    def cells(self, one: dict[str, Any]) -> list[Text]:
        """An entry with the start of its text; its seed where there are several."""
        seed = f" seed {one['seed']}" if len(self.values["seeds"]) > 1 else ""
        gain = f"{one['gain']:+.2f}" if one["gain"] else "–"
        figures = (one["round"], f"{one['reward']:.2f}", count(one["uses"]), gain)
        id = words.beside(words.name(one["id"]), Text(seed, words.DIM), between="")
        note = [words.name(one["note"], "italic")] if self._noted() else []
        about = [id, words.name(one["kind"]), words.name(one["state"])]
        return [*about, *map(words.figure, figures), *note, words.name(one["start"])]

    def open(self, one: dict[str, Any]) -> Page:
        """The entry's page."""
        return Entry(self.of, one["id"], one["seed"])


def _value(one: dict[str, Any]) -> Text:
    """A facet's value with how often it is there."""
    sign = Text("✓ " if one["chosen"] else "  ")
    return words.beside(sign, words.name(one["value"], wide=22), Text(f" {count(one['count'])}", words.DIM), between="")
