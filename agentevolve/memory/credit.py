"""What an entry is worth: the attempts that were shown it, against the same tasks without it.

For an entry e, let n_t of the attempts at task t have been shown e, s_t of them solved; and m_t others not, c_t of them solved.
Over the tasks that have both,

    p_e ~ Beta(1 + S, 1 + N - S),           N = Σ n_t,  S = Σ s_t
    p_0 ~ Beta(1 + M q, 1 + M (1 - q)),     q = Σ n_t c_t / m_t / N,  M = N² / Σ n_t² / m_t

q is what these very tasks come to without e, each weighted as often as e was used on it (direct standardisation), M how many
independent attempts that is worth. The entry's `gain` is E[p_e] - E[p_0]; `harm` is P(p_e < p_0).

Assumptions: attempts are independent given task and e; whether e is shown hangs on the task alone, not on how the attempt goes
(true at the start; a look when stuck is already a bad sign, so such uses do not count). Limits: entries that are always shown
together share their credit; a task that is always tried with e tells nothing; early on the flat prior pulls towards no gain.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from agentevolve.records import Record, Trajectory

HARMFUL = 0.99  # P(p_e < p_0) from which an entry is taken to do harm
ENOUGH = 6  # uses before that is asked
GRID = 400  # points that the probability is summed over


class Credit(Record):
    """An entry's uses on tasks that were also tried without it, how many of them were solved, its gain in [-1, 1] and P(harm)."""

    uses: int = 0
    solved: int = 0
    without: float = 0.0
    gain: float = 0.0
    harm: float = 0.5

    @property
    def harmful(self) -> bool:
        """Whether it credibly does harm."""
        return self.uses >= ENOUGH and self.harm >= HARMFUL


class _Task(NamedTuple):
    """Attempts at one task: how many, how many solved; and of each entry's uses the same."""

    attempts: int
    solved: int
    uses: Mapping[str, tuple[int, int]]


def credits(attempts: Iterable[Trajectory]) -> dict[str, Credit]:
    """The credit of every entry that some attempt was shown at its start, by its id.

    Lost and forgotten attempts say nothing, nor do those in which memory was looked into later on.
    """
    tasks = _tasks([one for one in attempts if not one.lost and not one.forgotten and not any(turn.looked for turn in one.turns)])
    used = {id for task in tasks for id in task.uses}
    return {id: _credit(id, tasks) for id in sorted(used)}


def _tasks(attempts: Iterable[Trajectory]) -> list[_Task]:
    by_task: dict[str, list[Trajectory]] = defaultdict(list)
    for one in attempts:
        by_task[one.task.id].append(one)
    found = []
    for made in by_task.values():
        uses: dict[str, tuple[int, int]] = {}
        for one in made:
            for id in dict.fromkeys(one.recalled):
                n, solved = uses.get(id, (0, 0))
                uses[id] = n + 1, solved + one.solved
        found.append(_Task(len(made), sum(one.solved for one in made), uses))
    return found


def _credit(id: str, tasks: Iterable[_Task]) -> Credit:
    both = [
        (*task.uses[id], task.attempts, task.solved) for task in tasks if id in task.uses and task.attempts > task.uses[id][0]
    ]
    uses = sum(n for n, *_ in both)
    if not uses:
        return Credit()
    solved = sum(s for _, s, *_ in both)
    rate = sum(n * (c - s) / (m - n) for n, s, m, c in both) / uses
    size = uses**2 / sum(n**2 / (m - n) for n, _, m, _ in both)
    return posterior(uses, solved, rate, size)


def posterior(uses: int, solved: int, rate: float, size: float) -> Credit:
    """The credit of an entry with `solved` of `uses`, against a success `rate` without it that is worth `size` attempts."""
    import numpy as np
    from scipy import stats

    mine = stats.beta(1 + solved, 1 + uses - solved)
    theirs = stats.beta(1 + size * rate, 1 + size * (1 - rate))
    points = (np.arange(GRID) + 0.5) / GRID
    harm = float(np.mean(mine.cdf(theirs.ppf(points))))  # P(p_e < p_0), over p_0's quantiles
    return Credit(uses=uses, solved=solved, without=rate, gain=float(mine.mean() - theirs.mean()), harm=harm)
