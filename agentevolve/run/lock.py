"""One writer a folder: a lock that the operating system holds, and that ends with the process however that ends.

The file `lock` is in a folder only while somebody writes there, or was killed there. Readers never look at it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import weakref
from pathlib import Path
from typing import Self

from agentevolve.protocols import AgentevolveError

LOCK = "lock"
HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)  # what the systems say of a file that somebody else has locked
DIGITS = b"0123456789"
FAR = 1 << 30  # Windows hides a locked byte from everybody, and who holds the lock is to be read


class Lock:
    """A folder that is this process's to write in, until `release`, or until nobody holds this any more."""

    def __init__(self, path: Path, descriptor: int, made: bool) -> None:
        self._end = weakref.finalize(self, _let_go, path, descriptor, made, os.getpid())
        self._end.atexit = False

    def release(self) -> None:
        """Let others write; a folder that was made for the lock and got nothing goes too. Releasing twice is allowed."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lock(folder: Path) -> Lock:
    """Make `folder`, which need not be there, this process's to write in.

    Raises AgentevolveError when it cannot be written, and, naming the process, when it is in use, be it by this one.
    """
    path, made = folder / LOCK, not os.path.lexists(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _signed(path, made)
    except OSError as error:
        raise AgentevolveError(f"{folder}: cannot write: {error.strerror or error}") from None


def hold(descriptor: int, *, wait: bool) -> None:
    """Lock an open file until it is closed. Raises OSError if somebody else holds it, or, with `wait`, waits."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _let_go(path: Path, descriptor: int, made: bool, owner: int) -> None:
    ours = owner == os.getpid()  # in a fork of the process that holds it, the file is not ours to remove
    with contextlib.suppress(OSError):  # Windows removes no open file: it stays there, and locks nothing
        if ours:
            path.unlink()
    os.close(descriptor)
    with contextlib.suppress(OSError):
        if ours and made:
            path.parent.rmdir()


def _signed(path: Path, made: bool) -> Lock:
    """The lock, with a file that says whose it is; if that cannot be written, there is none."""
    descriptor = _locked(path)
    held = Lock(path, descriptor, made)
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    except BaseException:
        held.release()
        raise
    return held


def _locked(path: Path) -> int:
    """The lock file, open and locked; tried again if its last holder removed it meanwhile."""
    while True:
        # a link is not followed: what it leads to is not ours to write
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            _take(descriptor, path)
            if os.read(descriptor, 100).strip(DIGITS):
                raise AgentevolveError(f"{path}: in the way: a file of somebody else's; move it, or name another folder")
            if _there(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _take(descriptor: int, path: Path) -> None:
    try:
        hold(descriptor, wait=False)
    except OSError as error:
        if error.errno in HELD:
            raise AgentevolveError(
                f"{path.parent}: in use by {_holder(descriptor)}; one process at a time writes there"
            ) from None
        raise


def _there(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    """Whoever has written that it holds the lock: its number, and its command line where the system tells it."""
    said = os.read(descriptor, 20).decode("ascii", "replace")
    if not said.isdecimal():  # it has only just taken the lock
        return "another process"
    if int(said) == os.getpid():
        return f"this process ({said}) already"
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{said}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        return f"process {said} ({''.join(sign for sign in command[:200] if sign.isprintable())})"
    return f"process {said}"
