"""DPSE: a censor's satisfaction steers what is practised; imitate what satisfies, then prefer it, often-met topics most.

A Dual-Phase Self-Evolution Framework, Sun, Zhang and Zeng, 2507.15281.
Cells (ours): task evolution, selective; solution evolution, contrastive; feedback, model; filtering, metric-based;
in weights, replay.
Deviations: 1. the paper gives no formulas: satisfaction is the mean of a grade, variety and coming to an end, all of which this
policy's own model or the record of the attempt supplies, not a user. 2. the data are expanded by more attempts at the tasks of
topics that are served badly; the paper generates new data. 3. topics are chosen from a given list, held to it, without the
paper's filter for uncertain ones. 4. a pair's weight is how often its topic is met, over the mean of the topics; that this is
the paper's "frequency-aware" we are not sure. 5. LoRA instead of all weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.local.train import LoraSettings
from agentevolve.policy import Count, Policy, Share
from agentevolve.records import Task
from agentevolve.refine import best_worst, cap, censor, differing, keep, learnable, topics, underserved
from agentevolve.run.folder import Run
from agentevolve.update import by_frequency, examples, finetune, preferences

TOPICS = ("finding", "moving", "using", "making", "calculating", "explaining")
GROUND = LoraSettings()
PREFER = LoraSettings(objective="dpo", beta=0.1, learning_rate=5e-5, epochs=1)


def dpse(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    samples: Count = 2,
    expand: Count = 2,
    at_least: Share = 0.7,
    temperature: float = 1.0,
    known: tuple[str, ...] = TOPICS,
    ground: LoraSettings = GROUND,
    prefer: LoraSettings = PREFER,
) -> Policy:
    """`samples` attempts a task, `expand` more where its topic, one of those `known`, is served badly; then both phases.

    Each task's most satisfying attempt, if `at_least` that, is imitated, going on from the policy's adapter (`ground`); then it
    is preferred to the least satisfying one, going on from there (`prefer`).
    """
    warm = policy.using(temperature=temperature)
    met = learnable(rollout(warm, tasks, run, phase=f"{run.round}/acquire", samples=samples))
    topic, served = topics(met, policy, run, known), censor(met, policy, run)
    again = underserved(met, served, topic)
    lived = met + learnable(rollout(warm, again, run, phase=f"{run.round}/acquire/expanded", samples=expand))
    served |= censor(lived[len(met) :], policy, run)
    ranked = sorted(keep(lived, at_least=at_least, scores=served), key=lambda one: -served[one.id])
    start = policy.adapter
    grounded = finetune(policy, examples(cap(ranked, 1), solved=False), run, f"grounded-{run.round}", ground, start=start)
    pairs = differing(best_worst(lived, lambda one: served[one.id]))
    rows = by_frequency(preferences(pairs), topics(lived, policy, run, known), list(topic.values()))
    return finetune(grounded, rows, run, f"round-{run.round}", prefer, start=grounded.adapter)
