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


def check_kinds(data: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raise AgentevolveError for a setting of another kind than its default."""
    for name, default in defaults.items():
        if type(data.get(name, default)) is not type(default):
            raise AgentevolveError(f"settings.{name}: {data[name]!r} is not a {type(default).__name__}")


def check_scale(scale: list[Any]) -> None:
    """Raise AgentevolveError unless `scale` is two numbers, the lower one first."""
    if len(scale) != 2 or not all(type(end) in (int, float) for end in scale) or not scale[0] < scale[1]:
        raise AgentevolveError(f"settings.scale: {scale!r} is not [low, high] with low < high")


def check_limit(limit: Any, most: int | None = None) -> None:
    """Raise AgentevolveError unless `limit` is a number of turns; with `most`, of actions, and no more than that."""
    if type(limit) is not int or not 1 <= limit <= (most or limit):
        wanted = f"actions from 1 to {most}" if most else "turns from 1"
        raise AgentevolveError(f"settings.limit: {limit!r} is not a whole number of {wanted}")
