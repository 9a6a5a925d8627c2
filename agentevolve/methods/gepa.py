"""GEPA: instructions that evolve by reflection on traces, with a Pareto front over tasks (Agrawal et al., 2507.19457).

Cells (ours): feedback, environment; correcting, critique-based; filtering, metric-based; in context, working memory;
evaluation, quantitative.
Deviations: 1. the algorithm is the authors' library, the reflecting model the policy's own. 2. the one evolved text is the
policy's instructions, which follow the house rules. 3. feedback and Pareto set are drawn from the train tasks; where there are
few they are the same. 4. a candidate's attempt at a task is made once: it is not sampled anew when the task comes again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from agentevolve.acquire import train_only
from agentevolve.act.asking import ask
from agentevolve.act.prompting import transcript
from agentevolve.act.rollout import rollout
from agentevolve.policy import Count, Policy
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Task, Trajectory
from agentevolve.run.folder import Run

TEXT = "instructions"  # the name of the one text that evolves
SEED = "Do what the task asks for, in as few steps as you can."
LONGEST = 500  # tokens of new instructions


def gepa(
    policy: Policy, tasks: Sequence[Task], run: Run, *, calls: Count = 150, minibatch: Count = 3, pareto: Count = 20
) -> Policy:
    """At most about `calls` attempts: a parent from the Pareto front over `pareto` tasks is reflected on and changed.

    A change is accepted if it is strictly better on `minibatch` of the other tasks.
    """
    from gepa import optimize

    train_only(tasks)
    front, rest = list(tasks[:pareto]), list(tasks[pareto:])
    world = World(policy, run)
    result = optimize(
        {TEXT: policy.instructions or SEED},
        rest if len(rest) >= minibatch else list(tasks),
        front,
        adapter=world,
        reflection_lm=world.reflect,
        reflection_minibatch_size=minibatch,
        max_metric_calls=calls,
        stop_callbacks=lambda _: world.failure is not None,
        logger=world,
        seed=run.derive("gepa", run.round),
    )
    if world.failure:
        raise world.failure
    return policy.using(instructions=result.best_candidate[TEXT])


class World:
    """What GEPA asks for: attempts with a candidate's instructions, what can be learnt from them, and a model's reflection.

    The library goes on when a reflection fails; `failure` keeps what is the user's to mend, such as the budget's end.
    """

    propose_new_texts = None  # the library's own prompt

    def __init__(self, policy: Policy, run: Run) -> None:
        self.policy, self.run = policy, run
        self.asked = 0
        self.failure: AgentevolveError | None = None

    def evaluate(self, batch: Sequence[Task], candidate: Mapping[str, str], capture_traces: bool = False) -> Any:
        """The attempts at a batch, with their rewards; all candidates meet a task with the same luck."""
        from gepa import EvaluationBatch

        acting, phase = self.policy.using(instructions=candidate[TEXT]), f"{self.run.round}/acquire/gepa"
        mark = hashlib.sha256(candidate[TEXT].encode()).hexdigest()[:12]
        different = list({task.id: task for task in batch}.values())  # a minibatch may be filled up with a task twice
        made = {one.task.id: one for one in rollout(acting, different, self.run, phase=f"{phase}/{mark}", luck=phase)}
        attempts = [made[task.id] for task in batch]
        typical = fmean([one.reward for one in attempts if not one.lost] or [0.0])  # a lost attempt says nothing of the candidate
        scores = [typical if one.lost else one.reward for one in attempts]
        return EvaluationBatch(outputs=[one.id for one in attempts], scores=scores, trajectories=attempts)

    def make_reflective_dataset(self, candidate: Mapping[str, str], eval_batch: Any, components_to_update: Sequence[str]) -> Any:
        """What the reflecting model is shown of each attempt."""
        return {TEXT: [_record(one) for one in eval_batch.trajectories]}

    def reflect(self, prompt: Any) -> str:
        """The answer of the policy's model; a failing backend's silence is an error, so that the parent is left as it is."""
        self.asked += 1
        try:
            said = ask(self.policy, self.run, f"gepa/{self.run.round}/{self.asked}", str(prompt), max_tokens=LONGEST)
        except AgentevolveError as failure:
            self.failure = failure
            raise
        if not said:
            raise RuntimeError("no answer")
        return said

    def log(self, message: str) -> None:
        """The journal tells what happened; nothing is printed."""


def _record(attempt: Trajectory) -> dict[str, str]:
    worth = "The task was done." if attempt.solved else f"The task was not done; {attempt.reward:.0%} of the reward was earned."
    return {"The attempt": transcript(attempt), "Feedback": attempt.error or worth}
