"""What a call that gave no answer means: to be tried again, this prompt's own, a parameter's, or the user's to mend."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from agentevolve.redact import redact

SHOWN = 300  # characters of a backend's own words
CREDIT = re.compile(
    r"insufficient[_ ](?:quota|credit|balance|funds)|exceeded your current quota|credit balance|out of credits?|payment required"
    r"|billing[_ ](?:hard[_ ])?limit|negative balance|add (?:more )?credits?",
    re.IGNORECASE,
)
MODERATED = re.compile(r"moderat|flagged|content[_ ](?:policy|filter)|safety|violat|prohibited|blocked by", re.IGNORECASE)
UNREADABLE = re.compile(
    r"invalid response object|empty or invalid response|unable to get json response|exception - error - ", re.IGNORECASE
)

Kind = Literal["passing", "lasting", "forbidden", "mend"]


class Trouble(NamedTuple):
    """Why a call gave no answer.

    `kind`: passing (try again), lasting (this request will not do), forbidden (a 403: this prompt, or every one) or mend (the
    user's to mend: key, credit, address). `wait`: the seconds that the backend asks for. `answered`: it did answer, and
    presumably counted it, in a form that nobody can read.
    """

    kind: Kind
    status: int
    text: str
    wait: float | None = None
    answered: bool = False


def trouble(name: str, error: BaseException, missing_keys: list[str]) -> Trouble:
    """What `error`, raised by a call of the model `name`, means. `missing_keys` are environment variables that are not set."""
    status, said = _status(error), _said(error)
    line = f"{name}: {said}"
    if status in (401, 402) or (status in (400, 403, 429) and CREDIT.search(said)):
        return Trouble("mend", status, _to_mend(name, status, said, missing_keys))
    if missing_keys and status >= 500:
        return Trouble("mend", status, _refused(name, status, missing_keys))
    if status == 403:
        return Trouble("lasting" if MODERATED.search(said) else "forbidden", status, line)
    if status == 404:
        return Trouble("mend", status, f"{name}: the backend knows no such model or address (404)")
    unread = status == 200 or (status >= 500 and bool(UNREADABLE.search(said)))
    if status >= 500 or status in (0, 200, 408, 409, 425, 429):
        return Trouble("passing", status, line, _wait(error), unread)
    return Trouble("lasting", status, line)


def refused(name: str, status: int, missing_keys: list[str]) -> str:
    """The line for a backend that lets nobody in."""
    return _refused(name, status, missing_keys)


def _to_mend(name: str, status: int, said: str, missing_keys: list[str]) -> str:
    if status == 401 and not CREDIT.search(said):
        return _refused(name, status, missing_keys)
    return f"{name}: out of credit ({status}): {said[:SHOWN]}; add credit and give the same command again"


def _refused(name: str, status: int, missing_keys: list[str]) -> str:
    key = f"{', '.join(missing_keys)} is not set" if missing_keys else "check its API key"
    return f"{name}: the backend refused access ({status}): {key}"


def _said(error: BaseException) -> str:
    """The error on one line, short and without any secret that the backend may have echoed."""
    return redact(" ".join(str(error).split()))[:SHOWN] or type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int:
    """The HTTP status; 0 where there was none. LiteLLM stumbles over some answers: then an error before its own knows."""
    for one in _chain(error):
        if isinstance(status := getattr(one, "status_code", None), int):
            return status
    return 0


def _wait(error: BaseException) -> float | None:
    """What `Retry-After` says, in seconds or as a date."""
    for one in _chain(error):
        headers: Mapping[str, Any] = getattr(getattr(one, "response", None), "headers", None) or {}
        if text := str(headers.get("retry-after") or ""):
            return _seconds(text)
    return None


def _seconds(text: str) -> float | None:
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
