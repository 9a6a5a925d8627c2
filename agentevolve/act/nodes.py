"""A rollout on the nodes of a Ray cluster: an actor a node, as many attempts under way as the run has workers.

    agentevolve evolve examples/quickstart.yaml workers.on=ray                      # a cluster of this machine alone
    agentevolve evolve examples/quickstart.yaml workers.on=ray workers.address=auto workers.count=64

The nodes see the run's folder (one machine, or a shared file system) and have the very same code. A node that dies gives its
attempts to the others, after what it had ended was taken in from its shard and what it had begun was charged; one that joins gets
its share. An attempt is made at least once and journalled exactly once, by its id. What Ray itself says goes to RUN/ray.log.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from agentevolve.act.attempt import Order, Plan, lent
from agentevolve.act.node import Asking, Node, Till, content, version
from agentevolve.memory.provenance import lend_key
from agentevolve.policy import Workers
from agentevolve.protocols import AgentevolveError, BudgetExceeded, Stopped
from agentevolve.records import Trajectory
from agentevolve.run import spans
from agentevolve.run.budget import Budget
from agentevolve.run.folder import MANNER, Run
from agentevolve.run.progress import progress
from agentevolve.run.shards import SHARDS, shards_of, take_fact, take_in

LOG = "ray.log"
REACH = 5.0  # seconds in which a head answers
LOOK = 5.0  # seconds between two looks for nodes that have joined
ALONE = 120.0  # seconds without any node before the run gives up
DEATHS = 3  # nodes that die of one attempt before it counts as lost
KINDS = {"BudgetExceeded": BudgetExceeded, "Stopped": Stopped}


@dataclass(eq=False)
class Seat:
    """A node at work: its actor, and what it does: nothing that is known yet, or attempts in its shard."""

    node: str
    address: str
    actor: Any
    shard: Path | None = None
    ready: bool = False
    plans: int = 0


class NodeDied(Exception):
    """The node that an answer was to come from has died."""


class Gpus(NamedTuple):
    """A node that has GPUs, and how many."""

    node: str
    address: str
    number: int


class Nodes:
    """The cluster at work for one run; what it started is ended by `close`. With a `folder`, what is printed goes to its log."""

    def __init__(self, where: Workers, folder: Path | None) -> None:
        self._aside = contextlib.ExitStack()
        if folder:
            self._aside.enter_context(_stdout_to(folder / LOG))
        try:
            self._ray, self._ours = _connected(where)
        except BaseException:
            self._aside.close()
            raise
        self._seats: dict[str, Seat] = {}
        self._till: Any = None
        self._starts: Counter[str] = Counter()
        self._shards = 0

    def map(self, plans: Sequence[Plan], order: Order, run: Run) -> set[str]:
        """As `Workers.map` of workers.py says."""
        with progress(run.called(order.phase), len(plans), quiet=run.quiet) as advance:
            return _Rollout(self, order, run, advance).made(plans)

    def close(self) -> None:
        """End the actors, and the cluster if it was started here. Closing twice is allowed."""
        for seat in self._seats.values():
            self.end(seat.actor)
        self._seats.clear()
        if self._till is not None:
            with contextlib.suppress(Exception):  # as above
                self._ray.kill(self._till)
            self._till = None
        if self._ours and self._ray.is_initialized():
            self._ray.shutdown()
        self._ours = False
        self._aside.close()

    def till(self, budget: Budget) -> Any:
        """The till that keeps this budget's limit until `close`; None if it has none."""
        self._till = _opened_till(self._ray, budget)
        return self._till

    def seats(self) -> list[Seat]:
        """The nodes that have an actor."""
        return list(self._seats.values())

    def join(self, threads: int) -> list[Seat]:
        """Start an actor on every node that has none: those seats."""
        alive = {one["NodeID"]: one for one in self._ray.nodes() if one["Alive"] and one["Resources"].get("CPU")}
        new = [one for node, one in alive.items() if node not in self._seats and self._starts[node] < DEATHS]
        return [self._start(one, threads) for one in new]

    def gpus(self) -> Gpus | None:
        """The node that has the most GPUs; None if none has any."""
        found = [
            Gpus(one["NodeID"], str(one["NodeManagerAddress"]), int(one["Resources"].get("GPU", 0)))
            for one in self._ray.nodes()
            if one["Alive"]
        ]
        best = max(found, key=lambda one: one.number, default=None)
        return best if best and best.number else None

    def put(self, kind: type, place: Gpus, number: int) -> Any:
        """An actor of that kind there, with so many of the GPUs for itself."""
        return self._ray.remote(kind).options(num_cpus=0, num_gpus=number, scheduling_strategy=_on(place.node)).remote()

    def answered(self, asked: Any, patience: float = 1.0) -> bool:
        """Whether there is an answer, or none will come, within so many seconds."""
        return bool(self._ray.wait([asked], num_returns=1, timeout=patience)[0])

    def answer(self, asked: Any) -> Any:
        """What an actor has answered. Raises NodeDied, or AgentevolveError for what went wrong there."""
        try:
            return self._ray.get(asked)
        except self._ray.exceptions.RayTaskError as error:
            raise AgentevolveError(_last_words(error)) from None
        except self._ray.exceptions.RayError:
            raise NodeDied from None

    def end(self, actor: Any) -> None:
        """End an actor, whatever it does."""
        with contextlib.suppress(Exception):  # it may have ended with its node, or with the cluster
            self._ray.kill(actor)

    def drop(self, seat: Seat) -> None:
        """Have nothing more to do with a node's actor."""
        self._seats.pop(seat.node, None)
        self.end(seat.actor)

    def shard(self, name: str, run: Run) -> Path:
        """The folder of a new shard."""
        self._shards += 1
        return run.folder.resolve() / SHARDS / f"{name}-{self._shards}-{os.getpid()}"

    def _start(self, node: dict[str, Any], threads: int) -> Seat:
        here = _on(node["NodeID"])
        made = self._ray.remote(Node).options(num_cpus=0, max_concurrency=threads + 2, scheduling_strategy=here)
        self._starts[node["NodeID"]] += 1
        seat = Seat(node["NodeID"], str(node["NodeManagerAddress"]), made.remote())
        self._seats[seat.node] = seat
        return seat


class _Rollout:
    """One rollout's way over the nodes. Every answer that is waited for is in `_asked`, with whom it comes from and what for."""

    def __init__(self, nodes: Nodes, order: Order, run: Run, advance: Callable[[str], None]) -> None:
        self._nodes, self._order, self._run, self._advance = nodes, order, run, advance
        self._ray = nodes._ray
        self._todo: deque[Plan] = deque()
        self._asked: dict[Any, tuple[Seat, str | Plan]] = {}
        self._passing: set[str] = set()
        self._deaths: Counter[str] = Counter()
        self._each, self._looked, self._last = run.workers, 0.0, time.monotonic()
        self._till = self._open_till()
        self._failure: BaseException | None = None
        self._ahead, self._permits = run.known is not None, run.permits
        self._waits = contextlib.ExitStack()
        self._shards: set[Path] = set()

    def made(self, plans: Sequence[Plan]) -> set[str]:
        for plan in plans:
            if (known := lent(plan, self._order.policy, self._run)) is None:
                self._todo.append(plan)
            else:
                self._run.add(known)
                self._advance("")
        with _token(self._run) as token:
            try:
                self._until_done(token)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt | SystemExit):
                    self._run.budget.stop()
                self._todo.clear()
                self._stop_all()
                self._failure = error
                self._until_done(token)
                raise
            finally:
                self._waits.close()
                self._end_all()
        return self._passing

    def _until_done(self, token: str) -> None:
        while self._todo or any(isinstance(what, Plan) for _, what in self._asked.values()):
            if not self._failure:
                self._run.budget.alive()
                self._look(token)
                self._hand_out()
            often = 0.2 if self._todo and self._permits else 1.0  # a permit may be given back elsewhere
            ready, _ = self._ray.wait(list(self._asked), num_returns=1, timeout=often) if self._asked else ([], [])
            if not self._asked:
                time.sleep(0.2)
            for one in ready:
                if one in self._asked:  # not of a node that has just been given up
                    self._answered(one)

    def _look(self, token: str) -> None:
        """Start with the nodes that are there, and with those that join."""
        now = time.monotonic()
        if self._looked and now - self._looked < LOOK:
            return
        waiting = [seat for seat in self._nodes.seats() if seat.shard is None and not self._is_asked(seat)]
        new = self._nodes.join(self._run.workers)
        if not self._looked:
            self._each = -(-self._run.workers // max(1, len(self._nodes.seats())))  # rounded up
        self._looked = now
        for seat in [*waiting, *new]:
            self._asked[seat.actor.hello.remote(token)] = seat, "hello"
        if self._nodes.seats():
            self._last = now
        elif now - self._last > ALONE:
            raise AgentevolveError(f"{self._order.phase}: no node of the Ray cluster is left to work on; what is done is kept")

    def _is_asked(self, seat: Seat) -> bool:
        return any(other is seat for other, _ in self._asked.values())

    def _hand_out(self) -> None:
        """Give every node as many plans as it may have, those with the fewest first."""
        flying = sum(seat.plans for seat in self._nodes.seats())
        while self._todo and flying < self._run.workers:
            free = [seat for seat in self._nodes.seats() if seat.ready and seat.plans < self._each]
            if not free or not self._permitted():
                return
            try:
                self._run.budget.attempt()
            except AgentevolveError:
                self._over()
                raise
            seat, plan = min(free, key=lambda seat: seat.plans), self._todo.popleft()
            told = json.dumps(plan._asdict() | {"task": plan.task.model_dump(mode="json")})
            self._asked[seat.actor.attempt.remote(told)] = seat, plan
            seat.plans, flying = seat.plans + 1, flying + 1

    def _permitted(self) -> bool:
        """Whether one more attempt may be under way, where two rounds share workers; else this rollout waits for that."""
        if self._permits is None or self._permits.take(ahead=self._ahead):
            self._waits.close()
            return True
        self._waits.close()
        self._waits.enter_context(self._permits.waiting(ahead=self._ahead))
        return False

    def _over(self) -> None:
        """An attempt is no longer under way."""
        if self._permits:
            self._permits.give_back()

    def _answered(self, one: Any) -> None:
        seat, what = self._asked.pop(one)
        if isinstance(what, Plan):
            self._over()
        try:
            answer = self._ray.get(one)
        except self._ray.exceptions.RayTaskError as error:
            raise AgentevolveError(f"{seat.address}: {_last_words(error)}") from None
        except self._ray.exceptions.RayError:
            self._lost(seat, what)
            return
        if isinstance(what, Plan):
            seat.plans -= 1
            self._take(seat, what, json.loads(answer))
        elif what == "hello":
            self._greeted(seat, answer)
        elif answer:
            raise AgentevolveError(f"{seat.address}: {answer}")
        else:
            seat.ready = True

    def _greeted(self, seat: Seat, said: dict[str, Any]) -> None:
        if said["version"] != version():
            other = f"agentevolve {said['version']}, and here is {version()}"
            raise AgentevolveError(f"{seat.address}: has other code: {other}; install the same on every node")
        if not said["sees"]:
            folder = self._run.folder.resolve()
            raise AgentevolveError(f"{seat.address}: does not see {folder}: a run on several nodes needs a folder that all share")
        seat.shard = self._nodes.shard(said["name"], self._run)
        self._shards.add(seat.shard)
        self._run.at_work.add(seat.shard)
        manner = {name: fact for name, fact in self._run.facts.items() if name.startswith(MANNER)}
        asked = self._told | {"manner": manner, "shard": str(seat.shard), "workers": self._each}
        self._asked[seat.actor.begin.remote(json.dumps(asked), self._till)] = seat, "begin"

    @functools.cached_property
    def _told(self) -> dict[str, Any]:
        """What all nodes are told alike; the files of the policy are read for it once."""
        run, given = self._run, self._order.policy
        policy = given.using(**_absolute(given.adapter, given.memory))
        return {
            "policy": policy.model_dump(mode="json"),
            "phase": self._order.phase,
            "measured": self._order.measured,
            "content": content(policy),
            "key": lend_key() if policy.memory else "",
            "prices": {name: price.model_dump() for name, price in run.prices.items()},
            "embedder": run.embedder,
            "seed": run.seed,
            "ear": spans.ear(),
        }

    def _take(self, seat: Seat, plan: Plan, answer: dict[str, Any]) -> None:
        """Journal what came of a plan."""
        assert seat.shard
        for name, fact in answer["facts"].items():
            take_fact(self._run, seat.shard.name, name, fact)
        made = None
        if "trajectory" in answer:
            made = Trajectory.model_validate(answer["trajectory"])
            self._run.add(made)
            self._run.budget.book(made.usage)
            self._advance("")
            if answer["passing"]:
                self._passing.add(plan.id)
        if made is None or made.end == "error":
            self._run.budget.unmade()
        if "error" in answer and not self._failure:
            raise KINDS.get(answer["kind"], AgentevolveError)(answer["error"])

    def _lost(self, seat: Seat, what: str | Plan) -> None:
        """A node has died: take in what it had ended, charge what it had begun, and let others make the rest."""
        mine = [plan for other, plan in self._asked.values() if other is seat and isinstance(plan, Plan)]
        for _ in mine:
            self._over()
        mine += [what] if isinstance(what, Plan) else []
        self._asked = {one: told for one, told in self._asked.items() if told[0] is not seat}
        self._nodes.drop(seat)
        found = take_in(seat.shard, self._run) if seat.shard and seat.shard.is_dir() else set()
        for plan in mine:
            if plan.id in found:
                self._advance("")
                continue
            self._run.budget.unmade()
            self._deaths[plan.id] += 1
            if self._deaths[plan.id] < DEATHS:
                self._todo.appendleft(plan)
            else:
                self._give_up(plan, seat)
        if self._failure:
            self._todo.clear()

    def _give_up(self, plan: Plan, seat: Seat) -> None:
        why = f"the node died under it {DEATHS} times, last {seat.address}"
        self._run.add(Trajectory(**plan._asdict(), policy=self._order.policy.stamp(), end="error", error=f"NodeDied: {why}"))
        self._advance("")

    def _stop_all(self) -> None:
        for seat in self._nodes.seats():
            with contextlib.suppress(self._ray.exceptions.RayError):
                seat.actor.stop.remote()

    def _end_all(self) -> None:
        """Let every node close its shard: it goes, if all of it was told, and what was not is taken in."""
        for one, (_, what) in self._asked.items():
            if what == "begin":  # a node that was slow to begin would go on with it after its end
                with contextlib.suppress(self._ray.exceptions.RayError):
                    self._ray.get(one)
        ending = {seat.actor.end.remote(): seat for seat in self._nodes.seats() if seat.shard}
        for one, seat in ending.items():
            try:
                self._ray.get(one)
                if seat.shard and not self._failure:  # every plan was answered, and with an answer comes all that is new
                    shutil.rmtree(seat.shard, ignore_errors=True)
            except self._ray.exceptions.RayError:
                self._nodes.drop(seat)
            seat.shard, seat.ready, seat.plans = None, False, 0
        self._run.at_work.difference_update(self._shards)
        for shard in shards_of(self._run):
            take_in(shard, self._run)
        if self._till is not None and not isinstance(self._run.budget, Asking):
            self._ray.kill(self._till)

    def _open_till(self) -> Any:
        budget = self._run.budget
        return budget.till if isinstance(budget, Asking) else _opened_till(self._ray, budget)


def cluster(run: Run) -> Nodes:
    """The cluster that the run works on, connected by now."""
    return run.part("nodes", str(run.where.address), lambda: Nodes(run.where, run.folder))


def share_limit(run: Run) -> None:
    """Let the run's limit, if it has one, be kept by a till that this process asks, too: for rollouts side by side."""
    if (till := cluster(run).till(run.budget)) is not None:
        run.budget = Asking(till, run.notes, run.budget.spent)


def _opened_till(ray: Any, budget: Budget) -> Any:
    if budget.max_tokens is None and budget.max_usd is None:
        return None
    here = _on(ray.get_runtime_context().get_node_id())
    opened = ray.remote(Till).options(num_cpus=0, scheduling_strategy=here)
    return opened.remote(type(budget), budget.max_tokens, budget.max_usd, budget.spent.model_dump_json())


def _on(node: str) -> Any:
    """How an actor is started on that node and no other."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _last_words(error: Any) -> str:
    return str(error.cause or error).strip().splitlines()[-1][:300]


def _absolute(adapter: str | None, memory: str | None) -> dict[str, str | None]:
    return {name: place and str(Path(place).resolve()) for name, place in (("adapter", adapter), ("memory", memory))}


@contextlib.contextmanager
def _token(run: Run) -> Iterator[str]:
    """A file that every node must see."""
    place = run.folder.resolve() / SHARDS
    token = place / f"driver-{os.getpid()}-{time.monotonic_ns()}"
    run.at_work.add(token)
    place.mkdir(parents=True, exist_ok=True)
    token.touch()
    try:
        yield str(token)
    finally:
        token.unlink(missing_ok=True)
        run.at_work.remove(token)
        with contextlib.suppress(OSError):  # a shard is left that could not be taken in
            place.rmdir()


@contextlib.contextmanager
def _stdout_to(path: Path) -> Iterator[None]:
    """What is printed meanwhile goes to a file, which is there if anything was: Ray tells of a node's death on stdout."""
    with path.open("a", encoding="utf-8", buffering=1) as file, contextlib.redirect_stdout(file):
        yield
    if not path.stat().st_size:
        path.unlink()


def _connected(where: Workers) -> tuple[Any, bool]:
    """Ray, connected; and whether that was done here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    try:
        import ray
    except ImportError:
        raise AgentevolveError('workers.on: ray needs the extra "ray": pip install "agentevolve[ray]"') from None
    if ray.is_initialized():
        return ray, False
    address = where.address
    if address and address != "auto":
        _reach(address)
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    quiet = {"logging_level": "CRITICAL", "log_to_driver": False, "configure_logging": True}
    try:
        ray.init(address=address, **quiet) if address else ray.init(address="local", include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        why = " ".join(str(error).split())[:300]
        raise AgentevolveError(f"workers.address: {address or 'a new cluster'}: {why}") from None
    finally:
        with contextlib.suppress(ValueError):  # not the main thread, where Ray does not touch them
            for one, handler in before.items():
                signal.signal(one, handler)
    return ray, True


def _reach(address: str) -> None:
    """Raise AgentevolveError if nobody answers there: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        if not host or not port.isdecimal():
            raise OSError("is not HOST:PORT")
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise AgentevolveError(f"workers.address: {address}: no Ray head answers there ({why})") from None
