"""agentevolve, the default method: learn in context and in weights from the same experience.

Acquire: k warm attempts at each task. Refine: best-of-k by fewest turns (rejection sampling as in RFT, 2308.01825, and
ReST-EM, 2312.06585), and reflections on tasks that no attempt solved (Reflexion, 2303.11366). Update: the kept attempts
become demos in memory *and* rows to fine-tune on, from the base, over all rounds so far (AgentEvol, 2406.04151). What the
weights in place have absorbed, so that they solve its task without memory, retires from the context.

Cells (ours): solution evolution, interactive; feedback, environment; filtering, metric-based; correcting, critique-based;
in weights, replay; in context, external memory.
Deviations: 1. none: it is this project's own.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.local.train import LoraSettings
from agentevolve.policy import Count, Policy, Share
from agentevolve.records import Task
from agentevolve.refine import best, demos, reflect, unsolved
from agentevolve.run.folder import Run
from agentevolve.update import absorbed, examples, finetune, recalling, remember


def agentevolve(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    samples: Count = 8,
    epsilon: tuple[Share, ...] = (0.3,),
    temperature: float = 1.0,
    per_task: Count = 1,
    max_turns: Count | None = None,
    every: Count = 1,
    absorb: Count = 1,
    reflections: Count = 8,
    rows: Count = 200,
    keep_memory: Share = 0.0,
    lora: LoraSettings = LoraSettings(),
) -> Policy:
    """One round: the candidate that learnt from `policy`'s attempts at `tasks`, `samples` each.

    `epsilon` lists one value a round (the last one stays): a first round at 1.0 explores at random and asks no model at all.
    At most `per_task` solutions of at most `max_turns` turns are kept, and at most `rows` trained on, in every `every`th round
    (0: never). In a share `keep_memory` of them the prompt begins with what the candidate recalls, so that its weights learn to
    use memory as well as to do without (memory dropout). From the second round on `absorb` attempts without memory say whether
    the weights have absorbed a task (0: none).
    """
    explorer = policy.using(epsilon=epsilon[min(run.round, len(epsilon)) - 1], temperature=temperature)
    attempts = rollout(explorer, tasks, run, phase=f"{run.round}/acquire", samples=samples)

    known = absorbed(policy, run, attempts=absorb)
    shortest = functools.partial(best, per_task=per_task, max_turns=max_turns)
    shown = [one for one in shortest(attempts) if one.task.id not in known]
    lost = unsolved(attempts)[:reflections]
    candidate = remember(policy, demos(shown, run.round) + reflect(lost, policy, run), run)

    if not every or run.round % every:
        return candidate
    learnt = shortest(run.acquired())[:rows]
    if keep_memory:
        learnt = recalling(learnt, candidate, run)
    return finetune(candidate, examples(learnt, keep_memory=keep_memory), run, f"round-{run.round}", lora)
