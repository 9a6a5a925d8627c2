"""Rows that teach how to learn: to say what was wrong with an attempt, and to do it better when told (SELF, 2310.00533)."""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.prompting import render, transcript
from agentevolve.local.rows import clean
from agentevolve.records import Example, Message, Trajectory
from agentevolve.refine import keep, learnable
from agentevolve.update.weights import examples


def meta_skill(attempts: Sequence[Trajectory], refined: Sequence[Trajectory]) -> list[Example]:
    """Two rows for each refined attempt that solved what its first attempt had not: the feedback, and what was done with it.

    The feedback is the hint that the refined attempt had; here it stays in the prompt.
    """
    failed = {one.task.id: one for one in learnable(attempts) if not one.solved}
    rows = []
    for one in keep(refined):
        if one.hint and (first := failed.get(one.task.id)):
            asked = Message(role="user", content=clean(render("critique", transcript=transcript(first))))
            said = Message(role="assistant", content=clean(one.hint.partition(": ")[2]))  # after the words that introduce it
            sources = (first.id, one.id)
            rows.append(Example(id=f"feedback on {first.id}", prompt=(asked,), completion=(said,), sources=sources))
            told = "\n".join(part for part in (one.context, one.hint) if part)
            rows += examples([one.model_copy(update={"context": told})], keep_memory=1.0)
    return rows
