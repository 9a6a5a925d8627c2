"""Does a memory that was seeded with harmful entries recover? The same one curated after each round, and left alone.

    python tests/bench/recovery.py --seeds 0 1 2 3 4
    python tests/bench/recovery.py --model local/smollm2-135m --seeds 0

The game is simonsays-easy. The memory starts with demos of solved games and as many of lost ones that are told as won. Each round
practises on train tasks with the memory, curates (one of the two), and is measured on `val`. The agent `imitator` is a stand-in:
shown a game in which Simon was obeyed it obeys nine times in ten, shown one in which he was not three times in ten, shown none
six times in ten.
Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from agentevolve.act.rollout import rollout
from agentevolve.evaluate import pooled_report
from agentevolve.load import load_task_set, tasks_of
from agentevolve.memory.curate import curate
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy, Recall
from agentevolve.records import SOLVED, Message, Task, Trajectory
from agentevolve.refine import best, demos
from agentevolve.run.folder import Run
from agentevolve.update import memory_of, remember

GAME = "simonsays-easy"
SAID = re.compile(r"Simon says, '([^']+)'")


def imitator(messages: Sequence[Message], choices: Sequence[str]) -> str:
    """Does as Simon says, or not, as the last game that it was shown did."""
    told = SAID.findall(messages[-1].content)[-1]
    did = [one.content for one in messages if one.role == "assistant"]
    heard = [said[-1] for one in messages if (said := SAID.findall(one.content))]
    obeyed = all(act == say for act, say in zip(did, heard, strict=False))
    shown = any("A new game:" in one.content for one in messages)
    luck = random.Random(f"{told} {' '.join(choices)} {len(messages)}").random()
    return told if luck < (0.6 if not shown else 0.9 if obeyed else 0.3) else next(one for one in choices if one != told)


def seeded(tasks: Sequence[Task], run: Run, n: int) -> list[Trajectory]:
    """`n` solved games, and as many lost ones that are told as won: of tasks that are not practised."""
    tried = rollout(Policy(model="random"), tasks, run, phase="0/acquire", samples=16)
    won = best(tried, per_task=1)[:n]
    about = {one.task.id for one in won}
    lost: dict[str, Trajectory] = {}
    for one in tried:
        if one.reward < SOLVED and one.end == "terminated" and one.task.id not in about:
            lost.setdefault(one.task.id, one.model_copy(update={"reward": 1.0}))
    return won + list(lost.values())[: len(won)]


class Measured(NamedTuple):
    """The attempts at the held-out tasks after a round, and the entries that were left then."""

    attempts: list[Trajectory]
    harmful: int
    good: int


def lived(place: Path, seed: int, asked: argparse.Namespace, curated: bool) -> list[Measured]:
    """The attempts at the held-out tasks before the first round and after each, with how many entries were left then."""
    train = tasks_of(load_task_set(GAME), "train")
    random.Random(seed).shuffle(train)
    held = tasks_of(load_task_set(GAME), "val", limit=asked.held)
    run = Run(place, seed=seed, workers=4, quiet=False)
    made = seeded(train[asked.practice : asked.practice + 150], run, asked.demos)
    harmful = {f"demo/{one.id}" for one in made[len(made) // 2 :]}
    base = Policy(model=asked.model, recall=Recall(nearest={"demo": 1}, tokens=1_000))
    policy = remember(base, demos(made, 0), run)
    if asked.model == "imitator":
        run.part("model", f"{policy.model} {policy.api_base} None {policy.threads}", lambda: ScriptedModel(imitator))
    found, tried = list[Measured](), list[Trajectory]()
    for number in range(asked.rounds + 1):
        run.round = number
        if number:
            tried += rollout(policy, train[: asked.practice], run, phase=f"{number}/acquire", samples=2)
            bare = policy.using(memory=None, as_of=None)
            tried += rollout(bare, train[: asked.practice], run, phase=f"{number}/acquire/bare", samples=1)
            if curated:
                curate(memory_of(run), tried, number, alike=2)
        policy = policy.using(as_of=number)
        tasks = rollout(policy, held, run, phase=f"{number}/val", luck="val", measuring=True)
        left = {one.id for one in memory_of(run).entries(number)}
        found.append(Measured(tasks, len(left & harmful), len(left - harmful)))
    run.close()
    return found


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--model", default="imitator")
    read.add_argument("--seeds", type=int, nargs="+", default=[0])
    read.add_argument("--rounds", type=int, default=5)
    read.add_argument("--practice", type=int, default=100, help="train tasks that are practised in each round")
    read.add_argument("--demos", type=int, default=10, help="solved games, and as many harmful ones")
    read.add_argument("--held", type=int, default=60)
    read.add_argument("--out", type=Path, help="where the runs are kept, to go on with")
    asked = read.parse_args()
    place = asked.out or Path(tempfile.mkdtemp())
    found = {
        curated: [lived(place / f"{seed}-{'curated' if curated else 'alone'}", seed, asked, curated) for seed in asked.seeds]
        for curated in (False, True)
    }
    print(f"`{GAME}`, {asked.model}, seeds {asked.seeds}, {asked.held} `val` tasks, {asked.demos} + {asked.demos} demos\n")
    print("| after round | left alone | curated | difference | harmful left | good left |\n|---|---|---|---|---|---|")
    for number in range(asked.rounds + 1):
        print(row(number, *([one[number] for one in found[curated]] for curated in (False, True))))


def row(number: int, alone: list[Measured], cured: list[Measured]) -> str:
    """One line of the table: success in %, and the entries that are left of all seeds."""
    before, after = ([one.attempts for one in seeds] for seeds in (alone, cured))
    reports = [pooled_report("alone", before, None, ""), pooled_report("curated", after, before, "alone")]
    shown = [f"{100 * one.success:.0f} [{100 * one.low:.0f}, {100 * one.high:.0f}]" for one in reports]
    gap = reports[1].difference
    told = f"{100 * gap.mean:+.0f} [{100 * gap.low:+.0f}, {100 * gap.high:+.0f}]"
    left = sum(one.harmful for one in cured), sum(one.good for one in cured)
    return f"| {number} | {' | '.join(shown)} | {told} | {left[0]} | {left[1]} |"


if __name__ == "__main__":
    main()
