"""The data mix: which rounds are learnt from, and how much of what was learnt before comes again (survey, section 6.1.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from agentevolve.local.adapter import LoraSettings, read_rows
from agentevolve.policy import Policy
from agentevolve.records import Example, Trajectory
from agentevolve.run.folder import Run
from agentevolve.update.weights import finetune

Mix = Literal["fresh", "window", "cumulative"]


def mixed(run: Run, mix: Mix, *, window: int = 2) -> list[Trajectory]:
    """The attempts of this round alone (`fresh`), of the last `window` rounds, or of all rounds so far (`cumulative`)."""
    first = {"fresh": run.round, "window": run.round - window + 1, "cumulative": 1}[mix]
    return run.acquired(*range(max(1, first), run.round + 1))


def replayed(rows: Sequence[Example], policy: Policy, run: Run, share: float) -> list[Example]:
    """`rows`, and before them a draw of what the policy's adapter was trained on, so that this makes up `share` of the whole.

    Experience replay, against forgetting. Of what the adapter was trained on there may be too little: then all of it.
    """
    held = {row.id for row in rows}
    earlier = [row for row in read_rows(Path(policy.adapter)) if row.id not in held] if policy.adapter else []
    wanted = round(len(rows) * share / (1 - share)) if share < 1 else len(earlier)
    return run.rng("replay", run.round).sample(earlier, min(wanted, len(earlier))) + list(rows)


def by_frequency(rows: Sequence[Example], topic: Mapping[str, str], met: Sequence[str]) -> list[Example]:
    """The rows, each weighing more the more often its topic is among those `met`: 1 for one met as often as the mean.

    `topic` is that of each trajectory, by id; a row has that of its first source.
    """
    often = Counter(met)
    return [row.model_copy(update={"weight": often[topic[row.sources[0]]] * len(often) / len(met)}) for row in rows]


def per_skill(
    policy: Policy,
    rows: Sequence[Example],
    run: Run,
    name: str,
    settings: LoraSettings,
    skill: Callable[[Example], str],
) -> dict[str, str]:
    """An adapter, trained from the base, for the rows of each skill: their folders by skill, to be `merged` or chosen from."""
    skills: dict[str, list[Example]] = {}
    for row in rows:
        skills.setdefault(skill(row), []).append(row)
    trained = {one: finetune(policy, skills[one], run, f"{name}-{place}", settings) for place, one in enumerate(sorted(skills))}
    return {one: str(learnt.adapter) for one, learnt in trained.items()}
