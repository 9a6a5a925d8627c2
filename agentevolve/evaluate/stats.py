"""Success rates and paired differences, with 95% intervals over tasks whose coverage is tested by simulation.

A lost attempt, one that a backend or the world failed (end="error"), is no outcome: it is left out and counted, and with it its
pair. When more than LOST_SHARE of the pairs are lost there is no verdict, since what was lost need not be like what was not.
Several attempts at a task, by sample or by seed, are one cluster: they are not independent of each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import comb, sqrt
from statistics import NormalDist, fmean

from agentevolve.protocols import AgentevolveError
from agentevolve.records import Difference, Outcome, Report, cost_of, lost_reason

Key = tuple[str, int, int]  # task id, sample, seed: what makes two attempts comparable
Pair = tuple[Sequence[Outcome], Sequence[Outcome]]
Clusters = Sequence[Sequence[float]]  # for each task the values of its attempts
LOST_SHARE = 0.10  # of the pairs: when more are lost, nothing is concluded from the rest
LEVEL = 0.95  # of every interval that does not say another
RESAMPLES = 10_000
BATCH = 1_000_000  # resampled values held at once: 8 MB


def wilson(successes: float, n: float) -> tuple[float, float]:
    """The 95% Wilson score interval of a share, in [0, 1]; with n = 0 nothing is known: (0, 1)."""
    if n == 0:
        return 0.0, 1.0
    share, z = successes / n, _normal(LEVEL)
    square = z * z / n
    half = z * sqrt(share * (1 - share) / n + square / (4 * n))
    return max(0.0, (share + square / 2 - half) / (1 + square)), min(1.0, (share + square / 2 + half) / (1 + square))


def tango(better: float, worse: float, n: float, quantile: float) -> tuple[float, float]:
    """The score interval of a paired difference of shares, in [-1, 1] (Tango 1998).

    Of `n` pairs the share `better` was solved only after and the share `worse` only before. The ends are the differences
    at which the one seen is `quantile` standard errors away, by the likeliest variance under that difference rather than the
    one seen: n equal pairs are Wilson's n of n and leave about 4 / n to doubt, as the rule of three does.
    """
    from scipy.optimize import brentq

    mean = better - worse

    def excess(end: float) -> float:
        slope = (2 + worse - better) * end - better - worse
        root = sqrt(max(0.0, slope * slope + 8 * worse * end * (1 - end)))
        share = (root - slope) / 4  # the likeliest share solved only before, were `end` the difference
        return float(n * (mean - end) ** 2 - quantile * quantile * (2 * share + end * (1 - end)))

    near = 1e-9  # at the mean itself the excess of equal pairs is zero, which is no end
    low = float(brentq(excess, -1.0, mean - near)) if mean - near > -1 else -1.0
    high = float(brentq(excess, mean + near, 1.0)) if mean + near < 1 else 1.0
    return low, high


def effective(tasks: Clusters, believed: float, sure: float = 1.0) -> float:
    """How many independent attempts those at `tasks` are worth, `believed` of what the spread over tasks says.

    At least `sure` of the number if a task's attempts were all alike (with equally many a task: the number of tasks), at most
    as many as there are (Kish 1965; Korn and Graubard 1998). Where all values are equal nothing tells, and it is the least.
    """
    sizes, values = [len(task) for task in tasks], _flat(tasks)
    n, mean = len(values), fmean(values)
    least = sure * n * n / sum(size * size for size in sizes)
    alone = sum((value - mean) ** 2 for value in values) / n
    together = sum((sum(task) - mean * len(task)) ** 2 for task in tasks) / n * len(tasks) / max(1, len(tasks) - 1)
    if alone == 0 or not believed:
        return least
    return max(least, n * min(1.0, believed * alone / together)) if together else float(n)


def success_interval(tasks: Clusters) -> tuple[float, float]:
    """The 95% interval of the share solved, over tasks: Wilson's, by the effective number of attempts.

    With one attempt a task it is Wilson's own. With several it covers 95 to 97% of simulated measurements of 20 tasks of 8
    attempts or 100 of 3, be the tasks alike or most of them always or never solved; Wilson over attempts covered down to 62%.
    """
    if not tasks:
        return 0.0, 1.0
    n = effective(tasks, _believed(len(tasks) - 1, LEVEL))
    return wilson(fmean(_flat(tasks)) * n, n)


def difference_interval(tasks: Clusters, level: float = LEVEL) -> tuple[float, float]:
    """The interval of the mean of paired differences, each -1, 0 or 1, over tasks: Tango's, by the effective number of pairs.

    Fewer than three tasks give (-1, 1): they do not say how others would come out. The 95% interval covers 95 to 97% of
    simulated comparisons of 30 or 100 tasks, with one or three seeds. It is too wide rather than too narrow where discordant
    pairs are few: of 10, 20 and 40 tasks, of which a base solves none and its successor 5%, it covers exactly 100.0, 100.0 and
    99.7%. Between 93 and 97% nothing can for 10 and 20, the number solved being discrete, and for 40 only what takes it to be
    impossible, since none was seen, that a task is solved only before. Between arms of equal chances at each task the lower end
    is above zero in at most 2.5% of comparisons, of however few tasks: with an attempt each it takes six, all won.
    """
    if len(tasks) < 3:
        return -1.0, 1.0
    values, believed = _flat(tasks), _believed(len(tasks), level)
    better, worse = (values.count(value) / len(values) for value in (1.0, -1.0))
    return tango(better, worse, effective(tasks, believed, believed), _normal(level))


def paired(a: Sequence[Outcome], b: Sequence[Outcome], level: float = LEVEL) -> Difference:
    """Mean success of `b` minus that of `a` on the same attempts; the interval is over tasks, `n` is their number.

    Pairs in which either attempt was lost are left out and counted. Raises AgentevolveError when the two do not hold the same
    (task, sample, seed).
    """
    return pooled([(a, b)], level)


def pooled(pairs: Sequence[Pair], level: float = LEVEL) -> Difference:
    """The paired difference over several runs (a, b) of two arms, such as one per seed; a task is one cluster in all of them."""
    tasks, lost = task_differences(pairs)
    low, high = difference_interval(tasks, level)
    values = _flat(tasks)
    return Difference(mean=_mean(values), low=low, high=high, n=len(tasks), pairs=len(values), lost=lost)


def task_differences(pairs: Sequence[Pair]) -> tuple[list[list[float]], int]:
    """For each task the differences of its pairs over all runs (a, b), in the order of their ids; how many pairs were lost."""
    matched = [both for a, b in pairs for both in _matched(a, b)]
    if not matched:
        raise AgentevolveError("no attempts to compare")
    differences: dict[str, list[float]] = defaultdict(list)
    for before, after in matched:
        if not (before.lost or after.lost):
            differences[after.task.id].append(float(after.solved) - before.solved)
    return [values for _, values in sorted(differences.items())], len(matched) - sum(map(len, differences.values()))


def judged(found: Difference) -> bool:
    """Whether enough pairs count for a verdict: no more than LOST_SHARE of them were lost."""
    return found.lost <= LOST_SHARE * (found.pairs + found.lost)


def no_verdict(found: Difference, arms: Mapping[str, Sequence[Outcome]]) -> str:
    """Why nothing is concluded from the difference `found` between two `arms`, in one line; empty where something may be."""
    if judged(found):
        return ""
    lost = [f"{count} in {name}" for name, attempts in arms.items() if (count := sum(one.lost for one in attempts))]
    reason = lost_reason([one for attempts in arms.values() for one in attempts])
    return f"{found.lost} of {found.pairs + found.lost} pairs were lost ({', '.join(lost)}), most often by: {reason}"


def sign_flip(pairs: Sequence[Pair], seed: int = 0) -> float:
    """The two-sided p-value of the paired difference being zero: a permutation test that flips the signs of whole tasks."""
    import numpy as np
    from scipy.stats import permutation_test

    data = (np.asarray([sum(task) for task in task_differences(pairs)[0]], float),)
    if len(data[0]) < 2 or not data[0].any():
        return 1.0
    batch, rng = max(1, BATCH // len(data[0])), np.random.default_rng(seed)
    found = permutation_test(data, np.mean, permutation_type="samples", n_resamples=RESAMPLES - 1, batch=batch, rng=rng)
    return float(found.pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """The p-values corrected for having been looked at together (Holm 1979), in the order given."""
    corrected, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        highest = max(highest, min(1.0, values[place] * (len(values) - rank)))
        corrected[place] = highest
    return corrected


def pass_at(k: int, attempts: Sequence[Outcome]) -> tuple[float, float]:
    """pass@k and pass^k: the chances that some, and that all, of k attempts at a task succeed, averaged over tasks.

    Unbiased, from n >= k attempts a task of which c succeeded: 1 - C(n-c, k) / C(n, k) (2107.03374) and C(c, k) / C(n, k)
    (2406.12045). Lost attempts are left out, and tasks that have fewer than k others; without any task both are 0.
    """
    by_task = _by_task(attempts)
    if min(map(len, by_task.values())) < k:
        raise AgentevolveError(f"pass@{k} needs {k} attempts at each task")
    kept = [[one.solved for one in of_task if not one.lost] for of_task in by_task.values()]
    counts = [(len(outcomes), sum(outcomes)) for outcomes in kept if len(outcomes) >= k]
    some = [1 - comb(n - c, k) / comb(n, k) for n, c in counts]
    every = [comb(c, k) / comb(n, k) for n, c in counts]
    return _mean(some), _mean(every)


def report(arm: str, trajectories: Sequence[Outcome], baseline: Sequence[Outcome] | None = None, versus: str = "") -> Report:
    """One arm's figures; with a baseline, called `versus`, also the paired difference to it.

    `success`, `reward` and `turns` are means over the attempts that were not lost, `usage` is the sum over all.
    """
    return pooled_report(arm, [trajectories], None if baseline is None else [baseline], versus)


def pooled_report(
    arm: str, runs: Sequence[Sequence[Outcome]], baselines: Sequence[Sequence[Outcome]] | None = None, versus: str = ""
) -> Report:
    """As `report`, over several runs of an arm (one per seed) and of its baseline, in the same order."""
    played = [attempt for run in runs for attempt in run]
    splits = sorted({attempt.task.split for attempt in played})
    if len(splits) != 1:
        raise AgentevolveError(f"arm {arm!r}: a report needs attempts of one split, not of {', '.join(splits) or 'none'}")
    kept = [attempt for attempt in played if not attempt.lost]
    low, high = success_interval([[float(one.solved) for one in of_task] for of_task in _by_task(kept).values()])
    return Report(
        arm=arm,
        policy=played[0].policy,
        split=splits[0],
        n=len(kept),
        success=success(kept),
        low=low,
        high=high,
        reward=_mean([attempt.reward for attempt in kept]),
        turns=_mean([len(attempt.turns) for attempt in kept]),
        errors=len(played) - len(kept),
        cut=sum(attempt.cut for attempt in kept),
        asked=tuple(sorted({way for attempt in kept for way in attempt.asked})),
        usage=cost_of(played),
        versus=versus,
        difference=None if baselines is None else pooled(_pairs(arm, baselines, runs)),
    )


def success(attempts: Iterable[Outcome]) -> float:
    """The share solved of the attempts that were not lost; 0 if there are none."""
    return _mean([attempt.solved for attempt in attempts if not attempt.lost])


def _normal(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)


def _believed(freedom: int, level: float) -> float:
    """How much of a number estimated with so many degrees of freedom is believed: (z / t)^2, Student's t for the normal's z."""
    from scipy.special import stdtrit

    return float((_normal(level) / stdtrit(freedom, (1 + level) / 2)) ** 2) if freedom else 0.0


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0


def _flat(tasks: Clusters) -> list[float]:
    return [value for task in tasks for value in task]


def _by_task(attempts: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    by_task: dict[str, list[Outcome]] = defaultdict(list)
    for attempt in attempts:
        by_task[attempt.task.id].append(attempt)
    return by_task


def _pairs(arm: str, a: Sequence[Sequence[Outcome]], b: Sequence[Sequence[Outcome]]) -> list[Pair]:
    if len(a) != len(b):
        raise AgentevolveError(f"arm {arm!r}: {len(b)} runs cannot be paired with {len(a)} runs of the baseline")
    return list(zip(a, b, strict=True))


def _matched(a: Sequence[Outcome], b: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    before, after = _by_key(a), _by_key(b)
    if odd := sorted(before.keys() ^ after.keys()):
        raise AgentevolveError(
            f"the two arms did not attempt the same: {len(odd)} attempts are in only one of them, such as {_named(odd[0])}"
        )
    return [(before[key], one) for key, one in after.items()]


def _by_key(attempts: Sequence[Outcome]) -> dict[Key, Outcome]:
    by_key: dict[Key, Outcome] = {}
    for attempt in attempts:
        key = (attempt.task.id, attempt.sample, attempt.seed)
        if key in by_key:
            raise AgentevolveError(f"two attempts at {_named(key)}: one arm's attempts must be one run's")
        by_key[key] = attempt
    return by_key


def _named(key: Key) -> str:
    return f"task {key[0]!r}, sample {key[1]}, seed {key[2]}"
