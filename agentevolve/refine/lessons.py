"""Lessons: from trajectories to entries, as they are or in the model's words (survey 2404.14387, sections 5.2 and 6.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentevolve.act.asking import ask
from agentevolve.act.prompting import render, transcript
from agentevolve.policy import Policy
from agentevolve.records import Entry, Kind, Lived, Trajectory, Turn
from agentevolve.refine.filters import keep, learnable
from agentevolve.run.folder import Run
from agentevolve.run.progress import progress

REFLECTION_TOKENS = 60
Succeeded = Callable[[Trajectory], bool]


def entry(trajectory: Trajectory, kind: Kind, text: str, round: int, lived: Lived | None = None) -> Entry:
    """An entry about one trajectory: found by what its task looked like at the start."""
    return Entry(
        id=f"{kind}/{trajectory.id}",
        kind=kind,
        key=trajectory.prompt,
        text=text,
        env=trajectory.task.env,
        task=trajectory.task.id,
        round=round,
        reward=trajectory.reward,
        sources=(trajectory.id,),
        lived=lived,
    )


def lived(trajectory: Trajectory) -> Lived:
    """What of the attempt is shown again: without what it recalled, thought or cost."""
    turns = [Turn(action=turn.action, observation=turn.observation, actions=turn.actions) for turn in trajectory.turns]
    return Lived(prompt=trajectory.prompt, actions=trajectory.actions, turns=tuple(turns))


def demos(trajectories: Sequence[Trajectory], round: int) -> list[Entry]:
    """A demo of each solved trajectory: its transcript, and its turns."""
    return [entry(one, "demo", transcript(one), round, lived(one)) for one in keep(trajectories)]


def cases(trajectories: Sequence[Trajectory], round: int) -> list[Entry]:
    """A case of each trajectory, solved or not: its transcript, its turns and its outcome (case-based reasoning)."""
    return [entry(one, "case", transcript(one), round, lived(one)) for one in learnable(trajectories)]


def abstracted(
    kind: Kind,
    prompt: str,
    groups: Sequence[Sequence[Trajectory]],
    policy: Policy,
    run: Run,
    *,
    most: int = 3,
    succeeded: Succeeded,
) -> list[Entry]:
    """What the model draws from each group of attempts, at most `most` entries a group, one for each block of its answer.

    `prompt` names the question that is asked; `succeeded` says which attempts it is told were successes: the environment's
    word, or a judge's. Each entry is found by the first attempt's task.
    """
    entries = []
    with progress(f"round {run.round}: drawing {kind}s", len(groups), quiet=run.quiet) as advance:
        for group in map(learnable, groups):
            shown = [(transcript(one), succeeded(one)) for one in group]
            said = ask(policy, run, f"{prompt}/{group[0].id}/{len(group)}", render(prompt, attempts=shown, most=most))
            for number, text in enumerate(blocks(said)[:most]):
                first = entry(group[0], kind, text, run.round)
                sources = tuple(one.id for one in group)
                entries.append(first.model_copy(update={"id": f"{first.id}/{number}", "task": "", "sources": sources}))
            advance("")
    return entries


def blocks(said: str) -> list[str]:
    """The parts of an answer that stand apart by an empty line, or each of its lines where none does; bullets taken off."""
    parts = said.split("\n\n") if "\n\n" in said else said.split("\n")
    return [text for part in parts if (text := part.strip().lstrip("-*0123456789.) ").strip())]


def reflect(trajectories: Sequence[Trajectory], policy: Policy, run: Run) -> list[Entry]:
    """A reflection on each failed trajectory, written by the policy's own model (Reflexion, 2303.11366).

    A backend that fails leaves its reflection out.
    """
    entries = []
    with progress(f"round {run.round}: reflecting", len(trajectories), quiet=run.quiet) as advance:
        for trajectory in learnable(trajectories):
            prompt = render("reflect", transcript=transcript(trajectory))
            if text := ask(policy, run, f"reflection/{trajectory.id}", prompt, max_tokens=REFLECTION_TOKENS):
                entries.append(entry(trajectory, "reflection", text, run.round))
            advance("")
    return entries


def critique(trajectories: Sequence[Trajectory], policy: Policy, run: Run) -> dict[str, str]:
    """What the policy's own model finds wrong in each attempt, as a hint for the next, by task id (2303.17651)."""
    hints = {}
    with progress(f"round {run.round}: criticising", len(trajectories), quiet=run.quiet) as advance:
        for trajectory in learnable(trajectories):
            said = ask(policy, run, f"critique/{trajectory.id}", render("critique", transcript=transcript(trajectory)))
            hints[trajectory.task.id] = f"What was wrong with the last attempt: {said}" if said else ""
            advance("")
    return hints
