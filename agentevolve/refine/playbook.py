"""A playbook of bullets that grows by deltas and is never rewritten as a whole (ACE, 2510.04618)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from agentevolve.act.asking import ask
from agentevolve.act.attempt import counter
from agentevolve.act.prompting import render, transcript
from agentevolve.memory import EntryMemory
from agentevolve.policy import Policy
from agentevolve.records import Entry, Trajectory
from agentevolve.refine.filters import learnable
from agentevolve.refine.lessons import entry
from agentevolve.refine.nearness import distinct
from agentevolve.refine.rules import read_edits
from agentevolve.run.folder import Run
from agentevolve.run.progress import progress

TAG = re.compile(r"^\W*(HELPFUL|HARMFUL)\b(.*)$", re.MULTILINE)


def reflections(attempts: Sequence[Trajectory], bullets: Sequence[Entry], policy: Policy, run: Run) -> dict[str, str]:
    """What the model says of each attempt, by its id: which of the bullets it recalled helped or harmed, and what decided it."""
    said = {}
    with progress(f"round {run.round}: reflecting", len(attempts), quiet=run.quiet) as advance:
        for one in learnable(attempts):
            shown = [bullet.text for bullet in recalled(one, bullets)]
            prompt = render("tag", bullets=shown, succeeded=one.solved, transcript=transcript(one))
            said[one.id] = ask(policy, run, f"tag/{one.id}", prompt)
            advance("")
    return said


def recalled(attempt: Trajectory, bullets: Sequence[Entry]) -> list[Entry]:
    """Those of the bullets that the attempt was shown, in the order in which it was."""
    known = {bullet.id: bullet for bullet in bullets}
    return [known[id] for id in attempt.recalled if id in known]


def tagged(bullets: Sequence[Entry], attempts: Sequence[Trajectory], said: Mapping[str, str], round: int) -> list[Entry]:
    """The bullets with what was `said` of them added to their counts of `helpful` and `harmful`; the others stay as they are.

    A bullet is tagged by its number among those that the attempt recalled, at most once a tag and attempt; other numbers mean
    nothing. A tagged bullet is another entry, of this round, so that earlier rounds keep theirs.
    """
    new: dict[str, Counter[str]] = {bullet.id: Counter() for bullet in bullets}
    for one in attempts:
        shown = recalled(one, bullets)
        tags = {(name, int(n)) for name, rest in TAG.findall(said.get(one.id, "")) for n in re.findall(r"\d{1,4}", rest)}
        for name, number in tags:
            if 0 < number <= len(shown):
                new[shown[number - 1].id][name.lower()] += 1
    return [_counted(bullet, new[bullet.id], round) if new[bullet.id] else bullet for bullet in bullets]


def added(
    bullets: Sequence[Entry],
    attempts: Sequence[Trajectory],
    said: Mapping[str, str],
    policy: Policy,
    run: Run,
    memory: EntryMemory,
    *,
    below: float = 0.9,
) -> list[Entry]:
    """The bullets, and after them what the model adds because of what was `said` of each attempt.

    What is not `below` this cosine to a bullet is there already; whatever else the model wants done to the bullets is not done.
    """
    held = list(bullets)
    for one in learnable(attempts):
        if not said.get(one.id):
            continue
        there = [bullet.text for bullet in held if bullet.env == one.task.env]
        prompt = render("delta", bullets=there, succeeded=one.solved, reflection=said[one.id])
        texts = [text for act, _, text in read_edits(ask(policy, run, f"delta/{one.id}", prompt)) if act == "ADD" and text]
        like = entry(one, "insight", "", run.round).model_copy(update={"task": ""})
        about = [{"id": f"bullet/{one.id}/{n}", "key": text, "text": text} for n, text in enumerate(texts)]
        held += distinct([like.model_copy(update=update) for update in about], held, memory, run, below=below)
    return held


def trusted(bullets: Sequence[Entry], policy: Policy, run: Run) -> list[Entry]:
    """Those that have not harmed more than helped, of each environment as many as fit into what the policy recalls.

    The best by how often they helped less how often they harmed go first, then the youngest; the order stays.
    """
    good = [bullet for bullet in bullets if _net(bullet) >= 0]
    room, count, kept = dict.fromkeys((bullet.env for bullet in good), policy.recall.tokens), counter(policy, run), set()
    for bullet in sorted(good, key=lambda one: (-_net(one), -one.round)):
        if (size := count(bullet.text)) <= room[bullet.env]:
            room[bullet.env] -= size
            kept.add(bullet.id)
    return [bullet for bullet in good if bullet.id in kept]


def _net(bullet: Entry) -> int:
    return bullet.counts.get("helpful", 0) - bullet.counts.get("harmful", 0)


def _counted(bullet: Entry, new: Counter[str], round: int) -> Entry:
    counts = dict(Counter(bullet.counts) + new)
    return bullet.model_copy(update={"id": f"{bullet.id.split('@')[0]}@{round}", "round": round, "counts": counts})
