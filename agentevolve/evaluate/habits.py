"""How a policy acts, beside whether it succeeds: what shows that learning has narrowed it down to nothing (collapse)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agentevolve.records import Record, Trajectory

FEWER, MORE, LONGER = 1 / 3, 0.1, 2.0  # of the different actions; in the share of those not admitted; times the tokens


class Habits(Record):
    """Over all attempts of an arm: how many `different` actions were taken, the share of `inadmissible` ones in [0, 1] where
    the world lists what it admits, and the completion `tokens` of an action, a mean.
    """

    different: int
    inadmissible: float
    tokens: float


def habits(attempts: Iterable[Trajectory]) -> Habits:
    """Those of the attempts that were not lost; each is looked at once."""
    actions: set[str] = set()
    turns = listed = held = tokens = 0
    for one in attempts:
        for admitted, turn in zip(_admitted(one), one.turns, strict=False) if not one.lost else ():
            actions.add(turn.action)
            turns, tokens = turns + 1, tokens + turn.usage.completion_tokens
            listed, held = listed + bool(admitted), held + (turn.action in admitted)
    return Habits(
        different=len(actions),
        inadmissible=1 - held / listed if listed else 0.0,
        tokens=tokens / turns if turns else 0.0,
    )


def alarms(before: Habits, after: Habits) -> list[str]:
    """What of `after` looks like a collapse beside `before`, on the same tasks; each in a few words."""
    found = []
    if after.different < FEWER * before.different:
        found.append(f"{after.different} different actions, before {before.different}")
    if after.inadmissible > before.inadmissible + MORE:
        found.append(f"{after.inadmissible:.0%} of its actions are not admitted, before {before.inadmissible:.0%}")
    if after.tokens > LONGER * before.tokens > 0:
        found.append(f"{after.tokens:.0f} tokens an action, before {before.tokens:.0f}")
    return found


def _admitted(one: Trajectory) -> Iterator[tuple[str, ...]]:
    """What was admitted at each turn."""
    yield one.actions
    for turn in one.turns:
        yield turn.actions
