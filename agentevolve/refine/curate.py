"""One sheet of notes that is rewritten as a whole (Dynamic Cheatsheet, 2504.07952)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from agentevolve.act.asking import ask
from agentevolve.act.attempt import counter
from agentevolve.act.prompting import render, transcript
from agentevolve.policy import Policy
from agentevolve.records import Entry, Trajectory
from agentevolve.refine.filters import learnable
from agentevolve.run.folder import Run


def curated(sheets: Sequence[Entry], attempts: Sequence[Trajectory], policy: Policy, run: Run) -> list[Entry]:
    """The sheets, one an environment, after the model has rewritten those of the environments in which these attempts were made.

    It is shown no reward: what went well is for it to judge. A sheet that does not fit into what the policy recalls is cut at
    the end of a line; where the model says nothing, the sheet stays as it is.
    """
    held, room, count = {sheet.env: sheet for sheet in sheets}, policy.recall.tokens, counter(policy, run)
    by_env: dict[str, list[Trajectory]] = {}
    for one in learnable(attempts):
        by_env.setdefault(one.task.env, []).append(one)
    for env, made in by_env.items():
        before = held[env].text if env in held else ""
        shown = [transcript(one) for one in made]
        prompt = render("curate", sheet=before, attempts=shown, words=room // 2)
        if text := _cut(ask(policy, run, f"curate/{made[0].id}/{len(made)}", prompt, max_tokens=max(1, room)), room, count):
            sources = (*(held[env].sources if env in held else ()), *(one.id for one in made))
            held[env] = Entry(
                id=f"sheet/{made[0].id}", kind="sheet", key=env, text=text, env=env, round=run.round, sources=sources
            )
    return list(held.values())


def _cut(text: str, room: int, count: Callable[[str], int]) -> str:
    """As many whole lines as fit into `room` tokens; of a first line that does not, its beginning."""
    if count(text) <= room:
        return text
    fits = bisect_right(range(1, len(text) + 1), room, key=lambda end: count(text[:end]))  # more text has no fewer tokens
    return text[:fits].rpartition("\n")[0].strip() or text[:fits].strip()
