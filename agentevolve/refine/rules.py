"""Rules over several attempts: a model's edits to a numbered list, with votes (ExpeL, 2308.10144, section 4.2)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from agentevolve.act.asking import ask
from agentevolve.act.prompting import render, transcript
from agentevolve.policy import Policy
from agentevolve.records import Entry, Trajectory
from agentevolve.refine.filters import learnable
from agentevolve.refine.lessons import entry
from agentevolve.refine.pairs import Pair
from agentevolve.run.folder import Run
from agentevolve.run.progress import progress

LINE = re.compile(r"^[^\w\n]*(ADD|AGREE|EDIT|REMOVE)[^\w\n]*(?:(\d+)[^\w\n]*)?(.*)$", re.MULTILINE)


class Edit(NamedTuple):
    """One operation on the list: `place` counts from 1 (0: none given), `text` is the new wording."""

    act: Literal["ADD", "AGREE", "EDIT", "REMOVE"]
    place: int
    text: str


def insights(
    pairs: Sequence[Pair],
    batches: Sequence[Sequence[Trajectory]],
    policy: Policy,
    run: Run,
    rules: Sequence[Entry],
    *,
    most: int = 20,
) -> list[Entry]:
    """The list of rules after the model has edited it for each contrast of attempts and for each batch of successes."""
    groups = [[pair.worse, pair.better] for pair in pairs] + [list(batch) for batch in batches if batch]
    held = list(rules)
    with progress(f"round {run.round}: editing rules", len(groups), quiet=run.quiet) as advance:
        for group in groups:
            shown = [(transcript(one), one.solved) for one in learnable(group)]
            prompt = render("rules", attempts=shown, rules=[rule.text for rule in held], full=len(held) >= most)
            said = ask(policy, run, f"rules/{group[0].id}/{len(group)}", prompt)
            new = entry(group[-1], "insight", "", run.round)
            new = new.model_copy(update={"id": "insight", "task": "", "sources": tuple(one.id for one in group)})
            held = voted(held, read_edits(said), new, most=most)
            advance("")
    return held


def read_edits(said: str) -> list[Edit]:
    """The operations in a model's answer, in order; lines that are none are left out."""
    return [Edit(act, int(place or 0), text.strip()) for act, place, text in LINE.findall(said)]


def voted(rules: Sequence[Entry], edits: Sequence[Edit], new: Entry, *, most: int = 20) -> list[Entry]:
    """The list after the edits, its strongest rules first, at most `most` of them.

    ADD starts with 2 votes, AGREE and EDIT add 1, REMOVE takes 1 (3 from a full list), and a rule without votes is dropped.
    `new` is what an added or edited rule looks like but for its text and id: where it comes from, and the round. Apply all the
    edits of a round together and `rewrite` the memory once: a rule has one state a round.
    """
    held: dict[int, tuple[Entry, int]] = {n: (rule, rule.counts.get("votes", 2)) for n, rule in enumerate(rules, 1)}
    loss = 3 if len(held) >= most else 1
    for act, place, text in edits:
        if act == "ADD" and text and all(text != rule.text for rule, _ in held.values()):
            held[len(held) + 1] = (_reworded(new, text), 2)
        elif place in held:
            rule, votes = held[place]
            worded = _reworded(new, text, rule) if act == "EDIT" and text else rule
            held[place] = (worded, votes - loss if act == "REMOVE" else votes + 1 if act != "ADD" else votes)
    ranked = sorted(held.values(), key=lambda found: -found[1])
    return [_counted(rule, votes, new.round) for rule, votes in ranked if votes > 0][:most]


def _reworded(new: Entry, text: str, before: Entry | None = None) -> Entry:
    sources = tuple(dict.fromkeys((*(before.sources if before else ()), *new.sources)))
    return new.model_copy(update={"id": f"{new.id}/{_mark(text)}", "text": text, "key": text, "sources": sources})


def _counted(rule: Entry, votes: int, round: int) -> Entry:
    """The rule with these votes; a changed one is another entry, of this round, so that earlier rounds keep theirs."""
    if rule.counts.get("votes") == votes:
        return rule
    id = f"{rule.id.split('@')[0]}@{round}"
    return rule.model_copy(update={"id": id, "round": round, "counts": {**rule.counts, "votes": votes}})


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
