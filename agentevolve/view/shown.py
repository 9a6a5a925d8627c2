"""Attempts as pages show them: turn by turn, long texts cut with how much is left out, and two attempts beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentevolve.records import Looked, Trajectory, Turn
from agentevolve.view.text import differences

TURNS = 20  # of one page
LONG, LONGER = 8_000, 20_000  # characters shown of a text at a turn, and of one at the start
ACTIONS = 200  # admissible actions that are listed
WIDE = 30_000  # characters of two texts together that are compared


def cut(text: str, most: int = LONG) -> dict[str, Any]:
    """The start of a text, and how many characters more there are."""
    return {"text": text[:most], "more": max(0, len(text) - most)}


def replay(one: Trajectory, turn: int, most: int = LONGER) -> dict[str, Any]:
    """The attempt with the TURNS turns around number `turn` (from 1; 0: the start), as JSON values; texts cut at `most`."""
    turn = max(0, min(turn, len(one.turns)))
    first = max(0, turn - 1) // TURNS * TURNS
    admitted = [one.actions, *(step.actions for step in one.turns)]
    steps = [_turn(step, number, admitted[number - 1], most) for number, step in enumerate(one.turns, 1)][first : first + TURNS]
    return {
        "turn": turn,
        "turns": len(one.turns),
        "first": first + 1,
        "last": min(first + TURNS, len(one.turns)),
        "start": _start(one, most),
        "steps": steps,
    }


def _start(one: Trajectory, most: int) -> dict[str, Any]:
    """What the agent was shown before its first action."""
    return {
        "system": cut(one.system, most),
        "prompt": cut(one.prompt, most),
        "context": cut(one.context, most),
        "hint": cut(one.hint, min(most, LONG)),
        "demos": [{"role": message.role, **cut(message.content, min(most, LONG))} for message in one.demos[:TURNS]],
        "demos_more": max(0, len(one.demos) - TURNS),
        "looked": _looked(one.looked),
        "tools": [_name(tool) for tool in one.tools[:ACTIONS]],
        "actions": _listed(one.actions),
    }


def _name(tool: dict[str, Any]) -> str:
    function = tool.get("function", tool)
    return str(function.get("name", "")) if isinstance(function, dict) else ""


def _turn(step: Turn, number: int, admitted: Sequence[str], most: int) -> dict[str, Any]:
    return {
        "number": number,
        "admitted": _listed(admitted),
        "admissible": step.action in admitted if admitted else None,
        "thinking": cut(step.thinking, min(most, LONG)),
        "action": cut(step.action, min(most, LONG)),
        "context": cut(step.context, most),
        "looked": _looked(step.looked),
        "observation": cut(step.observation, min(most, LONG)),
        "reward": step.reward,
        "tokens": step.usage.tokens,
        "seconds": step.usage.seconds,
    }


def _looked(found: Sequence[Looked]) -> list[dict[str, Any]]:
    """What was thought of, shown ones first."""
    return [one.model_dump(mode="json") for one in sorted(found, key=lambda one: not one.shown)][:ACTIONS]


def _listed(actions: Sequence[str]) -> dict[str, Any]:
    return {"actions": [action[:LONG] for action in actions[:ACTIONS]], "more": max(0, len(actions) - ACTIONS)}


def side_by_side(one: Trajectory, other: Trajectory, turn: int | None) -> dict[str, Any]:
    """Two attempts turn by turn, the page with `turn`, or with the first turn at which they differ.

    Their first difference is `differs`: the number of a turn, 0 for what they were shown at the start; None if there is none.
    `apart` is the first turn at which they differ, and `other` what of it: the action, what came back, or that one has ended.
    """
    both = max(len(one.turns), len(other.turns))
    apart = next((number for number in range(1, both + 1) if _at(one, number) != _at(other, number)), None)
    if (one.system, one.context, one.demos, one.prompt) != (other.system, other.context, other.demos, other.prompt):
        differs: int | None = 0
    else:
        differs = apart
    recalled = [_as_text(side) for side in (one, other)]
    first = max(0, (turn or apart or 1) - 1) // TURNS * TURNS
    numbers = range(first + 1, min(first + TURNS, both) + 1)
    return {
        "differs": differs,
        "apart": apart,
        "other": "" if apart is None else _other(_at(one, apart), _at(other, apart)),
        "turns": both,
        "first": first + 1,
        "last": min(first + TURNS, both),
        "prompts": {
            "system": _compared(one.system, other.system),
            "demos": _compared(*recalled),
            "context": _compared(one.context, other.context),
            "prompt": _compared(one.prompt, other.prompt),
        },
        "steps": [{"number": number, "sides": [_side(one, number), _side(other, number)]} for number in numbers],
        "same": [number for number in numbers if _at(one, number) == _at(other, number)],
    }


def _as_text(one: Trajectory) -> str:
    """The recalled attempts as one text."""
    return "\n".join(f"{message.role}: {message.content}" for message in one.demos)


def _at(one: Trajectory, number: int) -> tuple[str, str] | None:
    return (one.turns[number - 1].action, one.turns[number - 1].observation) if number <= len(one.turns) else None


def _other(one: tuple[str, str] | None, other: tuple[str, str] | None) -> str:
    """What differs at a turn."""
    if one is None or other is None:
        return "the end"
    return "the action" if one[0] != other[0] else "what came back"


def _side(one: Trajectory, number: int) -> dict[str, Any] | None:
    if number > len(one.turns):
        return None
    step = one.turns[number - 1]
    return {"action": cut(step.action), "observation": cut(step.observation), "context": cut(step.context), "reward": step.reward}


def _compared(before: str, after: str) -> dict[str, Any]:
    """Two texts word by word: parts with what became of them; cut where they are very long."""
    half = WIDE // 2
    alone = "first" if before and not after else "second" if after and not before else ""
    parts = [] if before == after or alone else differences(before[:half], after[:half])
    return {
        "same": before == after,
        "empty": not before and not after,
        "alone": alone,
        "parts": [{"what": what, "text": text} for what, text in parts],
        "text": cut(before or after, LONGER) if before == after or alone else None,
        "more": max(0, len(before) - half, len(after) - half) if parts else 0,
    }
