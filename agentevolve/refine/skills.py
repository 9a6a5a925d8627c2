"""Skills: programs of actions that were proven to work (Voyager, 2305.16291)."""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.prompting import render
from agentevolve.act.replay import replay
from agentevolve.policy import Policy
from agentevolve.records import Entry, Trajectory
from agentevolve.refine.filters import keep
from agentevolve.refine.lessons import critique, entry
from agentevolve.run.folder import Run


def verified(trajectories: Sequence[Trajectory], round: int) -> list[Entry]:
    """A skill of each solved trajectory whose actions solve its task again, in a fresh world and without the agent.

    It is found by what the task looked like at the start; its text is the program, one action a line.
    """
    return [entry(one, "skill", "\n".join(_program(one)), round) for one in keep(trajectories) if _works(one)]


def corrected(trajectories: Sequence[Trajectory], policy: Policy, run: Run) -> dict[str, str]:
    """What went wrong in each attempt, as a hint for the next, by task id: what the world said last, and the model's critique."""
    said = critique(trajectories, policy, run)
    found = {one.task.id: one.turns[-1] for one in trajectories if one.task.id in said}
    return {
        id: render("repair", action=last.action, observation=last.observation, critique=said[id]) for id, last in found.items()
    }


def _program(trajectory: Trajectory) -> list[str]:
    return [turn.action for turn in trajectory.turns]


def _works(trajectory: Trajectory) -> bool:
    try:
        return replay(trajectory.task, _program(trajectory)).solved
    except Exception:  # what breaks the world is no skill
        return False
