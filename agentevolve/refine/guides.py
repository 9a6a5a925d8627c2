"""Guidelines for a situation, from what a success did there and a failure did not (AutoGuide, 2403.08978)."""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.asking import ask
from agentevolve.act.prompting import render, transcript
from agentevolve.policy import Policy
from agentevolve.records import Entry, Trajectory
from agentevolve.refine.filters import learnable
from agentevolve.refine.lessons import entry
from agentevolve.refine.pairs import Pair, divergence
from agentevolve.run.folder import Run
from agentevolve.run.progress import progress

ENDED = "nothing more: it ended here"


def guidelines(pairs: Sequence[Pair], policy: Policy, run: Run) -> list[Entry]:
    """For each pair the situation in which its two attempts first acted differently, and what to do in it.

    The model is shown both attempts up to the two actions at which they part, and nothing of what came after. A guideline is
    found by its situation, not by what it says. A pair on which the model says nothing is left out.
    """
    entries = []
    with progress(f"round {run.round}: drawing guidelines", len(pairs), quiet=run.quiet) as advance:
        for pair in pairs:
            learnable(pair)
            turn, name = divergence(pair), f"{pair.better.id}/{pair.worse.id}"
            beginning = transcript(pair.better.model_copy(update={"turns": pair.better.turns[:turn]}))
            context = _sentence(ask(policy, run, f"situation/{name}", render("situation", beginning=beginning)))
            parted = {"better": _action(pair.better, turn), "worse": _action(pair.worse, turn)}
            prompt = render("guideline", beginning=beginning, context=context, **parted)
            said = _sentence(ask(policy, run, f"guideline/{name}", prompt)) if context else ""
            if said:
                found = entry(pair.better, "insight", f"When {context} {said}", run.round)
                about = {"id": f"guideline/{name}", "key": context, "task": "", "sources": tuple(one.id for one in pair)}
                entries.append(found.model_copy(update=about))
            advance("")
    return entries


def _action(trajectory: Trajectory, turn: int) -> str:
    return trajectory.turns[turn].action if turn < len(trajectory.turns) else ENDED


def _sentence(said: str) -> str:
    """The first line of an answer that says something."""
    return next((line.strip() for line in said.splitlines() if line.strip()), "")
