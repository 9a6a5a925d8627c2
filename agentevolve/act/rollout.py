"""Tasks × samples → trajectories: what is planned, what is lost and made again, resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentevolve.act.attempt import Order, Plan
from agentevolve.act.workers import work
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Task, Trajectory, lost_reason
from agentevolve.run.folder import Run
from agentevolve.run.shards import take_in_all

AGAIN = 2  # further passes over the attempts that a passing failure of the backend cost


def rollout(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    phase: str,
    samples: int = 1,
    luck: str | None = None,
    hints: Mapping[str, str] | None = None,
    measuring: bool = False,
) -> list[Trajectory]:
    """`samples` attempts of `policy` at each task, in the order of (task, sample), each journalled in `run` as it finishes.

    `phase` names this rollout within the run: an attempt that its journal holds already is not made again. An attempt's seed
    is derived from the run's seed, `luck` (the phase, if not given), the task and the sample; evaluations share their luck,
    so that two policies are compared on the same tasks and seeds. `hints` are shown before the tasks of those ids, once.

    A failing world or backend makes a trajectory with end="error": lost, which is no outcome. Where the failure may pass, it is
    made again at once, else when the run goes on; unless what follows was derived without it: that is so for any rollout but a
    `measuring` one, whose caller says when it was used (`Run.accept`). Raises AgentevolveError when all are lost, BudgetExceeded
    or another AgentevolveError after the attempts under way have ended.
    """
    policy = _as_known(policy, run)
    plans = [
        Plan(f"{phase}/{task.id}/{n}", phase, task, n, run.derive(luck or phase, task.id, n), (hints or {}).get(task.id, ""))
        for task in tasks
        for n in range(samples)
    ]
    take_in_all(run)
    todo = [plan for plan in plans if plan.id not in run.trajectories]
    for _ in range(1 + AGAIN):
        if todo:
            passing = work(todo, Order(policy, phase, measuring), run)
            todo = [plan for plan in todo if plan.id in passing]
    ids = [plan.id for plan in plans]
    if ids and all(id in run.lost for id in ids):
        why = lost_reason(run.lost[id] for id in ids)
        raise AgentevolveError(f"{phase}: all {len(ids)} attempts were lost: {why}; mend it and go on")
    if not measuring:
        run.accept(phase, ids)
        run.rolled()
    made = run.attempts()
    found = [made[id] for id in ids]
    if measuring and (odd := unlike(found)):
        run.again(phase, odd)
        return rollout(policy, tasks, run, phase=phase, samples=samples, luck=luck, hints=hints, measuring=True)
    return found


def _as_known(policy: Policy, run: Run) -> Policy:
    """The policy, recalling nothing that came after what the run knows: its stamp says so, too."""
    if run.known is None or not policy.memory:
        return policy
    return policy.using(as_of=run.known if policy.as_of is None else min(policy.as_of, run.known))


def unlike(attempts: Sequence[Trajectory]) -> list[str]:
    """The ids of the attempts in which the model was held otherwise than in the last of them: a backend refused it on the way."""
    ways = [one.asked[-1] for one in attempts if one.asked]
    return [one.id for one in attempts if one.asked and one.asked != (ways[-1],)]
