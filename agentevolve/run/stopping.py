"""How a command ends when the user asks for it: one line at once, nothing new begun, the turns under way ended or given up.

Ctrl-C and SIGTERM mean the same. What is lost by an end is what a `kill -9` would lose, and that is nothing: so whatever does not
end in time, and everything at a second Ctrl-C, is simply ended, with all processes that were started.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

PATIENCE = 5.0  # seconds for what is under way
CODE = 130
LINE = b"stopping: what is done is kept, the turns under way are ended; once more ends at once\n"


def end_on_signals() -> None:
    """From now on Ctrl-C and SIGTERM raise KeyboardInterrupt in the main thread, and the process ends soon after."""
    signal.signal(signal.SIGINT, _first)
    signal.signal(signal.SIGTERM, _first)


def _first(number: int, frame: FrameType | None) -> None:
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, _second)
    os.write(2, LINE)  # not print: whatever is being written at this moment may hold its lock
    timer = threading.Timer(PATIENCE, end_now)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


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
