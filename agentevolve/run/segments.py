"""The journal of a run: one stream of lines that lies in several files, so that nothing large is ever read or rewritten at once.

`journal.jsonl` is the first of them, `journal-000002.jsonl` the next. Only the last one is written; when it has grown beyond a
size it is closed for good by a line that names the next one, which is there by then: a kill leaves either none of both or a next
one that nobody reads yet. So a file that is missing is known to be, and a version that knows of no second file says that it does
not know the line, instead of taking the first file for all there is. No file is ever renamed: whoever reads the run by the name
of its first file finds it, whenever he looks.

A place in the journal is a byte in the stream, all files one after the other. That of a line never changes, since a file is read
only once the one before it is closed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from agentevolve.protocols import AgentevolveError
from agentevolve.run.journal import CHUNK, Journal

SEGMENT = 128 << 20  # bytes from which a file is closed
BLOCK = 8 << 20  # bytes that are read at once
CLOSING = b'{"kind":"segment",'  # how the line begins that closes a file


class Line(NamedTuple):
    """A line without its end, and the place in the journal at which it begins."""

    at: int
    text: bytes


class Segments:
    """The journal whose first file is `path`, there or not; each file begins with `opening`, if given.

    Appending is safe from any number of threads of one process, the one that holds the run's folder; reading at any time.
    """

    def __init__(self, path: Path, opening: dict[str, Any] | None = None, *, limit: int = SEGMENT) -> None:
        self.path, self.limit = path, limit
        self.rewritten = False  # whether places that were told before mean nothing any more
        self._opening = opening
        self._ends: list[int] = []  # of the files that are known to be closed
        self._known = 0  # the place before which it is known in which file each line lies
        self._last: Journal | None = None

    def paths(self) -> list[Path]:
        """The files, the one that is written last. Raises AgentevolveError naming one that is missing."""
        while self._closed(len(self._ends)):
            pass
        return [self._path(number) for number in range(len(self._ends) + 1)]

    def read(self) -> list[dict[str, Any]]:
        """Every whole line as a dict, in order, those that open and close a file among them.

        Raises AgentevolveError naming file and line when a line is not a JSON object, or a file that is missing.
        """
        return [self.parse(line) for line in self.lines()]

    def lines(self, start: int = 0, end: int | None = None) -> Iterator[Line]:
        """Every whole line from the place `start`, where one begins, to the place `end`, where one ends (None: all)."""
        while end is None or start < end:
            number = self._number(start)
            base, path = self._base(number), self._path(number)
            closed = self._closed(number)  # before its end is looked for: a closed one has all of its lines
            whole = self._ends[number] if closed else base + _whole(path)
            yield from _lines(path, start - base, (whole if end is None else min(end, whole)) - base, base)
            if not closed:
                return
            start = whole

    def line(self, at: int, size: int) -> bytes:
        """The `size` bytes from the place `at` on, which are within one file."""
        number = self._number(at)
        return _part(self._path(number), at - self._base(number), size)

    def parse(self, line: Line) -> dict[str, Any]:
        """The line as a dict. Raises AgentevolveError naming file and line when it is not a JSON object."""
        try:
            return Journal(self.path).parse(line.text, 0)
        except AgentevolveError:  # which line it is, is counted only for who is told
            path, number = self.whereabouts(line.at)
            return Journal(path).parse(line.text, number)

    def whereabouts(self, at: int) -> tuple[Path, int]:
        """The file and the number of the line that begins at this place."""
        number = self._number(at)
        path, base = self._path(number), self._base(number)
        return path, 1 + sum(1 for _ in _lines(path, 0, at - base, base))

    def size(self) -> int:
        """How many bytes of whole lines there are."""
        last = self.paths()[-1]
        return self._base(len(self._ends)) + _whole(last)

    def signs(self, done: int) -> list[tuple[int, str]]:
        """What tells this journal, up to the place `done`, from others: for each file its size and a digest of its last bytes."""
        self.paths()
        last = bisect_left(self._ends, done)
        ends = [*self._ends[:last], done]
        sizes = [end - self._base(number) for number, end in enumerate(ends)]
        return [(size, _digest(self._path(number), size)) for number, size in enumerate(sizes)]

    def written(self) -> tuple[int, int, int]:
        """What changes when the journal does: the first file's inode, bytes in all, and when the last was written, in ns."""
        paths = self.paths()
        about = paths[-1].stat()
        return paths[0].stat().st_ino, self._base(len(self._ends)) + about.st_size, about.st_mtime_ns

    def append(self, *records: dict[str, Any]) -> list[Line]:
        """Append the records, all or none of them, and wait until they are on disk; the lines as they lie there."""
        path = self.paths()[-1]
        if self._last is None or self._last.path != path:
            self._last = Journal(path, self._opening)
        start, texts = self._last.put(*records)
        lines, at = [], self._base(len(self._ends)) + start
        for text in texts:
            lines.append(Line(at, text[:-1]))
            at += len(text)
        self._known = at
        if at - self._base(len(self._ends)) >= self.limit:
            self._close(self._last)
        return lines

    def rewrite(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Put what `change` makes of each line in its place, each file whole or not at all. Only for who holds the folder.

        Places that were told before mean nothing any more.
        """
        self.rewritten = True
        for path in self.paths():
            journal = Journal(path)
            journal.rewrite([change(line) for line in journal.read()])
        self._ends.clear()
        self._known = 0

    def _close(self, journal: Journal) -> None:
        following = self._path(len(self._ends) + 1)
        Journal(following, self._opening).put()
        _sync(following.parent)
        journal.put({"kind": "segment", "next": following.name})

    def _path(self, number: int) -> Path:
        """The file of that number, from 0."""
        return self.path.with_stem(f"{self.path.stem}-{number + 1:06}") if number else self.path

    def _base(self, number: int) -> int:
        """The place at which the file of that number begins."""
        return self._ends[number - 1] if number else 0

    def _number(self, at: int) -> int:
        """The number of the file in which a line at this place lies."""
        while at >= self._known and self._closed(len(self._ends)):
            pass
        return bisect_right(self._ends, at)

    def _closed(self, number: int) -> bool:
        """Whether that file, no later one than the first that is not known to be, is closed."""
        if number < len(self._ends):
            return True
        path = self._path(number)
        end = _whole(path)
        self._known = self._base(number) + end
        last = _part(path, max(0, end - CHUNK), min(CHUNK, end))[:-1].rpartition(b"\n")[2]
        if not last.startswith(CLOSING):
            return False
        if not self._path(number + 1).is_file():
            raise AgentevolveError(f"{self._path(number + 1)}: missing: {path} ends with going on there; nothing was changed")
        self._ends.append(self._base(number) + end)
        return True


def _whole(path: Path) -> int:
    """How much of a file is whole lines, which a writer never changes again; 0 if it is none."""
    try:
        if not path.is_file():
            return 0
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                start = max(0, end - CHUNK)
                file.seek(start)
                found = file.read(end - start).rfind(b"\n") + 1
                if found:
                    return start + found
                end = start
    except OSError as error:
        raise _unread(path, error) from None
    return 0


def _lines(path: Path, start: int, end: int, base: int) -> Iterator[Line]:
    """The lines of a file from byte `start` to `end`; `base` is the place of its first one."""
    at, rest = start, b""
    while (left := end - at - len(rest)) > 0:
        block = _part(path, at + len(rest), min(BLOCK, left))
        if not block:
            raise AgentevolveError(f"{path}: was cut while it was read; look again")
        *whole, rest = (rest + block).split(b"\n")
        for text in whole:
            yield Line(base + at, text)
            at += len(text) + 1


def _part(path: Path, start: int, size: int) -> bytes:
    if not size:
        return b""
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(size)
    except OSError as error:
        raise _unread(path, error) from None


def _digest(path: Path, end: int) -> str:
    start = max(0, end - CHUNK)
    return hashlib.sha256(_part(path, start, end - start)).hexdigest()


def _sync(folder: Path) -> None:
    """Wait until the folder's list of files is on disk, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _unread(path: Path, error: OSError) -> AgentevolveError:
    return AgentevolveError(f"{path}: cannot read: {error.strerror or error}")
