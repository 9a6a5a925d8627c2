"""agentevolve, the default method: learn in context and in weights from the same experience.

Acquire: k warm attempts at each task. Refine: best-of-k by fewest turns (rejection sampling as in RFT, 2308.01825, and
ReST-EM, 2312.06585), and reflections on tasks that no attempt solved (Reflexion, 2303.11366). Update: the kept attempts
become demos in memory *and* rows to fine-tune on, from the base, over all rounds so far (AgentEvol, 2406.04151).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from agentevolve.config import Config
from agentevolve.policy import Policy
from agentevolve.records import Task, Trajectory
from agentevolve.refine import best, demos, reflect, unsolved
from agentevolve.rollout import rollout
from agentevolve.run import Run
from agentevolve.update import examples, finetune, remember


def agentevolve(policy: Policy, tasks: Sequence[Task], run: Run, round: int, config: Config) -> Policy:
    """One round: the candidate that learnt from `policy`'s attempts at `tasks`."""
    epsilons = config.acquire.epsilon
    explorer = policy.using(epsilon=epsilons[min(round, len(epsilons)) - 1], temperature=config.acquire.temperature)
    attempts = rollout(explorer, tasks, run, phase=f"{round}/acquire", samples=config.acquire.samples)

    shortest = functools.partial(best, per_task=config.refine.per_task, max_turns=config.refine.max_turns)
    kept = shortest(attempts)
    lost = unsolved(attempts)[: config.refine.reflections]
    entries = demos(kept, round) + reflect(lost, policy, run, round)

    candidate = remember(policy, entries, run, round)
    lived = [trajectory for earlier in range(1, round + 1) for trajectory in acquired(run, earlier)]
    rows = examples(shortest(lived), keep_memory=config.finetune.keep_memory)
    return finetune(candidate, rows[: config.finetune.examples], run, f"round-{round}", config.finetune)


def acquired(run: Run, round: int) -> list[Trajectory]:
    """The attempts of a round's acquire phase, in the order of their ids."""
    found = [trajectory for trajectory in run.trajectories.values() if trajectory.phase == f"{round}/acquire"]
    return sorted(found, key=lambda trajectory: trajectory.id)
