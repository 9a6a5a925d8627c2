"""What is being paid for at this moment, so that a killed process has not spent it unnoticed.

Each call of a model is noted in `underway.jsonl` before it is sent, with what it may cost, and after it was answered, with what
it did cost. What the journal tells later, of an attempt or a question that was ended, replaces these notes; what it does not
tell when the run is opened again is journalled then: answered calls by their cost, those under way by what they might have cost.
Nothing is synced to disk: a killed process loses nothing that it has written, and the notes serve for that alone.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from pydantic import ValidationError

from agentevolve.records import Usage

NOTES = "underway.jsonl"
_doing: ContextVar[str] = ContextVar("doing", default="")


@contextmanager
def doing(name: str) -> Iterator[None]:
    """Whatever is called meanwhile, in this thread, is called for `name`: an attempt or a question, and which making of it."""
    before = _doing.set(name)
    try:
        yield
    finally:
        _doing.reset(before)


def task_under_way() -> str:
    """What is done now in this thread, without saying which sample or making of it: the phase and the task, or the question."""
    return _doing.get().rpartition("/")[0]


class Underway:
    """The notes in a run's folder. Safe to use from several threads; `begin` and `end` cost a small write each."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NOTES
        self._lock = threading.Lock()
        self._number = 0
        self._file: int | None = None

    def begin(self, tokens: int, usd: float) -> int | None:
        """Note a call that is about to be sent, with an upper estimate of its cost; None for one that belongs to nothing."""
        name = _doing.get()
        if not name:
            return None
        with self._lock:
            self._number += 1
            self._write({"call": self._number, "of": name, "tokens": tokens, "usd": usd})
            return self._number

    def end(self, call: int | None, usage: Usage) -> None:
        """Note what the call has cost."""
        if call is not None:
            with self._lock:
                self._write({"call": call, "usage": usage.model_dump(exclude_defaults=True)})

    def left(self) -> dict[str, Usage]:
        """What the notes of a process before this one say was spent, by what it was spent for; a damaged note says nothing."""
        calls: dict[int, tuple[str, Usage]] = {}
        for line in self._lines():
            try:
                note = json.loads(line)
                if "of" in note:
                    held = Usage(calls=1, prompt_tokens=note["tokens"], estimated=note["tokens"], usd=note["usd"])
                    calls[note["call"]] = (note["of"], held)
                elif note["call"] in calls:
                    calls[note["call"]] = (calls[note["call"]][0], Usage.model_validate(note["usage"]))
            except (ValueError, KeyError, TypeError, ValidationError):
                continue
        found: dict[str, Usage] = {}
        for name, usage in calls.values():
            found[name] = found.get(name, Usage()) + usage
        return found

    def close(self) -> None:
        """Forget the notes that were made here: the journal tells everything. Those of a process before this one stay."""
        if self._file is not None:
            self.clear()

    def clear(self) -> None:
        """Forget all notes."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None
            self._path.unlink(missing_ok=True)

    def _lines(self) -> list[bytes]:
        return self._path.read_bytes().splitlines() if self._path.is_file() else []

    def _write(self, note: dict[str, object]) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(self._file, json.dumps(note, separators=(",", ":")).encode() + b"\n")
