"""What happens within an attempt, told as spans to who listens. Nobody does until `listen` is called (doors/traces.py).

    with span("chat", request=request) as told:
        …
        told.set(usage=usage)

The kinds are named as OpenTelemetry's conventions for GenAI name operations; the facts are whatever is at hand, as it is: what
becomes of them is the listener's to say. A span that nobody listens to costs a look at one name.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol

Kind = Literal["invoke_agent", "chat", "execute_tool", "search_memory", "create_memory"]


class Span(Protocol):
    """Something that goes on, from entering to leaving; an exception that leaves it is how it ended."""

    def __enter__(self) -> Span:
        """It begins."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """It ends."""

    def set(self, **facts: Any) -> None:
        """Add what is known by now."""


class _Unheard:
    """The span that nobody listens to."""

    def __enter__(self) -> Span:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def set(self, **facts: Any) -> None:
        """Told to nobody."""


class Ear(NamedTuple):
    """How another process of the run is heard too: by a module with `start_when_asked` and `stop`, under these variables."""

    module: str
    environment: dict[str, str]


Listener = Callable[[Kind, dict[str, Any]], Span]
_UNHEARD = _Unheard()
_listener: Listener | None = None
_ear: Ear | None = None


def listen(listener: Listener | None, ear: Ear | None = None) -> None:
    """From now on tell `listener` of every span: its kind and facts; None: tell nobody. `ear` is how others are heard."""
    global _listener, _ear
    _listener, _ear = listener, ear or (_ear if listener else None)


def ear() -> Ear | None:
    """How another process of the run is heard as this one is; None if it is not to be."""
    return _ear


def lend(ear: Ear) -> Callable[[], None]:
    """Let this process be heard as the one is that `ear` came from, until the function that comes back is called.

    A variable that is set here already stays.
    """
    for name, value in ear.environment.items():
        os.environ.setdefault(name, value)
    module = importlib.import_module(ear.module)
    module.start_when_asked()
    return module.stop  # type: ignore[no-any-return]


def span(kind: Kind, **facts: Any) -> Span:
    """A span of that kind, to be entered at once."""
    return _listener(kind, facts) if _listener else _UNHEARD
