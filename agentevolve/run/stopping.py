"""How a command ends when the user asks for it: one line at once, nothing new begun, the turns under way ended or given up.

Ctrl-C and SIGTERM mean the same. What is lost by an end is what a `kill -9` would lose, and that is nothing: so whatever does not
end in time, and everything at a second Ctrl-C, is simply ended, with all processes that were started.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE = 5.0  # seconds for what is under way
CODE = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)
LINE = b"stopping: what is done is kept, the turns under way are ended; once more ends at once\n"


class Ended(SystemExit):
    """Raised in the main thread when the user asks for an end."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Meanwhile Ctrl-C and SIGTERM raise `Ended` in the main thread, and the process ends soon after."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, _first) for one in SIGNALS}
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _first:  # else it ends, and a second signal ends it at once
            for one, handler in before.items():
                signal.signal(one, handler)


def _first(number: int, frame: FrameType | None) -> None:
    for one in SIGNALS:
        signal.signal(one, _second)
    os.write(2, LINE)  # not print: whatever is being written at this moment may hold its lock
    timer = threading.Timer(PATIENCE, end_now)
    timer.daemon = True
    timer.start()
    raise Ended(CODE)


def _second(number: int, frame: FrameType | None) -> None:
    end_now()


def end_now() -> None:
    """End this process, and those that it has started, without another word."""
    for one in _children():
        try:
            os.kill(one, signal.SIGKILL)
        except OSError:
            continue
    os._exit(CODE)


def _children() -> list[int]:
    """Every process below this one."""
    import psutil

    try:
        return [one.pid for one in psutil.Process().children(recursive=True)]
    except psutil.Error:
        return []
