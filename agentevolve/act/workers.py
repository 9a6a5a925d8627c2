"""Plans done side by side, on threads of this process: the only place with concurrency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from agentevolve.run.folder import Run
from agentevolve.run.progress import progress

Plan = TypeVar("Plan")


def work(plans: Sequence[Plan], do: Callable[[Plan], None], run: Run, what: str) -> None:
    """Do every plan on the run's workers. After a failure or Ctrl-C no new one starts, and the turns under way are awaited."""
    with progress(what, len(plans), quiet=run.quiet) as advance, ThreadPoolExecutor(run.workers) as pool:
        futures = [pool.submit(do, plan) for plan in plans]
        try:
            for future in as_completed(futures):
                future.result()
                advance("")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                run.budget.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
