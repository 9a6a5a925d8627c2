"""What a round has come to: its arms measured on held-out tasks, and whether a candidate replaces the policy in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentevolve.act.rollout import rollout, unlike
from agentevolve.config import Config
from agentevolve.evaluate.gate import forgets, gate, looks, settled
from agentevolve.evaluate.habits import alarms, habits
from agentevolve.evaluate.stats import no_verdict, report
from agentevolve.loop.policies import BEGUN, GATE, stale
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Task, Trajectory
from agentevolve.run.figures import figures
from agentevolve.run.folder import EVALUATION, Run

CANDIDATES = ("memory", "distilled", "distilled+memory")  # arms the gate may promote
STILL = ("random", "oracle", "base")  # arms that no round changes: measured once
IN_PLACE = "in place"

Attempts = dict[str, list[Trajectory]]  # by arm


def judged(
    policy: Policy,
    arms: Mapping[str, Policy],
    val: Sequence[Task],
    guards: Mapping[str, Sequence[Task]],
    run: Run,
    number: int,
    config: Config,
) -> Policy:
    """Measure round `number`'s arms on `val` and let the gate decide which policy is in place after it.

    A candidate that passes is measured on each of the `guards`, beside the policy in place, before it is promoted.
    """
    name = f"{number}/val"
    every = dict(arms) if policy in arms.values() else {**arms, IN_PLACE: policy}
    if GATE + name not in run.facts:
        results, verdict = _looked(policy, every, val, run, name, config)
        holder = verdict["holder"]
        before = habits(results[holder])
        verdict["alarms"] = {one: alarms(before, habits(results[one])) for one in verdict["differences"]}
        verdict["guards"] = _guarded(verdict, every, guards, run, name, config)
        forgetful = [one for one, found in verdict["guards"].items() if any(change["forgets"] for change in found.values())]
        verdict["promoted"] = next((one for one in verdict["passed"] if one not in forgetful), None)
        run.once(GATE + name, lambda: verdict)
    verdict = run.facts[GATE + name]
    begun = run.facts.get(f"{BEGUN}{number}")
    more = {"stale": float(stale(begun))} if begun else {}
    _tell(run, number, name, more | {"promoted": float(bool(verdict["promoted"]))})
    return every[verdict["promoted"]] if verdict["promoted"] else policy


def _tell(run: Run, number: int, name: str, more: dict[str, float]) -> None:
    """Tell who keeps figures what the evaluation of that name has found, once, and what the run has cost by then."""
    if f"told {name}" not in run.facts and figures(run.folder, number, lambda: _figures(run, name) | more):
        run.once(f"told {name}", lambda: True)


def _figures(run: Run, name: str) -> dict[str, float]:
    split = name.rpartition("/")[2]
    found: dict[str, float] = {}
    for arm, ids in run.evaluations()[name].items():
        known = run.outcomes(ids)
        told = report(arm, [known[id] for id in ids])
        shown = {"success": told.success, "low": told.low, "high": told.high, "reward": told.reward, "turns": told.turns}
        found |= {f"{split}/{arm}/{what}": value for what, value in (shown | {"n": float(told.n)}).items()}
    spent = run.spent()
    return found | {"tokens": float(spent.tokens), "usd": spent.usd, "attempts": float(len(run.attempts()))}


def measured(
    arms: Mapping[str, Policy], tasks: Sequence[Task], run: Run, name: str, samples: int
) -> tuple[Attempts, dict[str, list[str]]]:
    """Every arm on the same tasks and seeds, asked alike; the ids of each arm's attempts besides.

    A backend that refused on the way what held the model in the arms before is asked again for those.
    """
    luck = name.partition("/")[2] or name
    results: Attempts = {}
    odd: list[str] = [""]
    while odd:
        for arm, policy in arms.items():
            phase = f"{luck}/{arm}" if arm in STILL else f"{name}/{arm}"
            results[arm] = rollout(policy, tasks, run, phase=phase, samples=samples, luck=luck, measuring=True)
        odd = unlike([attempt for attempts in results.values() for attempt in attempts])
        run.again(name, odd)
    return results, {arm: [attempt.id for attempt in attempts] for arm, attempts in results.items()}


def record(run: Run, name: str, ids: dict[str, list[str]]) -> None:
    """Journal the evaluation of that name, and that its lost attempts may stay lost: what follows is derived without them."""
    run.once(EVALUATION + name, lambda: ids)
    run.accept(name, [id for of_arm in ids.values() for id in of_arm])


def _looked(
    policy: Policy, arms: Mapping[str, Policy], val: Sequence[Task], run: Run, name: str, config: Config
) -> tuple[Attempts, dict[str, Any]]:
    """The arms' attempts at as many of the tasks as the gate wanted to see, and its verdict on them."""
    rule = config.gate
    holder = next(arm for arm, one in arms.items() if one == policy)
    for tasks, error in looks(len(val), rule.looks):
        results, ids = measured(arms, val[:tasks], run, name, config.val.samples)
        rivals = {arm: results[arm] for arm in CANDIDATES if arm in results and arm != holder}
        verdict = gate(holder, results[holder], rivals, rule.rule, rule.margin, error)
        if tasks == len(val):
            run.once(EVALUATION + name, lambda ids=ids: ids)  # type: ignore[misc]
        _insist(verdict["no_verdict"], run, name)
        if tasks == len(val) or settled(verdict):
            break
    record(run, name, ids)
    return results, verdict | {"tasks": tasks, "of": len(val)}


def _guarded(
    verdict: Mapping[str, Any],
    arms: Mapping[str, Policy],
    guards: Mapping[str, Sequence[Task]],
    run: Run,
    name: str,
    config: Config,
) -> dict[str, dict[str, Any]]:
    """What the candidates that passed change on the guards' tasks, the best first, up to the first that forgets nothing."""
    found: dict[str, dict[str, Any]] = {}
    holder = verdict["holder"]
    for arm in verdict["passed"] if guards else []:
        found[arm] = {}
        for guard, tasks in guards.items():
            place = f"{name}/guard/{guard}"
            results, ids = measured({holder: arms[holder], arm: arms[arm]}, tasks, run, place, 1)
            change, worse = forgets(results[holder], results[arm], config.gate.rule, config.gate.tolerance)
            _insist(no_verdict(change, results), run, place)
            found[arm][guard] = {**change.model_dump(), "forgets": worse}
            run.accept(place, [id for of_arm in ids.values() for id in of_arm])
        if not any(one["forgets"] for one in found[arm].values()):
            break
    return found


def _insist(why: str, run: Run, name: str) -> None:
    if why:
        number = name.partition("/")[0]
        raise AgentevolveError(f"{run.folder}: round {number}: no verdict: {why}; mend it and go on with --resume")
