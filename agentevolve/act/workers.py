"""Where attempts are made: on threads of this process, or on the nodes of a Ray cluster. Concurrency is here alone."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from agentevolve.act.attempt import Order, Plan, attempt, lent, parts
from agentevolve.run.folder import Run
from agentevolve.run.progress import progress

STAGGER = 0.005  # seconds between the first attempts of two threads: begun at once, they would meet again at each of their turns


class Workers(Protocol):
    """What makes attempts side by side."""

    def map(self, plans: Sequence[Plan], order: Order, run: Run) -> set[str]:
        """Make every plan's attempt, each journalled in `run` as it ends; the ids of those that a passing failure cost.

        Raises AgentevolveError for what the user must mend. After that, or Ctrl-C, no new attempt starts, and the turns under
        way are awaited.
        """


def work(plans: Sequence[Plan], order: Order, run: Run) -> set[str]:
    """Make the attempts where the run's workers are."""
    return _workers(run).map(plans, order, run)


def _workers(run: Run) -> Workers:
    if run.where.on == "threads":
        return Threads()
    from agentevolve.act.nodes import Nodes, cluster

    if run.known is None:
        return cluster(run)
    # what is made ahead has processes of its own on the nodes; what Ray says goes where it goes already
    return run.part("nodes", f"{run.where.address}, ahead", lambda: Nodes(run.where, None))


class Threads:
    """Threads of this process."""

    def map(self, plans: Sequence[Plan], order: Order, run: Run) -> set[str]:
        """As `Workers` says."""
        model, memory = parts(order.policy, run)
        passing: set[str] = set()
        over, begun = threading.Event(), itertools.count()

        def wait_for_turn() -> None:
            time.sleep(STAGGER * next(begun))

        def make(plan: Plan) -> None:
            with permitted(run):
                if not over.is_set():
                    known = lent(plan, order.policy, run)
                    run.add(known or attempt(plan, order.policy, model, memory, run, passing, measured=order.measured))

        shown = progress(run.called(order.phase), len(plans), quiet=run.quiet)
        with shown as advance, ThreadPoolExecutor(run.workers, initializer=wait_for_turn) as pool:
            futures = [pool.submit(make, plan) for plan in plans]
            try:
                for future in as_completed(futures):
                    future.result()
                    advance("")
            except BaseException as error:
                over.set()
                if isinstance(error, KeyboardInterrupt | SystemExit):
                    run.budget.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return passing


def permitted(run: Run) -> AbstractContextManager[None]:
    """What an attempt waits for before it begins, where two rounds share the run's workers."""
    return run.permits.one(run.budget.alive, ahead=run.known is not None) if run.permits else nullcontext()
