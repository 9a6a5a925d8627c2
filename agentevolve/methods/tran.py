"""TRAN: if-then rules from failures, kept if they are seen to help, recalled later, the unused ones dropped (2310.15746).

Cells (the survey's placement): solution evolution, grounded; in context, external memory; evaluation, qualitative.
Cells (ours): feedback, environment; correcting, critique-based.
Deviations: 1. rules are recalled by the nearness of their text to the task's first text, as the memory's embedding model sees
it; the paper uses BM25. 2. tasks are taken by rounds, not one by one. 3. a rule is verified by trying its task again, where luck
plays a part. 4. the collective rule for similar failures must help in one of their tasks as well, which we are not sure that the
paper asks for. 5. how many rules are written of a failure, and how `alike` failures must look to be called similar, is ours. 6.
a rule that repeats or contradicts one of the three closest known ones is dropped. 7. "least recently used" goes by rounds.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.policy import Count, Policy, Share
from agentevolve.records import Task
from agentevolve.refine import collective, if_then, proven, recent, unheard, unsolved
from agentevolve.run.folder import Run
from agentevolve.update import before, memory_of, remember, rewrite, sound


def tran(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    written: Count = 3,
    alike: Share = 0.8,
    nearest: Count = 3,
    cap: Count = 100,
) -> Policy:
    """Attempt, write rules of what failed, keep those that mend it, or one that several failures share; at most `cap` rules."""
    recall = policy.recall.by_nearness({"insight": nearest})
    held, policy = before(run, "insight"), remember(policy.using(recall=recall), [], run)
    phase, memory = f"{run.round}/acquire", memory_of(run)
    rules = sound(if_then(unsolved(rollout(policy, tasks, run, phase=phase)), policy, run, most=written), run)
    good = proven(rules, policy, run, phase=f"{phase}/rule")
    mended = {id for rule in good for id in rule.sources}
    shared = collective([rule for rule in rules if not mended & set(rule.sources)], policy, run, memory, above=alike)
    good += proven(sound(shared, run), policy, run, phase=f"{phase}/collective")
    known = held + unheard(good, held, policy, run, memory)
    return rewrite(policy, recent(known, run.acquired(), cap), run, "insight", "least recently used")
