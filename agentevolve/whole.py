"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
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
