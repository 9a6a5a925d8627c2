"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from agentevolve.protocols import AgentevolveError


def write_whole(path: Path, content: bytes | str) -> Path:
    """Write the file, and its folder if need be; until it is whole the one before it stands.

    Raises AgentevolveError, one line, when it cannot be written.
    """
    scratch = path.with_name(f".{path.name}.partial")
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(data)
        scratch.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise AgentevolveError(f"{path}: cannot write: {error.strerror or error}") from None
    return path


def write_folder(out: Path, files: Iterable[tuple[str, str]]) -> Path:
    """Write the files, each a name within the folder and what it holds, into the new folder `out`.

    Raises AgentevolveError, one line, when it is there already or cannot be written.
    """
    if out.exists() or out.is_symlink():
        raise AgentevolveError(f"{out}: exists already; name a new folder with --out")
    scratch = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        for name, content in files:
            write_whole(scratch / name, content)
        scratch.rename(out)
    except OSError as error:
        raise AgentevolveError(f"{out}: cannot write: {error.strerror or error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return out
