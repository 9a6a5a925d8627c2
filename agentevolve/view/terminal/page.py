"""What all screens are: a line that says what is shown, a body, keys; read in a thread, and again while a run is under way."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import DataTable, Footer, OptionList, Static

from agentevolve.protocols import AgentevolveError
from agentevolve.view import places
from agentevolve.view.pages import Pages
from agentevolve.view.terminal import words

if TYPE_CHECKING:
    from agentevolve.view.terminal.app import Inspector

LOOK = 1.0  # seconds between two looks at a run that is under way
KEYS = """\
j k    next, previous turn; in a list the next, previous row
[ ]    the attempt before, after at this task; in a list the first, next page
Enter  open the row
u      up
v      mark an attempt; on a second one: both side by side
a m p  the attempts, the memory, the policies of a run
/      to the search; Enter looks, Esc goes back to the list
f      to the filter; Enter chooses a value, or no longer
Space  on in a long text; Backspace back
?      this help; Esc closes it
q      leave"""


class Page(Screen[None]):
    """A screen whose values come from the inspector's pages (`ask`) and are shown by `tell`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("u", "up", "up"),
        Binding("question_mark", "keys", "keys"),
        Binding("j", "walk(1)", show=False),
        Binding("k", "walk(-1)", show=False),
        Binding("space", "leaf(1)", show=False),
        Binding("backspace", "leaf(-1)", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, Any] = {}
        self.then = ""  # how far all runs had grown when the values were read

    def compose(self) -> ComposeResult:
        """The line, the body, the keys."""
        yield Static(id="said")
        yield from self.body()
        yield Footer()

    def body(self) -> Iterable[Widget]:
        """What stands between the line and the keys."""
        raise NotImplementedError

    def ask(self) -> dict[str, Any]:
        """The values, from the pages; called in a thread."""
        raise NotImplementedError

    def tell(self) -> None:
        """Show the values."""
        raise NotImplementedError

    @property
    def inspector(self) -> Inspector:
        """The application that this is a screen of."""
        return self.app  # type: ignore[return-value]

    @property
    def pages(self) -> Pages:
        """The inspector's pages."""
        return self.inspector.pages

    async def on_mount(self) -> None:
        """Show what there is, and look now and then whether there is more; after what a subclass does when it is mounted."""
        await self.read()
        self.set_interval(LOOK, self.look)

    async def on_screen_resume(self) -> None:
        """What happened while another screen was in front."""
        if self.values:
            await self.read()

    async def look(self) -> None:
        """Read again what somebody is writing, once there is more of it."""
        if self.is_current and await asyncio.to_thread(self._moved):
            await self.read()

    def _moved(self) -> bool:
        """Whether what was under way when it was read has been written in since, or is not under way any more."""
        listed = (one for name in ("runs", "comparisons", "memories") for one in self.values.get(name, ()) if "name" in one)
        told = [one for one in (self.values, *listed) if one.get("state") == "under way"]
        return bool(told) and (self.then != self.pages.grown("") or any(not self._under_way(one) for one in told))

    def _under_way(self, one: Mapping[str, Any]) -> bool:
        known = self.pages.places
        there = known.names() | known.comparisons() | known.memories()
        place = there.get(one.get("comparison") or one["name"])
        try:
            return place is not None and places.state(place) == "under way"
        except OSError:
            return False  # it was removed between two looks: reading says so

    async def read(self) -> bool:
        """Ask, and show what has changed; what goes wrong is said in the line. Whether all went well."""
        try:
            self.then, found = await asyncio.to_thread(lambda: (self.pages.grown(""), self.ask()))
        except (AgentevolveError, OSError, sqlite3.Error) as error:
            self.say(words.said(error, words.ODD))
            return False
        if found != self.values:  # what is as before stays as it is, with its cursor
            self.values = found
            self.tell()
        return True

    def say(self, text: Text) -> None:
        """Say that in the line above."""
        self.query_one("#said", Static).update(text)

    def where(self, *parts: Text | None) -> None:
        """Say above which run this is of, how it stands, and these."""
        self.say(words.beside(words.name(self.values["name"], "bold"), words.badge(self.values["state"]), *parts))

    def action_up(self) -> None:
        """To the screen that this one was opened from."""
        if len(self.app.screen_stack) > 1:
            self.app.pop_screen()

    def action_keys(self) -> None:
        """Show the keys."""
        self.app.push_screen(Keys())

    def action_walk(self, step: int) -> None:
        """The next or the previous row of the list that is in use, or the first list."""
        lists = [one for one in self.query("DataTable, OptionList") if isinstance(one, DataTable | OptionList)]
        if lists:
            used = next((one for one in lists if one.has_focus), lists[0])
            used.action_cursor_down() if step > 0 else used.action_cursor_up()

    def action_leaf(self, step: int) -> None:
        """On or back in a long text."""
        for one in self.query("#text").results(VerticalScroll):
            one.scroll_page_down(animate=False) if step > 0 else one.scroll_page_up(animate=False)


class Told(Page):
    """A screen that is one long text, `#figures`, about what has the name `of`."""

    def __init__(self, of: str) -> None:
        super().__init__()
        self.of = of

    def body(self) -> Iterable[Widget]:
        """A long text."""
        yield VerticalScroll(Static(id="figures"), id="text")


class Keys(ModalScreen[None]):
    """The keys, over the screen."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,u,enter", "dismiss", "close")]

    def compose(self) -> ComposeResult:
        """The list of keys."""
        yield Static(Text(KEYS), id="keys")
