"""Who wrote an entry: each line of a memory's journal that adds one carries a signature under a key that lies outside every run.

Only signed entries are recalled. What was edited, planted or copied from elsewhere is not signed by this user's key: it is set
aside, listed by `memory audit`, and taken in only when it is imported. A filter that looks at the text alone can prove nothing
(2606.12703). The limit: what a world says becomes part of attempts that we sign ourselves, so a signature vouches for who
wrote an entry, not for what is in it.
"""

from __future__ import annotations

import contextlib
import functools
import hmac
import json
import os
import secrets
from pathlib import Path
from typing import Any

from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry
from agentevolve.redact import redacted

VARIABLE = "AGENTEVOLVE_KEY_FILE"
SIZE = 32  # bytes of the key
_lent = b""  # another process's, on a node where the key itself does not lie


def line_of(entry: Entry, again: str = "") -> dict[str, Any]:
    """The journal's line that adds the entry, or says that it tells the same as the entry `again`: secrets hidden, signed."""
    return signed_line(hidden(entry), again)


def hidden(entry: Entry) -> dict[str, Any]:
    """The entry's fields as they are written, its secrets hidden."""
    return dict(redacted(entry.model_dump(mode="json", exclude_defaults=True)))


def signed_line(fields: dict[str, Any], again: str = "") -> dict[str, Any]:
    """As `line_of`, for the fields of an entry whose secrets are hidden."""
    about = {"op": "again", "id": again} if again else {"op": "add"}
    return {**about, "entry": fields, "signed": _signature(fields, again)}


def holds(line: dict[str, Any]) -> bool:
    """Whether the line that adds an entry was signed with this user's key and is still what was signed."""
    signed, again = line.get("signed"), str(line.get("id", ""))
    return isinstance(signed, str) and hmac.compare_digest(signed.encode(), _signature(line["entry"], again).encode())


def vouched_line(line: dict[str, Any]) -> dict[str, Any]:
    """A line that says something of an entry, secrets hidden, signed."""
    said = dict(redacted(line))
    return {**said, "signed": _spoken(said)}


def vouches(line: dict[str, Any]) -> bool:
    """Whether such a line was signed with this user's key and is still what was signed."""
    signed, said = line.get("signed"), {name: value for name, value in line.items() if name != "signed"}
    return isinstance(signed, str) and hmac.compare_digest(signed.encode(), _spoken(said).encode())


def signed(text: str) -> str:
    """The signature of `text` under this user's key."""
    key = _lent or _key(os.environ.get(VARIABLE))
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256").hex()


def lend_key() -> str:
    """The key, for a process of this user's elsewhere; never to be written down."""
    return (_lent or _key(os.environ.get(VARIABLE))).hex()


def use_key(key: str) -> None:
    """Sign in this process with a key that was lent, none if it is ""."""
    global _lent
    _lent = bytes.fromhex(key)


def key_file() -> Path:
    """Where the key lies: `$AGENTEVOLVE_KEY_FILE`, else in the user's data folder."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    import platformdirs

    return platformdirs.user_data_path("agentevolve") / "memory.key"


def _spoken(line: dict[str, Any]) -> str:
    return signed(json.dumps(line, sort_keys=True, separators=(",", ":")))


def _signature(fields: dict[str, Any], again: str) -> str:
    return signed(json.dumps([again, fields], sort_keys=True, separators=(",", ":")))


@functools.cache
def _key(named: str | None) -> bytes:
    """The key, by what the environment says of it: made at the first need, for this user's eyes only."""
    path = key_file()
    try:
        if not path.is_file():
            _make(path)
        key = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no key"
        raise AgentevolveError(f"{path}: cannot use the key that memories are signed with: {why}; set {VARIABLE}") from None
    if len(key) != SIZE:
        raise AgentevolveError(f"{path}: cannot use the key that memories are signed with: it is no key; set {VARIABLE}")
    return key


def _make(path: Path) -> None:
    """Write a new key, unless another process was quicker; it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(SIZE) + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(scratch, path)
    finally:
        scratch.unlink()
