"""An append-only JSONL file: one record a line, whole lines only, readable after a `kill -9`.

A line is written by one call and flushed to disk before `append` returns. A last line without its newline is what a killed
writer leaves, or one that is still writing: reading leaves it out and never changes the file. It was not acknowledged, so the
next `append` cuts it off, under the lock that every append holds on the file. Any other unreadable line is damage from outside:
it is named by file and line, and nothing is changed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from agentevolve.protocols import AgentevolveError
from agentevolve.redact import redacted
from agentevolve.run.lock import hold
from agentevolve.whole import write_whole

CHUNK = 4_096


class Journal:
    """The journal at `path`, which need not exist yet; a new one begins with `opening`, if given.

    Appending is safe from any number of threads and processes.
    """

    def __init__(self, path: Path, opening: dict[str, Any] | None = None) -> None:
        self.path = path
        self._opening = opening
        self._lock = threading.Lock()  # the lock on the file is not fair, and on Windows it is asked for but once a second

    def read(self) -> list[dict[str, Any]]:
        """Every whole line as a dict, in order.

        Raises AgentevolveError naming file and line when a line is not a JSON object.
        """
        return [self.parse(line, number) for number, line in enumerate(self.lines(), 1)]

    def lines(self) -> Iterator[bytes]:
        """Every whole line as it lies there, without its end, in order."""
        yield from (line[:-1] for line in io.BytesIO(self.whole()))

    def whole(self) -> bytes:
        """All whole lines as they lie there, with their ends.

        All is read at once: what another process cuts off meanwhile, a torn line, must not be read half.
        """
        try:
            data = self.path.read_bytes() if self.path.is_file() else b""
        except OSError as error:
            raise AgentevolveError(f"{self.path}: cannot read: {error.strerror or error}") from None
        return data if data.endswith(b"\n") else data[: data.rfind(b"\n") + 1]

    def parse(self, line: bytes, number: int) -> dict[str, Any]:
        """The line of that number as a dict. Raises AgentevolveError naming file and line when it is not a JSON object."""
        try:
            record = loaded(line)
        except ValueError as error:
            raise self._damage(number, str(error)) from None
        if not isinstance(record, dict):
            raise self._damage(number, "not a JSON object")
        return record

    def append(self, *records: dict[str, Any]) -> list[bytes]:
        """Append the records, all or none of them, and wait until they are on disk; the lines as they lie there."""
        return self.put(*records)[1]

    def put(self, *records: dict[str, Any]) -> tuple[int, list[bytes]]:
        """As `append`; besides the lines, the byte at which the first of them begins."""
        with self._lock:
            try:
                return self._write(records)
            except OSError as error:
                raise AgentevolveError(f"{self.path}: cannot write: {error.strerror or error}") from None

    def rewrite(self, records: Sequence[dict[str, Any]]) -> None:
        """Put these records in the place of all that is there, whole or not at all. Only for who holds the folder."""
        write_whole(self.path, b"".join(encoded(redacted(record)) for record in records))

    def _write(self, records: Sequence[dict[str, Any]]) -> tuple[int, list[bytes]]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            hold(descriptor, wait=True)
            size = _whole(descriptor)
            opening = [self._opening] if self._opening and not size else []
            lines = [encoded(redacted(record)) for record in [*opening, *records]]
            _append(descriptor, b"".join(lines), size)
        finally:
            os.close(descriptor)
        return size + sum(map(len, lines[: len(opening)])), lines[len(opening) :]

    def _damage(self, number: int, why: str) -> AgentevolveError:
        return AgentevolveError(
            f"{self.path}:{number}: not a journal line ({why}); nothing was changed, every other line is kept"
        )


def loaded(line: bytes | str) -> Any:
    """The JSON value, by pydantic's parser in a third of the time; what that does not take, such as half a surrogate pair, by
    Python's. Raises ValueError."""
    try:
        return from_json(line)
    except ValueError:
        return json.loads(line)


def encoded(record: dict[str, Any]) -> bytes:
    """The record as a line, with its end; nothing is hidden in it."""
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    return f"{text}\n".encode("utf-8", "backslashreplace")


def _whole(descriptor: int) -> int:
    """How long the file is without a torn last line, which is cut off; looked for from the file's end."""
    size = end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - CHUNK)
        os.lseek(descriptor, start, os.SEEK_SET)
        found = os.read(descriptor, end - start).rfind(b"\n") + 1
        end = start + found
        if found:
            break
    if end < size:
        os.ftruncate(descriptor, end)
    return end


def _append(descriptor: int, data: bytes, size: int) -> None:
    """Write all of the data behind the file's `size` bytes, or none of it, and wait until it is on disk."""
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):  # a device cannot be cut
            os.ftruncate(descriptor, size)
        raise
