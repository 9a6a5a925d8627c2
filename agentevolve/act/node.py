"""What works on a node of a cluster: one process with several attempts under way, its own world pool, its own engine.

It is told an order (who acts, and how) and then plans, all as JSON; each attempt is journalled in a shard before it is told of.
In a run with a limit each call of a model asks the till, which is with the driver: so the limit holds for all nodes together.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from agentevolve.act.attempt import SERVING, Order, Plan, attempt, parts
from agentevolve.memory.folder import JOURNAL
from agentevolve.memory.provenance import use_key
from agentevolve.policy import Policy, Price
from agentevolve.protocols import AgentevolveError, BudgetExceeded
from agentevolve.records import Task, Usage
from agentevolve.run import spans
from agentevolve.run.budget import Budget
from agentevolve.run.folder import Run
from agentevolve.run.underway import Underway

CHUNK = 1 << 20  # bytes that are read at once
STALE = 30.0  # seconds in which a shared file system shows everywhere what was written on one node


@functools.cache
def version() -> str:
    """What tells this package's code from any other's."""
    from importlib.metadata import version as of_package

    package = Path(__file__).parents[1]
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        found.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return f"{of_package('agentevolve')}+{found.hexdigest()[:12]}"


def content(policy: Policy) -> dict[str, tuple[int, str]]:
    """The files that make up what a policy has learnt, by size and content: every node must see the very same.

    A memory may grow meanwhile, at its end: what is seen of it must begin so.
    """
    files = [Path(policy.adapter) / SERVING] if policy.adapter else []
    files += [Path(policy.memory) / JOURNAL] if policy.memory else []
    return {str(path): written(path) for path in files}


def written(path: Path) -> tuple[int, str]:
    """How large a file is, and the hash of what it holds."""
    size = path.stat().st_size if path.is_file() else 0
    return size, _digest(path, size)


def _digest(path: Path, size: int) -> str:
    """Of the first `size` bytes; empty if there are fewer."""
    found, left = hashlib.sha256(), size
    try:
        with path.open("rb") as file:
            while left and (part := file.read(min(left, CHUNK))):
                found.update(part)
                left -= len(part)
    except OSError:
        return ""
    return "" if left else found.hexdigest()


class Node:
    """The actor: `hello`, then for each rollout `begin`, `attempt` for each plan, from as many threads as it may, and `end`."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._unheard: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._told: set[str] = set()

    def hello(self, token: str) -> dict[str, Any]:
        """Who this is, which code it has, and whether it sees the file that the driver has just written."""
        end = time.monotonic() + STALE
        while not (sees := Path(token).is_file()) and time.monotonic() < end:
            time.sleep(0.2)
        return {"name": f"{socket.gethostname()}-{os.getpid()}", "version": version(), "sees": sees}

    def begin(self, told: str, till: Any = None) -> str:
        """Be ready for the plans of an order; what is wrong, if anything is."""
        asked = json.loads(told)
        policy = Policy.model_validate(asked["policy"])
        try:
            check_seen(asked["content"])
            use_key(asked["key"])
            run = Run(Path(asked["shard"]), seed=asked["seed"], workers=asked["workers"], quiet=True)
            run.embedder = asked["embedder"]
            run.prices = {name: Price.model_validate(price) for name, price in asked["prices"].items()}
            for name, why in asked["manner"].items():
                run.once(name, lambda why=why: why)  # type: ignore[misc]
            if till is not None:
                run.budget = Asking(till, run.notes)
            self._run, self._told = run, set(run.facts)
            self._order = Order(policy, asked["phase"], asked["measured"])
            self._parts = parts(policy, run)
            if asked["ear"]:
                self._unheard = spans.lend(spans.Ear(*asked["ear"]))
        except AgentevolveError as error:
            return str(error)
        return ""

    def attempt(self, told: str) -> str:
        """Make a plan's attempt: the trajectory, or why there is none, with all that was noted beside."""
        run, asked = self._at_work(), json.loads(told)
        plan = Plan(**asked | {"task": Task.model_validate(asked["task"])})
        model, memory = self._parts
        passing: set[str] = set()
        answer: dict[str, Any] = {}
        try:
            made = attempt(plan, self._order.policy, model, memory, run, passing, measured=self._order.measured)
            answer = {"trajectory": made.model_dump(mode="json"), "passing": bool(passing)}
            run.add(made)
        except AgentevolveError as error:
            answer |= {"error": str(error), "kind": type(error).__name__}
        with self._lock:
            new = {name: fact for name, fact in run.facts.copy().items() if name not in self._told}
            self._told |= set(new)
        return json.dumps(answer | {"facts": new})

    def stop(self) -> None:
        """Begin nothing more; the turns under way end."""
        if self._run is not None:
            self._run.budget.stop()

    def end(self) -> None:
        """Close the engine, the memory and the shard, and send what there is still to be told of it."""
        self._unheard()
        self._unheard = lambda: None
        if self._run is not None:
            self._run.close()
        self._run = None

    def _at_work(self) -> Run:
        assert self._run is not None, "begin comes first"
        return self._run


def check_seen(content: Mapping[str, tuple[int, str]]) -> None:
    """Wait until these files begin here as they do on the driver's machine. Raises AgentevolveError naming one that does not."""
    end = time.monotonic() + STALE
    for path, (size, digest) in content.items():
        while _digest(Path(path), size) != digest:
            if time.monotonic() > end:
                raise AgentevolveError(f"{path}: is not there as it is on the driver's machine")
            time.sleep(0.5)


class Till:
    """The budget of a run while nodes work for it: with the driver, asked by all of them before each call."""

    def __init__(self, kind: type[Budget], max_tokens: int | None, max_usd: float | None, spent: str) -> None:
        self._budget = kind(max_tokens, max_usd, spent=Usage.model_validate_json(spent))
        self._calls: dict[int, tuple[AbstractContextManager[Callable[[Usage], None]], Callable[[Usage], None]]] = {}
        self._number = 0

    def hold(self, tokens: int, usd: float) -> tuple[int, str]:
        """Hold an estimate: the number of the call, or why it is refused. Of a node that dies it stays held."""
        call = self._budget.reserve(tokens, usd)
        try:
            book = call.__enter__()
        except BudgetExceeded as error:
            return 0, str(error)
        self._number += 1
        self._calls[self._number] = call, book
        return self._number, ""

    def settle(self, number: int, usage: str) -> None:
        """Book what the call has cost."""
        call, book = self._calls.pop(number)
        book(Usage.model_validate_json(usage))
        call.__exit__(None, None, None)

    def afford(self, tokens: int) -> str:
        """Why so many tokens are refused; empty if they are not."""
        try:
            self._budget.afford(tokens)
        except BudgetExceeded as error:
            return str(error)
        return ""

    def pay(self, usage: str) -> None:
        """Book what nobody asked leave for."""
        self._budget.book(Usage.model_validate_json(usage))


class Asking(Budget):
    """A node's budget, or that of a driver whose rollouts are side by side: the till's."""

    def __init__(self, till: Any, notes: Underway, spent: Usage | None = None) -> None:
        super().__init__(notes=notes, spent=spent)
        self.till = till

    @contextmanager
    def reserve(self, tokens: int, usd: float) -> Iterator[Callable[[Usage], None]]:
        """As any budget's, with the till's leave."""
        import ray

        self.alive()
        number, refused = ray.get(self.till.hold.remote(tokens, usd))
        if refused:
            raise BudgetExceeded(refused)
        booked = Usage()
        with super().reserve(tokens, usd) as book:

            def both(usage: Usage) -> None:
                nonlocal booked
                booked += usage
                book(usage)

            try:
                yield both
            finally:
                ray.get(self.till.settle.remote(number, booked.model_dump_json()))

    def afford(self, tokens: int) -> None:
        """As any budget's."""
        import ray

        self.alive()
        if refused := ray.get(self.till.afford.remote(tokens)):
            raise BudgetExceeded(refused)

    def pay(self, usage: Usage) -> None:
        """As any budget's."""
        import ray

        super().pay(usage)
        ray.get(self.till.pay.remote(usage.model_dump_json()))
