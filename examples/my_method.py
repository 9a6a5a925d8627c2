"""A method of one's own: try each task a few times, and show the shortest solutions from then on.

PYTHONPATH=examples agentevolve compare examples/compare.yaml --method my_method:shortest_demos
"""

from agentevolve.act.rollout import rollout
from agentevolve.refine import best, demos
from agentevolve.update import remember


def shortest_demos(policy, tasks, run, *, samples: int = 4):
    """One round: the policy that has learnt."""
    attempts = rollout(policy, tasks, run, phase=f"{run.round}/acquire", samples=samples)
    return remember(policy, demos(best(attempts), run.round), run)
