"""Asynchronous rounds: while a round learns and is measured, the first attempts of the next one are made.

As soon as a round's first rollout to learn from is complete, the method is begun once more, in a thread, with the policy that is
in place, on the run as the next round will see it (`Run.ahead`); there it is left as soon as its first rollout is complete. The
next round begins when this is decided and those attempts are made, finds them in the journal by their ids, and makes whatever
else it wants. So methods know nothing of it, the journal has its one writer, and what a run comes to hangs on no clock: one that
was killed goes on to the same attempts.

What that means for learning: the first rollout of each round but the first is by the policy that was in place during the round
before, and recalls what was remembered before that. It is at most one update behind, and not at all where nothing was promoted.
Its successes are successes, so what filters, reflects or remembers learns from valid experience, though of an agent that is a
little weaker than the one that learns; preferences between such attempts are off the policy by one update (of the objectives
that Noukhovitch et al., 2410.18252, tried, DPO bears that best). What counts how an entry of memory fares (`ace`, `self_demos`)
loses the uses of entries that were changed since. An objective that needs the acting policy's own probabilities would be wrong:
`check_ahead` refuses it. Each attempt's stamp tells who made it, and `report` how many were behind.

The two phases share workers, of which the round under way has first choice, and the run's limits: what was made ahead may spend
what this round's measurement then lacks. An error there is raised when the next round begins. A method must write nothing before
its first rollout, and that must not hang on what the round before has learnt, or it is made in vain (`CHOOSING`); of a method
that begins with a teacher's attempts those alone are made ahead. When a policy is taken back (`policy rollback`), what was made
ahead of the round after is made again.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from agentevolve.config import Config
from agentevolve.local.train import LoraSettings
from agentevolve.loop.policies import BEGUN
from agentevolve.models.lite import LOCAL, VLLM
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError
from agentevolve.run.folder import Run
from agentevolve.run.permits import Permits

# methods whose first attempts hang on what the round before has learnt: what is made ahead would not be asked for again
CHOOSING = {
    "evol_instruct": "tasks",
    "gepa": "instructions",
    "self": "skill",
    "self_instruct": "tasks",
    "voyager": "tasks",
}


class _Complete(BaseException):
    """Raised where a rollout ahead is complete, through the method that asked for it; no error, so that none takes it for one."""


class Ahead:
    """What is made ahead of the rounds of `run`: a context, after which nothing is under way any more."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._run.rolled = _nothing
        if self._thread is not None:  # the round under way has failed
            self._run.budget.stop()
            self._thread.join()

    def begun(self, number: int, policy: Policy) -> None:
        """Round `number` begins with this policy: once all that was begun ahead of it is made. Raises what has stopped that."""
        self._run.rolled = _nothing
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            raise self._failure
        self._run.once(f"{BEGUN}{number}", lambda: {"round": policy.round, "ahead": self._made(number)})

    def follow(self, learn: Callable[[Run], Policy]) -> None:
        """Once the next rollout to learn from is complete, begin `learn`, the next round's."""

        def start() -> None:
            self._run.rolled = _nothing
            self._thread = threading.Thread(target=self._learn, args=(learn, self._run.ahead()))
            self._thread.start()

        self._run.rolled = start

    def _learn(self, learn: Callable[[Run], Policy], ahead: Run) -> None:
        ahead.rolled = _complete
        try:
            learn(ahead)
        except _Complete:
            pass
        except BaseException as failure:
            self._failure = failure
        finally:
            ahead.left()

    def _made(self, number: int) -> dict[str, int]:
        """How many attempts of a round there are, by the rounds of the policies that made them."""
        made = self._run.outcomes_of(lambda phase: phase.startswith(f"{number}/"), lost=True)
        return dict(Counter(str(one.policy.round) for one in made))


def _nothing() -> None:
    pass


def _complete() -> None:
    raise _Complete


def share(run: Run) -> None:
    """Let two rounds at a time share the run's workers and its limit. Before anything is opened."""
    run.permits = Permits(run.workers)
    if run.where.on == "ray":
        from agentevolve.act.nodes import share_limit

        share_limit(run)


def check_ahead(config: Config, asked: Mapping[str, Any], *, trains: bool) -> None:
    """Raise AgentevolveError for an asynchronous config of which nothing good would come; `asked` are the method's settings."""
    if any(isinstance(one, LoraSettings) and one.objective == "grpo" for one in asked.values()):
        why = f"the method {config.method!r} (objective grpo) weighs attempts by the probabilities of the policy that it trains"
    elif config.method in CHOOSING:
        chosen = CHOOSING[config.method]
        why = f"the method {config.method!r} begins a round with {chosen} that the one before has brought about"
    elif config.model.startswith(LOCAL):
        why = f"{config.model} acts in this process, on the machine that trains, so nothing is gained; known: a server's model"
    elif config.model.startswith(VLLM) and not config.api_base and trains:
        why = f"a training ends the server of {config.model}, which is this process's own; name another with api_base"
    elif config.workers.on == "ray" and config.model.startswith(VLLM) and trains:
        why = f"on Ray each process loads adapters at {config.model} for itself; let workers be on threads"
    else:
        return
    raise AgentevolveError(f"asynchronous: {why}")
