from functools import cache
from math import comb

import numpy as np
import pytest

from agentevolve.evaluate import holm, paired, pass_at, pooled, pooled_report, report, sign_flip, wilson
from agentevolve.evaluate.gate import forgets, gate, looks, settled
from agentevolve.evaluate.habits import alarms, habits
from agentevolve.evaluate.stats import LOST_SHARE, difference_interval, judged, success_interval, tango
from agentevolve.protocols import AgentevolveError
from agentevolve.records import PolicyStamp, Task, Trajectory, Turn, Usage, lost_reason


def attempt(
    task: str,
    reward: float,
    *,
    sample: int = 0,
    seed: int = 0,
    end: str = "terminated",
    split: str = "val",
    turns: int = 2,
    error: str = "",
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
        error=error,
    )


def arm(rewards: list[float], seed: int = 0) -> list[Trajectory]:
    return [attempt(f"t{i}", reward, seed=seed) for i, reward in enumerate(rewards)]


def lost(task: str, error: str = "TimeoutError: no answer", *, sample: int = 0, seed: int = 0) -> Trajectory:
    return attempt(task, 0, sample=sample, seed=seed, end="error", turns=0, error=error)


def arm_of(signs: str, seed: int = 0) -> list[Trajectory]:
    """An attempt a task: 1 solved, 0 not, x lost."""
    return [lost(f"t{i}", seed=seed) if sign == "x" else attempt(f"t{i}", float(sign), seed=seed) for i, sign in enumerate(signs)]


def chances(share: float, difficulty: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-(np.log(share / (1 - share)) + difficulty)))


EASY = np.random.default_rng(1).normal(size=200_000)


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


@pytest.mark.parametrize(("tasks", "attempts"), [(20, 8), (100, 3)])
@pytest.mark.parametrize("spread", [0.0, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_an_arms_interval_covers_nominally_with_several_attempts_a_task(tasks, attempts, spread, share):
    """Tasks alike, or most of them always or never solved. Wilson over attempts covered 62% of 20 tasks of 8 attempts."""
    rng, truth = np.random.default_rng(0), np.mean(chances(share, spread * EASY))
    covered = []
    for _ in range(1500):
        chance = chances(share, spread * rng.normal(size=tasks))
        low, high = success_interval((rng.random((tasks, attempts)) < chance[:, None]).astype(float).tolist())
        covered.append(low <= truth <= high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_with_one_attempt_a_task_an_arms_interval_is_wilsons():
    for successes, n in [(0, 1), (1, 1), (3, 7), (0, 20), (20, 20), (13, 48)]:
        assert success_interval([[float(place < successes)] for place in range(n)]) == pytest.approx(wilson(successes, n))
    assert success_interval([]) == (0.0, 1.0)


@pytest.mark.parametrize(("tasks", "attempts"), [([[1.0] * 8] * 5, 5), ([[0.0] * 8, [1.0] * 8] * 3, 6), ([[1.0, 0.0]], 1)])
def test_attempts_that_a_task_decides_count_as_one(tasks, attempts):
    share = sum(map(sum, tasks)) / sum(map(len, tasks))
    assert success_interval(tasks) == pytest.approx(wilson(share * attempts, attempts))


def test_tango_against_published_values():
    # Fagerland, Lydersen and Laake 2014: 1 and 7 discordant of the 21 pairs of Bentur et al. 2009
    assert tango(1 / 21, 7 / 21, 21, 1.959964) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert tango(7 / 21, 1 / 21, 21, 1.959964) == pytest.approx((0.026, 0.517), abs=5e-4)


@pytest.mark.parametrize("tasks", [30, 100])
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(("before", "after"), [(0.2, 0.2), (0.2, 0.5), (0.1, 0.7)])
def test_the_paired_interval_covers_nominally(tasks, seeds, before, after):
    """Tasks of different difficulty, attempted by both arms with each seed: the interval over tasks holds the truth."""
    rng = np.random.default_rng(0)
    truth, interval = np.mean(chances(after, EASY) - chances(before, EASY)), cache(difference_interval)
    covered = []
    for _ in range(4500 // seeds):
        difficulty = rng.normal(size=tasks)
        solved = [(rng.random((seeds, tasks)) < chances(share, difficulty)).astype(float) for share in (before, after)]
        low, high = interval(tuple(sorted(map(tuple, (solved[1] - solved[0]).T.tolist()))))
        covered.append(low <= truth <= high)
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize(("tasks", "exact"), [(10, 1.0), (20, 0.9997), (40, 0.9966), (100, 0.9659), (200, 0.9672)])
def test_the_paired_interval_covers_five_points_over_a_base_that_never_solves(tasks, exact):
    """Exactly, over all outcomes; Student's t covered 40, 64 and 87% of 10, 20 and 40 tasks.

    More than 97% while five points are few tasks: among 10 or 20 no interval covers 93 to 97%, since the number solved is
    discrete, and what is not seen, a task lost, is not taken to be impossible.
    """
    covered = 0.0
    for solved in range(tasks + 1):
        low, high = difference_interval([[float(place < solved)] for place in range(tasks)])
        covered += comb(tasks, solved) * 0.05**solved * 0.95 ** (tasks - solved) * (low <= 0.05 <= high)
    assert covered == pytest.approx(exact, abs=5e-5)


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
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((single.mean, single.low, single.high, single.n))


@pytest.mark.parametrize(
    ("tasks", "value", "low", "high"),
    [  # by hand, with Student's t of n: t^2 / (n + t^2) from 0, and twice that from the ends of the scale
        (3, 0, -0.7715, 0.7715),
        (10, 0, -0.3318, 0.3318),
        (40, 0, -0.0927, 0.0927),
        (10, 1, 0.3365, 1),
        (10, -1, -1, -0.3365),
        (40, 1, 0.8147, 1),
    ],
)
def test_equal_differences_leave_to_doubt_what_was_not_seen(tasks, value, low, high):
    """As the rule of three, by which what n tasks do not show may still happen in 3 / n of them."""
    assert difference_interval([[value]] * tasks) == pytest.approx((low, high), abs=1e-4)
    assert difference_interval([[value] * 8] * tasks) == pytest.approx((low, high), abs=1e-4), "eight alike say no more"


@pytest.mark.parametrize("tasks", [1, 2])
def test_one_or_two_tasks_say_nothing_about_others(tasks):
    found = paired(arm([0] * tasks), arm([1] * tasks))
    assert (found.mean, found.low, found.high, found.n) == (1, -1, 1, tasks)


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
    single = paired(arm([0, 0, 1, 0]), arm([1, 0, 1, 0]))
    assert (copied.low, copied.high) == pytest.approx((single.low, single.high)), "repeating the same outcomes narrows nothing"


def test_a_lost_attempt_is_left_out_and_counted():
    played = [attempt("a", 1), lost("b"), attempt("c", 0.5, turns=4), attempt("d", 0, end="truncated")]
    found = report("base", [*played, attempt("e", 1, end="error", turns=1)])
    assert (found.n, found.success, found.errors) == (3, pytest.approx(1 / 3), 2)
    assert (found.low, found.high) == pytest.approx(wilson(1, 3))
    assert (found.reward, found.turns) == (0.5, pytest.approx(8 / 3))
    assert found.usage == Usage(calls=9, prompt_tokens=90, completion_tokens=18, seconds=4.5), "what a lost one cost was paid"
    assert (found.arm, found.split, found.policy.round, found.difference, found.versus) == ("base", "val", 1, None, "")


@pytest.mark.parametrize(
    ("before", "after", "mean", "pairs", "lost", "judges"),
    [
        ("0000000000", "1111111111", 1, 10, 0, True),
        ("x000000000", "1111111111", 1, 9, 1, True),  # as much as LOST_SHARE
        ("xx00000000", "1111111111", 1, 8, 2, False),
        ("0000000000", "11111111xx", 1, 8, 2, False),
        ("x000000000", "111111111x", 1, 8, 2, False),
        ("x000000000", "x111111111", 1, 9, 1, True),  # one pair, though both are lost
        ("xxxxxxxxxx", "1111111111", 0, 0, 10, False),
        ("xxxxxxxxxx", "xxxxxxxxxx", 0, 0, 10, False),
        ("x00000000", "111111111", 1, 8, 1, False),
        ("01010101010101010101", "x1010101010101010101", 0, 19, 1, True),
    ],
)
def test_pairs_with_a_lost_attempt_are_left_out(before, after, mean, pairs, lost, judges):
    a, b = arm_of(before), arm_of(after)
    found = paired(a, b)
    assert (found.pairs, found.lost, found.n, judged(found)) == (pairs, lost, pairs, judges)
    assert found.mean == pytest.approx(mean, abs=0.11) and -1 <= found.low <= found.mean <= found.high <= 1
    verdict = gate("base", a, {"memory": b}, "interval", 0.0)
    assert verdict["promoted"] == ("memory" if judges and mean else None)
    assert bool(verdict["no_verdict"]) is not judges
    kept = [n for n in range(len(a)) if not (a[n].lost or b[n].lost)]
    assert not kept or sign_flip([(a, b)]) == sign_flip([([a[n] for n in kept], [b[n] for n in kept])])
    assert (report("a", a).n, report("a", a).errors) == (len(before) - before.count("x"), before.count("x"))


def test_no_verdict_says_how_many_were_lost_where_and_why():
    before = arm_of("xxx0000000")
    after = [*arm_of("x11111111"), lost("t9", "OSError: \x1b[31mno\nspace " + "x" * 400)]
    verdict = gate("base", before, {"fine": arm_of("1111111111"), "memory": after}, "mean", 0.0)
    assert (verdict["promoted"], verdict["holder"], set(verdict["differences"])) == (None, "base", {"fine", "memory"})
    assert verdict["no_verdict"] == "3 of 10 pairs were lost (3 in base), most often by: TimeoutError: no answer (3 of 3)"
    told = gate("base", before, {"memory": after}, "mean", 0.0)["no_verdict"]
    assert told == "4 of 10 pairs were lost (3 in base, 2 in memory), most often by: TimeoutError: no answer (4 of 5)"
    assert lost_reason(after[-1:]).startswith("OSError: [31mno space xxx")
    assert lost_reason([lost("t", "")]) == "no reason was given (1 of 1)" and lost_reason(arm_of("01")) == ""
    assert len(lost_reason(after[-1:])) <= 200 + len(" (1 of 1)") and LOST_SHARE == 0.10


def test_lost_attempts_leave_a_task_to_the_others():
    before = [lost("t0"), *(attempt("t0", 0, sample=n) for n in (1, 2)), *(attempt("t1", 1, sample=n) for n in range(3))]
    after = [attempt(f"t{task}", 1, sample=n) for task in range(2) for n in range(3)]
    found = paired(before, after)
    assert (found.mean, found.n, found.pairs, found.lost) == (pytest.approx(2 / 5), 2, 5, 1)
    assert pass_at(3, before) == (1.0, 1.0) and pass_at(2, before) == (0.5, 0.5)
    assert pass_at(1, [lost("t0"), lost("t1")]) == (0.0, 0.0)


def promoted(tasks: int, attempts: int, candidates: int, rng: np.random.Generator) -> bool:
    """Whether the gate promotes one of several candidates that are no better than the base, whose attempts they share."""
    chance = chances(0.4, rng.normal(size=tasks))
    arms = []
    for _ in range(1 + candidates):
        solved = rng.random((attempts, tasks)) < chance
        arms.append([attempt(f"t{t}", float(solved[k, t]), sample=k, turns=0) for k in range(attempts) for t in range(tasks)])
    return gate("base", arms[0], {str(n): one for n, one in enumerate(arms[1:])}, "interval", 0.0)["promoted"] is not None


@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize(
    ("tasks", "attempts", "trials"), [(2, 1, 200), (2, 4, 200), (3, 1, 200), (8, 1, 400), (8, 3, 300), (30, 1, 300)]
)
def test_the_gate_promotes_what_is_no_better_at_most_at_its_level(tasks, attempts, trials, candidates):
    """At most 2.5%, and three standard errors of the simulation; two tasks promote nobody."""
    rng = np.random.default_rng(0)
    found = np.mean([promoted(tasks, attempts, candidates, rng) for _ in range(trials)])
    assert found <= (0.025 + 3 * (0.025 * 0.975 / trials) ** 0.5 if tasks > 2 else 0)


@pytest.mark.parametrize(("won", "of", "promotes"), [(5, 5, False), (6, 6, True), (5, 6, False), (8, 9, True), (7, 9, False)])
def test_a_few_tasks_promote_where_the_sign_test_does(won, of, promotes):
    """By hand, the chance of so many heads: 1/32, 1/64, 7/64, 10/512, 46/512."""
    base, better = arm([0] * won + [1] * (of - won)), arm([1] * won + [0] * (of - won))
    assert (gate("base", base, {"memory": better}, "interval", 0.0)["promoted"] == "memory") is promotes


def test_the_gates_intervals_are_corrected_for_the_candidates():
    base, better = arm([0] * 20), arm([1] * 5 + [0] * 15)
    one = gate("base", base, {"a": better}, "interval", 0.0)
    two = gate("base", base, {"a": better, "b": base}, "interval", 0.0)
    assert (one["promoted"], one["level"], one["no_verdict"]) == ("a", pytest.approx(0.95), "")
    assert (two["promoted"], two["level"]) == (None, pytest.approx(0.975)), "what is judged by is what is kept"
    assert one["differences"]["a"] == paired(base, better).model_dump()
    assert two["differences"]["a"]["low"] <= 0 < one["differences"]["a"]["low"]
    assert two["differences"]["a"] == paired(base, better, two["level"]).model_dump()
    assert gate("base", base, {}, "interval", 0.0)["promoted"] is None


def test_the_chance_of_error_is_spent_over_the_looks_and_most_of_it_at_the_end():
    assert looks(40, 1) == [(40, pytest.approx(0.05))]
    found = looks(100, 4)
    assert [tasks for tasks, _ in found] == [25, 50, 75, 100]
    assert [error for _, error in found] == pytest.approx([8.86e-5, 0.00549, 0.01804, 0.02638], rel=2e-3)  # O'Brien-Fleming
    assert sum(error for _, error in found) == pytest.approx(0.05)
    assert [tasks for tasks, _ in looks(3, 5)] == [1, 2, 3]


def sequential(base, after, times: int) -> tuple[bool, int]:
    """Whether the gate promotes `after` over `base` (solved or not, by task) with so many looks, and after how many tasks."""
    for tasks, error in looks(len(base), times):
        verdict = gate("base", arm(base[:tasks]), {"a": arm(after[:tasks])}, "interval", 0.0, error)
        if settled(verdict):
            break
    return verdict["promoted"] == "a", tasks


def simulated(share: float, later: float, times: int, trials: int, tasks: int = 100) -> tuple[float, float]:
    """How often what solves `later` of the tasks is promoted over what solves `share`, and after how many tasks, a mean."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(trials):
        difficulty = rng.normal(size=tasks)
        solved = [(rng.random(tasks) < chances(one, difficulty)).astype(float).tolist() for one in (share, later)]
        found.append(sequential(*solved, times))
    return float(np.mean([won for won, _ in found])), float(np.mean([many for _, many in found]))


@pytest.mark.parametrize("times", [4, 10])
def test_looking_early_promotes_what_is_no_better_no_more_often(times):
    """At most 2.5%, and three standard errors of the simulation."""
    trials = 400
    wrong, _ = simulated(0.4, 0.4, times, trials)
    assert wrong <= 0.025 + 3 * (0.025 * 0.975 / trials) ** 0.5


def test_a_clear_winner_or_loser_ends_the_measurement_early():
    won, many = simulated(0.2, 0.8, 4, 100)
    assert won > 0.98 and many < 60
    won, many = simulated(0.8, 0.2, 4, 100)
    assert won == 0 and many < 60
    assert simulated(0.4, 0.6, 4, 100)[0] > simulated(0.4, 0.6, 1, 100)[0] - 0.1  # looking costs little power


def test_nothing_is_settled_while_no_candidate_is_measured():
    assert not settled(gate("base", arm([0, 1]), {}, "interval", 0.0))


def test_a_switched_off_gate_promotes_the_best_candidate_whatever_it_is():
    base, worse, worst = arm([1, 1, 1, 1]), arm([1, 1, 0, 0]), arm([0, 0, 0, 0])
    assert gate("base", base, {"worst": worst, "worse": worse}, "none", 0.0)["passed"] == ["worse", "worst"]
    lost_all = arm_of("xxxx")
    assert gate("base", base, {"a": lost_all}, "none", 0.0)["promoted"] is None


@pytest.mark.parametrize(
    ("after", "rule", "tolerance", "worse"),
    [
        ([1] * 40, "interval", 0.1, False),
        ([1] * 30 + [0] * 10, "interval", 0.1, True),
        ([1] * 38 + [0] * 2, "interval", 0.1, True),  # it may be: nothing proves that it is not
        ([1] * 38 + [0] * 2, "mean", 0.1, False),
        ([0] * 40, "none", 0.0, False),
    ],
)
def test_forgetting_is_what_may_be_worse_by_more_than_the_tolerance(after, rule, tolerance, worse):
    assert forgets(arm([1] * 40), arm(after), rule, tolerance)[1] is worse


def acting(*actions: str, tokens: int = 2, admitted=("north", "south", "take")) -> Trajectory:
    turns = [
        Turn(action=action, observation="", actions=admitted, usage=Usage(calls=1, completion_tokens=tokens))
        for action in actions
    ]
    return attempt("t", 1.0).model_copy(update={"actions": admitted, "turns": tuple(turns)})


def test_what_has_narrowed_down_to_nothing_raises_alarms():
    lively = habits([acting("north", "south"), acting("take", "north"), lost("t")])
    assert lively.model_dump() == {"different": 3, "inadmissible": 0.0, "tokens": 2.0}
    assert alarms(lively, lively) == []
    many = habits([acting(*(f"go {n}" for n in range(8)), admitted=())])
    assert (many.different, many.inadmissible) == (8, 0.0)  # where nothing is listed everything is admitted
    stuck = habits([acting("north", "north"), acting("north")])
    assert alarms(many, stuck) == ["1 different actions, before 8"]
    odd = habits([acting("north", "fly", tokens=9)])
    assert alarms(lively, odd) == ["50% of its actions are not admitted, before 0%", "9 tokens an action, before 2"]
    assert habits([]).different == 0 and alarms(habits([]), habits([])) == []


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
