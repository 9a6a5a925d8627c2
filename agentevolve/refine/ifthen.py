"""If-then rules from failures, kept only if they were seen to help (TRAN, 2310.15746)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentevolve.act.asking import ask
from agentevolve.act.prompting import render
from agentevolve.act.rollout import rollout
from agentevolve.memory import EntryMemory
from agentevolve.policy import Policy
from agentevolve.records import Entry, Trajectory
from agentevolve.refine.filters import learnable
from agentevolve.refine.lessons import abstracted, blocks
from agentevolve.refine.nearness import grouped, vectors
from agentevolve.run.folder import Run

CLOSEST = 3  # known rules that the model compares a new one with


def if_then(failed: Sequence[Trajectory], policy: Policy, run: Run, *, most: int = 3) -> list[Entry]:
    """At most `most` rules from each failed attempt, found by what they say."""
    rules = abstracted("insight", "ifthen", [[one] for one in failed], policy, run, most=most, succeeded=lambda _: False)
    return [rule.model_copy(update={"key": rule.text}) for rule in rules]


def proven(rules: Sequence[Entry], policy: Policy, run: Run, *, phase: str) -> list[Entry]:
    """Those with which, as a hint, some task that they come from is solved when it is tried again.

    Each rule is tried alone; rules of different tasks are tried side by side.
    """
    tries: list[dict[str, Entry]] = []
    for rule in rules:
        tasks = dict.fromkeys(one.task.id for one in _sources(rule, run))
        free = next((one for one in tries if not one.keys() & tasks.keys()), None)
        if free is None:
            tries.append(free := {})
        free |= dict.fromkeys(tasks, rule)
    lived = {one.task.id: one.task for rule in rules for one in _sources(rule, run)}
    works = set()
    for number, hinted in enumerate(tries):
        hints = {id: render("recall", entries=[rule], ending="Now your game:") for id, rule in hinted.items()}
        again = rollout(policy, [lived[id] for id in hinted], run, phase=f"{phase}-{number}", hints=hints)
        works |= {hinted[one.task.id].id for one in learnable(again) if one.solved}
    return [rule for rule in rules if rule.id in works]


def _sources(rule: Entry, run: Run) -> list[Trajectory]:
    return learnable([run.trajectories[id] for id in rule.sources])


def collective(rules: Sequence[Entry], policy: Policy, run: Run, memory: EntryMemory, *, above: float) -> list[Entry]:
    """One rule for each group of failed attempts that look alike, drawn from the rules that each of them gave."""
    failed = list({id: run.trajectories[id] for rule in rules for id in rule.sources}.values())
    drawn = []
    for group in grouped(failed, memory, run, above=above):
        about = {one.id for one in group}
        parts = [rule for rule in rules if about & set(rule.sources)]
        said = ask(policy, run, f"collective/{group[0].id}/{len(group)}", render("collective", rules=[one.text for one in parts]))
        if text := next(iter(blocks(said)), ""):
            new = {"id": f"collective/{group[0].id}", "text": text, "key": text, "sources": tuple(one.id for one in group)}
            drawn.append(parts[0].model_copy(update=new))
    return drawn


def unheard(rules: Sequence[Entry], held: Sequence[Entry], policy: Policy, run: Run, memory: EntryMemory) -> list[Entry]:
    """Those that say something else than the held ones and those before them, and contradict none, as the model sees it.

    It is asked about the closest rules of the same environment; rules of the same words need no question.
    """
    kept: list[Entry] = []
    for rule in rules:
        known = [one for one in (*held, *kept) if one.env == rule.env]
        if _plain(rule.text) in {_plain(one.text) for one in known}:
            continue
        rows = vectors([rule.text, *(one.text for one in known)], memory, run)
        near = sorted(range(len(known)), key=lambda place: (-float(rows[0] @ rows[place + 1]), place))[:CLOSEST]
        prompt = render("known", rules=[known[place].text for place in near], rule=rule.text)
        answer = ask(policy, run, f"known/{rule.id}", prompt, choices=("yes", "no"), temperature=0.0) if near else "no"
        if answer != "yes":
            kept.append(rule)
    return kept


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
