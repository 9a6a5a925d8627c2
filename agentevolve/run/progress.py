"""Progress of long work, on stderr: a bar where there is a terminal, one line at the start and the end where there is none."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

Advance = Callable[[str], None]


@contextmanager
def progress(what: str, total: int, *, quiet: bool = False) -> Iterator[Advance]:
    """Show `what` going from 0 to `total`; call the yielded function after each piece of work, with a short note."""
    if quiet or total == 0:
        yield lambda note: None
    elif sys.stderr.isatty():
        with _bars.one(what, total) as advance:
            yield advance
    else:
        yield from _lines(what, total)


class _Bars:
    """The bars that are shown now: in one display, since two would write over each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._display: Progress | None = None
        self._shown = 0

    @contextmanager
    def one(self, what: str, total: int) -> Iterator[Advance]:
        """A bar below those that are there; all of them stay until the last has ended."""
        from rich.markup import escape

        with self._lock:
            if self._display is None:
                self._display = _display()
                self._display.start()
            self._shown += 1
            display = self._display
            bar = display.add_task(escape(what), total=total, note="")
        try:
            yield lambda note: display.update(bar, advance=1, note=escape(note))
        finally:
            with self._lock:
                display.stop_task(bar)
                self._shown -= 1
                if not self._shown:
                    display.stop()
                    self._display = None


_bars = _Bars()


def _display() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    left = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
    )
    return Progress(*left, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=Console(stderr=True))


def _lines(what: str, total: int) -> Iterator[Advance]:
    began, last = time.monotonic(), ""

    def advance(note: str) -> None:
        nonlocal last
        last = note

    print(f"{what} (0/{total}) …", file=sys.stderr, flush=True)
    yield advance
    print(f"{what} ({total}/{total}) done in {time.monotonic() - began:.0f} s {last}", file=sys.stderr, flush=True)
