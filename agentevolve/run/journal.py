"""An append-only JSONL file: one record a line, whole lines only, readable after a `kill -9`.

A line is written by one call and flushed to disk before `append` returns. A last line without its newline is what a killed
writer leaves: it was never acknowledged, so opening the journal for writing cuts it off. Any other unreadable line is damage
from outside: it is named by file and line, and nothing is changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from agentevolve.protocols import AgentevolveError
from agentevolve.redact import redacted


class Journal:
    """The journal at `path`, which need not exist yet. Appending is safe from several threads of one process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._repaired = False

    def read(self) -> list[dict[str, Any]]:
        """Every whole line as a dict, in order.

        Raises AgentevolveError naming file and line when a line is not a JSON object.
        """
        return [self._parse(line, number) for number, line in enumerate(self._lines(), 1)]

    def append(self, *records: dict[str, Any]) -> None:
        """Append the records, all or none of them, and wait until they are on disk."""
        text = "".join(json.dumps(redacted(record), ensure_ascii=False, separators=(",", ":")) + "\n" for record in records)
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            try:
                self._write(data)
            except OSError as error:
                raise AgentevolveError(f"{self.path}: cannot write: {error.strerror or error}") from None

    def _write(self, data: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        descriptor = os.open(self.path, flags, 0o644)
        try:
            if not self._repaired:
                self._cut_torn_line(descriptor)
            size = os.fstat(descriptor).st_size
            try:
                while data:
                    data = data[os.write(descriptor, data) :]
                os.fsync(descriptor)
            except OSError:
                with contextlib.suppress(OSError):  # a device cannot be cut
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)

    def _cut_torn_line(self, descriptor: int) -> None:
        whole = sum(len(line) + 1 for line in self._lines())
        if os.fstat(descriptor).st_size > whole:
            os.ftruncate(descriptor, whole)
        self._repaired = True

    def _lines(self) -> list[bytes]:
        if not self.path.is_file():
            return []
        return self.path.read_bytes().split(b"\n")[:-1]

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except ValueError as error:
            raise self._damage(number, str(error)) from None
        if not isinstance(record, dict):
            raise self._damage(number, "not a JSON object")
        return record

    def _damage(self, number: int, why: str) -> AgentevolveError:
        return AgentevolveError(
            f"{self.path}:{number}: not a journal line ({why}); nothing was changed, every other line is kept"
        )
