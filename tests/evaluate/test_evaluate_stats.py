import numpy as np
import pytest

from agentevolve.evaluate import holm, paired, pass_at, pooled, pooled_report, report, sign_flip, wilson
from agentevolve.evaluate.stats import student
from agentevolve.protocols import AgentevolveError
from agentevolve.records import PolicyStamp, Task, Trajectory, Turn, Usage


def attempt(
    task: str, reward: float, *, sample: int = 0, seed: int = 0, end: str = "terminated", split: str = "val", turns: int = 2
):
    turn = Turn(action="go", observation="", usage=Usage(calls=1, prompt_tokens=10, completion_tokens=2, seconds=0.5))
    return Trajectory(
        id=f"{task} {sample} {seed}",
        task=Task(id=task, env="coin", split=split),
        policy=PolicyStamp(model="m", round=1),
        phase="evaluate",
        sample=sample,
        seed=seed,
        turns=(turn,) * turns,
        reward=reward,
        end=end,
    )


def arm(rewards: list[float], seed: int = 0) -> list[Trajectory]:
    return [attempt(f"t{i}", reward, seed=seed) for i, reward in enumerate(rewards)]


def test_wilson_against_published_values():
    # Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29
    for (successes, n), expected in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }.items():
        assert wilson(successes, n) == pytest.approx(expected, abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.8])
def test_wilson_covers_nominally(share: float):
    drawn = np.random.default_rng(0).binomial(100, share, 20_000)
    bounds = np.array([wilson(successes, 100) for successes in range(101)])
    covered = (bounds[drawn, 0] <= share) & (share <= bounds[drawn, 1])
    assert 0.93 <= covered.mean() <= 0.97


@pytest.mark.parametrize("tasks", [30, 100])
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(("before", "after"), [(0.2, 0.2), (0.2, 0.5), (0.1, 0.7)])
def test_the_paired_interval_covers_nominally(tasks, seeds, before, after):
    """Tasks of different difficulty, attempted by both arms with each seed: the interval over task means holds the truth."""
    rng, easy = np.random.default_rng(0), np.random.default_rng(1).normal(size=200_000)

    def chances(share, difficulty):
        return 1 / (1 + np.exp(-(np.log(share / (1 - share)) + difficulty)))

    truth = np.mean(chances(after, easy) - chances(before, easy))
    covered = []
    for _ in range(2000):
        difficulty = rng.normal(size=tasks)
        solved = [rng.random((seeds, tasks)) < chances(share, difficulty) for share in (before, after)]
        low, high = student(list(solved[1].mean(0) - solved[0].mean(0)))
        covered.append(low <= truth <= high)
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_the_permutation_test_rejects_nominally_where_nothing_differs(share):
    """Under no difference one in twenty is called one at the 5% level."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(200):
        a, b = (arm(list((rng.random(30) < share).astype(float))) for _ in range(2))
        found.append(sign_flip([(a, b)], number) < 0.05)
    assert np.mean(found) <= 0.09


def test_the_permutation_test_against_every_sign():
    a, b = arm([0, 0, 0, 0, 1.0]), arm([1.0, 1.0, 1.0, 1.0, 1.0])
    assert sign_flip([(a, b)]) == pytest.approx(2 / 16)  # of the 16 ways to flip four differences, two are as far off
    assert sign_flip([(a, a)]) == 1.0
    assert sign_flip([(a[:1], b[:1])]) == 1.0


def test_holm_by_hand():
    # by hand: in the order of their size 4 x .005, 3 x .01, 2 x .03, 1 x .04, none below the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_pass_at_k_and_pass_to_the_k():
    attempts = [attempt("t0", reward, sample=n) for n, reward in enumerate([1.0, 0.0, 0.0, 1.0])]
    attempts += [attempt("t1", 0.0, sample=n) for n in range(4)]
    assert pass_at(1, attempts) == (0.25, 0.25)
    assert pass_at(2, attempts) == (pytest.approx((1 - 1 / 6) / 2), pytest.approx(1 / 6 / 2))
    assert pass_at(4, attempts) == (0.5, 0.0)
    with pytest.raises(AgentevolveError, match="pass@5 needs 5 attempts at each task"):
        pass_at(5, attempts)


def test_the_paired_difference_is_after_minus_before():
    before, after = arm([0, 0, 0, 1, 1, 0]), arm([1, 1, 0, 1, 0, 1])
    found = paired(before, after[::-1])
    assert (found.mean, found.n) == (pytest.approx(2 / 6), 6)
    assert -1 <= found.low < found.mean < found.high <= 1
    assert paired(before, after) == found, "the same attempts in another order, the same interval"
    back = paired(after, before)
    assert back.mean == -found.mean


def test_partial_reward_is_not_success():
    assert paired(arm([0, 0]), arm([0.99, 1.0])).mean == 0.5


def test_samples_of_a_task_are_one_cluster():
    before = [attempt(f"t{i}", 0, sample=k) for i in range(5) for k in range(20)]
    after = [attempt(f"t{i}", float(i < 2), sample=k) for i in range(5) for k in range(20)]
    found, single = paired(before, after), paired(arm([0] * 5), arm([1, 1, 0, 0, 0]))
    assert found == single, "twenty equal samples say no more about other tasks than one"


def test_equal_differences_have_an_interval_of_no_width():
    assert paired(arm([0, 1, 0]), arm([0, 1, 0])).model_dump() == {"mean": 0, "low": 0, "high": 0, "n": 3}
    assert paired(arm([0] * 4), arm([1] * 4)).model_dump() == {"mean": 1, "low": 1, "high": 1, "n": 4}


def test_one_task_says_nothing_about_others():
    assert paired(arm([0]), arm([1])).model_dump() == {"mean": 1, "low": -1, "high": 1, "n": 1}


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(AgentevolveError, match=r"2 attempts are in only one of them, such as task 't2', sample 0, seed 0"):
        paired(arm([0, 1]), arm([0, 1, 1, 0]))
    with pytest.raises(AgentevolveError, match="did not attempt the same"):
        paired(arm([0, 1], seed=1), arm([0, 1], seed=2))
    with pytest.raises(AgentevolveError, match="two attempts at task 't0'"):
        paired(arm([0, 1]), arm([0, 1]) * 2)
    with pytest.raises(AgentevolveError, match="no attempts to compare"):
        paired([], [])
    with pytest.raises(AgentevolveError, match="1 runs cannot be paired with 2"):
        pooled_report("a", [arm([1])], [arm([1]), arm([0])])


def test_seeds_are_pooled_within_their_tasks():
    rng = np.random.default_rng(0)
    before = [arm(list(rng.integers(0, 2, 40)), seed) for seed in range(3)]
    after = [arm(list(rng.integers(0, 2, 40)), seed) for seed in range(3)]
    found = pooled(list(zip(before, after, strict=True)))
    singles = [paired(a, b) for a, b in zip(before, after, strict=True)]
    assert found.mean == pytest.approx(np.mean([single.mean for single in singles])) and found.n == 40
    assert found.high - found.low < min(single.high - single.low for single in singles)
    copied = pooled([(arm([0, 0, 1, 0], seed), arm([1, 0, 1, 0], seed)) for seed in range(9)])
    assert copied == paired(arm([0, 0, 1, 0]), arm([1, 0, 1, 0])), "repeating the same outcomes narrows nothing"


def test_an_errored_attempt_is_unsolved_and_counted():
    played = [
        attempt("a", 1),
        attempt("b", 1, end="error", turns=0),
        attempt("c", 0.5, turns=4),
        attempt("d", 0, end="truncated"),
    ]
    found = report("base", played)
    assert (found.n, found.success, found.errors) == (4, 0.25, 1)
    assert (found.low, found.high) == wilson(1, 4)
    assert (found.reward, found.turns) == (0.375, 2.0)
    assert found.usage == Usage(calls=8, prompt_tokens=80, completion_tokens=16, seconds=4)
    assert (found.arm, found.split, found.policy.round, found.difference, found.versus) == ("base", "val", 1, None, "")


def test_a_report_with_a_baseline_and_over_seeds():
    found = report("new", arm([1, 1, 0]), arm([0, 1, 0]), "base")
    assert found.versus == "base" and found.difference == paired(arm([0, 1, 0]), arm([1, 1, 0]))
    both = pooled_report("new", [arm([1, 1, 0], 1), arm([0, 1, 0], 2)], [arm([0, 1, 0], 1), arm([0, 1, 1], 2)], "base")
    assert (both.n, both.success, both.difference.n, both.difference.mean) == (6, 0.5, 3, 0)


def test_a_report_needs_attempts_of_one_split():
    with pytest.raises(AgentevolveError, match="'base': a report needs attempts of one split, not of none"):
        report("base", [])
    with pytest.raises(AgentevolveError, match="not of test, val"):
        report("base", [attempt("a", 1), attempt("b", 1, split="test")])
