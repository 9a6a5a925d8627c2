"""What every environment's `check` asks of a task set's settings."""

from __future__ import annotations

from typing import Any

from agentevolve.protocols import AgentevolveError


def read_settings(data: dict[str, Any], defaults: dict[str, Any]) -> tuple[Any, ...]:
    """The settings in the order of `defaults`, which fill in what `data` leaves out.

    Raises AgentevolveError for a key that `defaults` has not.
    """
    if unknown := sorted(set(data) - set(defaults)):
        raise AgentevolveError(f"settings: unknown key {unknown[0]!r}; known: {', '.join(defaults)}")
    return tuple((defaults | data).values())


def check_limit(limit: Any, most: int | None = None) -> None:
    """Raise AgentevolveError unless `limit` is a number of turns; with `most`, of actions, and no more than that."""
    if type(limit) is not int or not 1 <= limit <= (most or limit):
        wanted = f"actions from 1 to {most}" if most else "turns from 1"
        raise AgentevolveError(f"settings.limit: {limit!r} is not a whole number of {wanted}")
