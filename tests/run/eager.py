"""A run that is read at once, whole attempts in dicts: what any other way of reading it must say, too."""

from collections import defaultdict
from pathlib import Path

from agentevolve.records import Trajectory, Usage
from agentevolve.run.folder import (
    ACCEPTED,
    AGAIN,
    ASKED,
    LOST,
    PHASES,
    SPENT,
    evaluations,
    journal_of,
    phase_of,
    same,
)


class Eager:
    """The run in `folder`, read at once."""

    def __init__(self, folder: Path) -> None:
        self.trajectories, self.lost, self.facts = {}, {}, {}
        self.replaced, self.makings = [], defaultdict(int)
        for line in journal_of(folder).read():
            if line["kind"] == "trajectory":
                one = Trajectory.model_validate(line["data"])
                self.replace([one.id])
                self.makings[one.id] += 1
                (self.lost if one.lost else self.trajectories)[one.id] = one
            elif line["kind"] == "fact":
                self.note(line["name"], line["data"])

    def replace(self, ids) -> None:
        for id in ids:
            self.replaced += [held.pop(id) for held in (self.trajectories, self.lost) if id in held]

    def note(self, name, value) -> None:
        self.facts[name] = value
        if name.startswith(ACCEPTED):
            self.trajectories |= {id: self.lost.pop(id) for id in value if id in self.lost}
        elif name.startswith(AGAIN):
            self.replace(value)
        elif name.startswith(ASKED):
            self.makings[name] += 1
        elif name.startswith(LOST):
            self.makings[name.removeprefix(LOST).rpartition("/")[0]] += 1

    def attempts(self):
        return self.trajectories | self.lost

    def evaluations(self):
        tried = (one for one in self.attempts().values() if one.phase == "run")
        return evaluations(self.facts, ((one.id, one.task.split, one.policy.model) for one in tried))

    def acquired(self, *rounds):
        found = {one.id: "/".join(one.phase.split("/")[:2]) for one in self.trajectories.values()}
        return [self.trajectories[id] for n in rounds for id in sorted(found) if found[id] == f"{n}/acquire"]

    def costs(self):
        costs = dict.fromkeys(PHASES, Usage())
        for one in (*self.attempts().values(), *self.replaced):
            costs[phase_of(one.phase)] += sum((turn.usage for turn in one.turns), one.lookup + one.failed)
        for name, fact in self.facts.items():
            kind, _, rest = name.partition("/")
            if f"{kind}/" in (ASKED, LOST, SPENT) and "usage" in fact:
                phase = {ASKED: "refine", SPENT: "update"}.get(f"{kind}/") or phase_of(rest)
                costs[phase] += Usage.model_validate(fact["usage"])
        return costs

    def episodes(self):
        return sum(phase_of(one.phase) == "acquire" for one in self.trajectories.values())

    def lent(self):
        found = {}
        for one in self.trajectories.values():
            if not one.lost and not (one.policy.adapter or one.policy.memory):
                found.setdefault(same(one.task, one.seed, one.hint, one.policy), one)
        return found
