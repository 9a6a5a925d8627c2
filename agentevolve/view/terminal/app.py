"""The terminal application: which screen comes first, and which attempt is marked."""

from __future__ import annotations

from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import Screen

from agentevolve.view.pages import Pages
from agentevolve.view.terminal.compare import Compare
from agentevolve.view.terminal.runs import Runs, first

STYLE = """
#said { padding: 0 1; background: $panel; height: auto; max-height: 6; }
#search { height: 1; }
#facets { width: 28; height: 1fr; border: none; }
.-narrow #facets { display: none; }
.-narrow.asked #facets { display: block; }
#list { width: 1fr; height: 1fr; }
#steps { width: 30; height: 1fr; padding: 0 1; }
#text { width: 1fr; height: 1fr; padding: 0 1; }
#text Static { height: auto; }
#verdicts { padding: 0 1; height: auto; max-height: 8; }
#links { height: auto; max-height: 50%; }
Keys { align: center middle; }
#keys { width: auto; height: auto; padding: 1 2; background: $panel; border: round $primary; }
"""


class Inspector(App[None]):
    """The inspector of the runs in `pages`; it begins with the list of them, or with the one that there is."""

    CSS = STYLE
    TITLE = "agentevolve"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012  (declared so by Textual)
    BINDINGS: ClassVar[list[BindingType]] = [Binding("q", "quit", "leave")]

    def __init__(self, pages: Pages) -> None:
        super().__init__()
        self.pages = pages
        self.marked: tuple[str, str, int] | None = None  # the run, the attempt, its seed

    def get_default_screen(self) -> Screen[None]:
        """The first screen."""
        known = self.pages.places
        compared, names, alone = known.comparisons(), known.names(), known.memories()
        there = [("comparison", one) for one in compared] + [("memory", one) for one in alone]
        there += [("run", one) for one in names if not known.comparison_of(names[one])]
        return first(*there[0]) if len(there) == 1 else Runs()

    def mark(self, run: str, id: str, seed: int) -> None:
        """Mark an attempt, or no longer; where another one of the run is marked, show the two side by side."""
        before, one = self.marked, (run, id, seed)
        self.marked = None
        if before is not None and before[0] == run and before != one:
            self.push_screen(Compare(run, before[1:], one[1:]))
        elif before != one:
            self.marked = one
            self.notify("marked: v on another attempt shows the two side by side", markup=False)
        else:
            self.notify("no longer marked", markup=False)
