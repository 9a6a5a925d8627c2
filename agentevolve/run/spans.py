"""What happens within an attempt, told as spans to who listens. Nobody does until `listen` is called (doors/traces.py).

    with span("chat", request=request) as told:
        …
        told.set(usage=usage)

The kinds are named as OpenTelemetry's conventions for GenAI name operations; the facts are whatever is at hand, as it is: what
becomes of them is the listener's to say. A span that nobody listens to costs a look at one name.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Protocol

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


Listener = Callable[[Kind, dict[str, Any]], Span]
_UNHEARD = _Unheard()
_listener: Listener | None = None


def listen(listener: Listener | None) -> None:
    """From now on tell `listener` of every span: its kind and facts; None: tell nobody."""
    global _listener
    _listener = listener


def span(kind: Kind, **facts: Any) -> Span:
    """A span of that kind, to be entered at once."""
    return _listener(kind, facts) if _listener else _UNHEARD
