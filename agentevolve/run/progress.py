"""Progress of long work, on stderr: a bar where there is a terminal, one line at the start and the end where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[str], None]


@contextmanager
def progress(what: str, total: int, *, quiet: bool = False) -> Iterator[Advance]:
    """Show `what` going from 0 to `total`; call the yielded function after each piece of work, with a short note."""
    if quiet or total == 0:
        yield lambda note: None
    elif sys.stderr.isatty():
        with _bar(what, total) as advance:
            yield advance
    else:
        yield from _lines(what, total)


@contextmanager
def _bar(what: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    left = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
    )
    with Progress(*left, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(escape(what), total=total, note="")
        yield lambda note: bar.update(task, advance=1, note=escape(note))


def _lines(what: str, total: int) -> Iterator[Advance]:
    began, last = time.monotonic(), ""

    def advance(note: str) -> None:
        nonlocal last
        last = note

    print(f"{what} (0/{total}) …", file=sys.stderr, flush=True)
    yield advance
    print(f"{what} ({total}/{total}) done in {time.monotonic() - began:.0f} s {last}", file=sys.stderr, flush=True)
