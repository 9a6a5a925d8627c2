"""What a cluster would do that no machine here can hold: attempts on 1 to 10,000 workers, simulated.

    python tests/bench/simulate.py                       # tables and simulate.png
    python tests/bench/simulate.py --from runs/mine      # with the lengths and latencies of a run's attempts
    python tests/bench/simulate.py --validate            # beside real runs on this machine: threads, and Ray's nodes
    python tests/bench/simulate.py --asynchronous        # beside real evolutions, with asynchronous rounds and without (--on ray)

The model. An attempt is a chain of turns; a turn waits for its latency (any number wait at once), then needs `turn` seconds
of its node's interpreter, which serves one at a time. An ended attempt needs `driver` seconds of the driver, which journals
it and hands out the next, one at a time as well. Nodes die at random (exponential, `mtbf` each) and are back after `repair`:
what they had under way is made again. A round acquires, trains for `train` seconds on one node, and evaluates; each waits for
all of the one before it. *Asynchronous* rounds are those of agentevolve/loop/ahead.py: acquiring for round r+1 begins as soon as
round r has begun and its attempts are in, evaluations go first, and round r+1 trains when its attempts are in and round r is
decided. Not modelled: a backend that slows down with the number of calls, the
network, the disk's bandwidth.
Latencies are lognormal with the median and spread that are given, or drawn from a run's attempts, with replacement.
"""

from __future__ import annotations

import argparse
import heapq
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parents[1]
Attempt = tuple[float, ...]  # the latencies of its turns, in seconds


class Site(NamedTuple):
    """Where attempts are made. All times in seconds; `each` is how many workers share a node and its interpreter."""

    workers: int
    each: int = 64
    turn: float = 0.0015
    driver: float = 0.001
    start: float = 0.0
    mtbf: float = 0.0
    repair: float = 60.0


class Batch(NamedTuple):
    """Attempts that may begin `wait` seconds after the batches `after` are done; those of the first in the list go first."""

    attempts: Sequence[Attempt]
    after: tuple[int, ...] = ()
    wait: float = 0.0


class Outcome(NamedTuple):
    """`wall` seconds until all is done, the shares of it with idle workers and a busy driver, and how many attempts were lost."""

    wall: float
    idle: float
    driver: float
    lost: int


def simulate(batches: Sequence[Batch], site: Site, luck: random.Random) -> Outcome:
    """One run of these batches."""
    return _Simulation(batches, site, luck).run()


class _Simulation:
    """Events in the order of time. What serves one at a time is a moment from which it is free."""

    def __init__(self, batches: Sequence[Batch], site: Site, luck: random.Random) -> None:
        self.batches, self.site, self.luck = batches, site, luck
        self.todo = [deque(range(len(batch.attempts))) for batch in batches]
        self.left = [len(batch.attempts) for batch in batches]
        self.open: set[int] = set()
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self.number, self.nodes = 0, -(-site.workers // site.each)
        self.free_at = [site.start] * self.nodes
        self.epoch = [0] * self.nodes
        self.idle = {worker: True for worker in range(site.workers)}
        self.under: dict[int, tuple[int, int]] = {}
        self.driver, self.driven, self.worked, self.lost = 0.0, 0.0, 0.0, 0
        self.wall = 0.0

    def run(self) -> Outcome:
        for number, batch in enumerate(self.batches):
            if not batch.after:
                self.at(self.site.start + batch.wait, lambda now, number=number: self.opened(now, number))
        if self.site.mtbf:
            for node in range(self.nodes):
                self.dies_later(0.0, node)
        while sum(self.left):
            now, _, what = heapq.heappop(self.events)
            what(now)
        return Outcome(self.wall, 1 - self.worked / (self.wall * self.site.workers), self.driven / self.wall, self.lost)

    def at(self, when: float, what: Callable[[float], None]) -> None:
        self.number += 1
        heapq.heappush(self.events, (when, self.number, what))

    def opened(self, now: float, number: int) -> None:
        self.open.add(number)
        for worker in [worker for worker, idle in self.idle.items() if idle]:
            self.hand_out(now, worker)

    def hand_out(self, now: float, worker: int) -> None:
        """The driver gives a worker its next attempt, if there is one."""
        for number in sorted(self.open):
            if self.todo[number]:
                attempt = self.todo[number].popleft()
                self.idle[worker] = False
                self.under[worker] = number, attempt
                epoch = self.epoch[worker // self.site.each]
                self.turn(now, worker, epoch, now, 0)
                return
        self.idle[worker] = True

    def turn(self, now: float, worker: int, epoch: int, began: float, done: int) -> None:
        node = worker // self.site.each
        if epoch != self.epoch[node]:
            return
        number, which = self.under[worker]
        latencies = self.batches[number].attempts[which]
        if done == len(latencies):
            self.ended(now, worker, epoch, began)
            return

        def answered(then: float) -> None:
            if epoch != self.epoch[node]:
                return
            self.free_at[node] = max(then, self.free_at[node]) + self.site.turn
            self.at(self.free_at[node], lambda later: self.turn(later, worker, epoch, began, done + 1))

        self.at(now + latencies[done], answered)

    def ended(self, now: float, worker: int, epoch: int, began: float) -> None:
        number, _ = self.under.pop(worker)
        self.worked += now - began
        self.driver = max(now, self.driver) + self.site.driver
        self.driven += self.site.driver
        self.left[number] -= 1
        if not self.left[number]:
            self.wall = self.driver
            for other, batch in enumerate(self.batches):
                if number in batch.after and not any(self.left[before] for before in batch.after):
                    self.at(self.driver + batch.wait, lambda then, other=other: self.opened(then, other))

        def is_free(then: float) -> None:
            if epoch == self.epoch[worker // self.site.each]:  # else its node has died: it is free when that is back
                self.hand_out(then, worker)

        self.at(self.driver, is_free)

    def dies_later(self, now: float, node: int) -> None:
        self.at(now + self.luck.expovariate(1 / self.site.mtbf), lambda then: self.died(then, node))

    def died(self, now: float, node: int) -> None:
        self.epoch[node] += 1
        workers = range(node * self.site.each, min((node + 1) * self.site.each, self.site.workers))
        for worker in workers:
            if worker in self.under:
                number, which = self.under.pop(worker)
                self.todo[number].appendleft(which)
                self.lost += 1
            self.idle[worker] = False
        back = now + self.site.repair
        for worker in workers:
            self.at(back, lambda then, worker=worker: self.hand_out(then, worker))
        self.dies_later(back, node)
        for worker in [worker for worker, idle in self.idle.items() if idle]:
            self.hand_out(now, worker)


def drawn(n: int, luck: random.Random, pool: Sequence[Attempt] = (), median: float = 1.0, spread: float = 0.6) -> list[Attempt]:
    """`n` attempts: of a pool, with replacement, or of 3 to 8 turns with lognormal latencies."""
    if pool:
        return [luck.choice(pool) for _ in range(n)]
    return [tuple(median * luck.lognormvariate(0, spread) for _ in range(luck.randint(3, 8))) for _ in range(n)]


def rounds(n: int, acquire: Sequence[Attempt], arms: Sequence[Sequence[Attempt]], train: float, *, stale: bool) -> list[Batch]:
    """The batches of `n` rounds; arms are measured one after the other, before what is made for the next round."""
    found: list[Batch] = []
    each = len(arms) + 1  # batches a round: its arms, then what it acquires

    def decided(number: int) -> int:
        return number * each + len(arms) - 1

    for number in range(n):
        lived = number * each + len(arms)
        found.append(Batch(arms[0], (lived, *([decided(number - 1)] if number else [])), train))
        found += [Batch(arm, (number * each + place,)) for place, arm in enumerate(arms[1:])]
        if not number:
            found.append(Batch(acquire))
        elif not stale:
            found.append(Batch(acquire, (decided(number - 1),)))
        else:  # the round before has begun: its attempts are in, and the one before it is decided
            found.append(Batch(acquire, (lived - each, *([decided(number - 2)] if number > 1 else []))))
    return found


def ideal(batches: Sequence[Batch], workers: int) -> float:
    """The seconds that the latencies alone would take, shared out evenly, one batch after the other, trainings between."""
    return sum(sum(map(sum, batch.attempts)) / workers + batch.wait for batch in batches)


def pool_of(place: Path) -> list[Attempt]:
    """What each attempt of a run waited for, turn by turn."""
    from agentevolve.run.folder import read_run, seeds

    made = [one for folder in seeds(place) for one in read_run(folder).attempts().values() if one.turns]
    return [(one.seconds / len(one.turns),) * len(one.turns) for one in made]


def table(pool: Sequence[Attempt], site: Site) -> list[tuple[int, Outcome, float]]:
    """A phase of ten attempts a worker (10,000 at least), on 1 to 10,000 workers."""
    found = []
    for workers in (1, 4, 16, 64, 256, 1_000, 2_500, 5_000, 10_000):
        luck = random.Random(0)
        batches = [Batch(drawn(max(10_000, 10 * workers), luck, pool))]
        found.append((workers, simulate(batches, site._replace(workers=workers), luck), ideal(batches, workers)))
    return found


def show(pool: Sequence[Attempt], args: argparse.Namespace) -> None:
    site = Site(1, turn=args.turn / 1000, driver=args.driver / 1000)
    print(f"A node's interpreter {args.turn:g} ms a turn (64 workers a node), the driver {args.driver:g} ms an attempt; "
          f"{'latencies of a run' if pool else 'latencies lognormal, median 1 s, spread 0.6, 3 to 8 turns'}; "
          "10 attempts a worker, 10,000 at least\n")  # fmt: skip
    print(
        "| workers | wall, s | share of ideal | workers idle | driver busy | attempts/s |\n| --- | --- | --- | --- | --- | --- |"
    )
    curve = table(pool, site)
    for workers, found, best in curve:
        made = max(10_000, 10 * workers) / found.wall
        print(
            f"| {workers:,} | {found.wall:,.0f} | {best / found.wall:.2f} | {found.idle:.0%} | {found.driver:.0%} | {made:,.1f} |"
        )
    print("\nNodes that die (mean time between failures each, back after 60 s), 1,000 workers, 10,000 attempts\n")
    print("| mtbf | wall, s | attempts lost |\n| --- | --- | --- |")
    for mtbf in (0.0, 3_600.0, 600.0, 120.0):
        luck = random.Random(0)
        found = simulate([Batch(drawn(10_000, luck, pool))], site._replace(workers=1_000, mtbf=mtbf), luck)
        print(f"| {f'{mtbf:,.0f} s' if mtbf else 'never'} | {found.wall:,.0f} | {found.lost:,} |")
    print("\nFive rounds of 2,000 attempts to learn from and 400 to measure; training takes 60 s or 600 s\n")
    print(
        "| workers | training, s | wall, s | idle | asynchronous, s | idle | gain |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for workers in (64, 256, 1_000):
        for train in (60.0, 600.0):
            luck = random.Random(0)
            acquire, evaluate = drawn(2_000, luck, pool), drawn(400, luck, pool)
            one, other = (
                simulate(rounds(5, acquire, [evaluate], train, stale=stale), site._replace(workers=workers), random.Random(0))
                for stale in (False, True)
            )
            print(f"| {workers:,} | {train:.0f} | {one.wall:,.0f} | {one.idle:.0%} | {other.wall:,.0f} | {other.idle:.0%} | "
                  f"{1 - other.wall / one.wall:.0%} |")  # fmt: skip
    picture(curve, Path(args.picture))


def picture(curve: Sequence[tuple[int, Outcome, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    workers = [workers for workers, _, _ in curve]
    axes.plot(workers, [best / found.wall for _, found, best in curve], "o-", label="share of ideal")
    axes.plot(workers, [found.driver for _, found, _ in curve], "s--", label="driver busy")
    axes.set(xscale="log", xlabel="workers", ylim=(0, 1.05), ylabel="share")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    print(f"\n{path}")


# --- beside real runs ---


def validate(args: argparse.Namespace) -> None:
    """Pilots give the model's figures; then runs are predicted: by the pilot's latencies, unseen, and by their own."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    sys.path.insert(0, str(TESTS))
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| run | turn, ms | driver, ms | measured, s | of a pilot's latencies, s | error | of its own latencies, s | error |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    errors: list[list[float]] = [[], []]
    for on, each in (("threads", 10_000), ("ray", 0)):
        turn, driver, pool = pilot(on)
        for workers in (8, 24, 64):
            nodes = 1 if on == "threads" else args.nodes
            site = Site(workers, each or -(-workers // nodes), turn, driver)
            luck = random.Random(workers)
            tasks = paced(256, luck)
            guesses = [simulate([Batch(drawn(256, luck, pool))], site, luck).wall for _ in range(5)]
            own = [(one.data["pause"],) * one.data["length"] for one in tasks]
            real = measured(on, workers, tasks)
            told = f"{on}, {workers} workers, 256 attempts | {1000 * turn:.1f} | {1000 * driver:.1f} | {real:.1f}"
            for kept, guess in zip(errors, (statistics.mean(guesses), simulate([Batch(own)], site, luck).wall), strict=True):
                kept.append((guess - real) / real)
                told += f" | {guess:.1f} | {kept[-1]:+.0%}"
            print(f"| {told} |", flush=True)
    for name, kept in zip(("a pilot's latencies", "its own latencies"), errors, strict=True):
        print(f"\nof {name}: mean error {statistics.mean(map(abs, kept)):.0%}, worst {max(map(abs, kept)):.0%}")


def paced(n: int, luck: random.Random, *, pause: float = 0.5) -> list[object]:
    """Corridors of 2 to 6 steps, each step of a lognormal length of time."""
    from worlds import make_tasks

    made = make_tasks(n)
    data = [{"length": luck.randint(2, 6), "pause": pause * luck.lognormvariate(0, 0.6) if pause else 0.0} for _ in made]
    return [one.model_copy(update={"data": about}) for one, about in zip(made, data, strict=True)]


def measured(on: str, workers: int, tasks: Sequence[object], keep: list[object] | None = None) -> float:
    """The seconds that a rollout takes for real, once its workers are there."""
    from worlds import make_tasks

    from agentevolve.act.rollout import rollout
    from agentevolve.policy import Policy, Workers
    from agentevolve.run.folder import Run

    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "run", workers=Workers(count=workers, on=on), quiet=True)
        rollout(Policy(model="oracle"), make_tasks(2 * workers), run, phase="warm")
        began = time.monotonic()
        found = rollout(Policy(model="oracle"), tasks, run, phase="p")
        took = time.monotonic() - began
        run.close()
    if keep is not None:
        keep += found
    return took


def pilot(on: str) -> tuple[float, float, list[Attempt]]:
    """A turn's and an attempt's own seconds, by two runs without any pause; and attempts with pauses, few at once."""
    short = [one.model_copy(update={"data": {"length": 1}}) for one in paced(300, random.Random(1), pause=0.0)]
    long = [one.model_copy(update={"data": {"length": 11}}) for one in paced(300, random.Random(1), pause=0.0)]
    times = [measured(on, 2, tasks) for tasks in (short, long)]
    turn = max(0.0, (times[1] - times[0]) / 300 / 10)
    driver = max(0.0, times[0] / 300 - turn)
    kept: list[object] = []
    measured(on, 8, paced(64, random.Random(2)), kept)
    return turn, driver, [(one.seconds / len(one.turns),) * len(one.turns) for one in kept]


# --- asynchronous rounds, beside real evolutions ---

PACED = """\
name: paced
about: Walk to the lamp, at a pace.
env: paced:Paced
settings: {pause: 0.2}
splits: {train: {seeds: [0, 1000]}, val: {seeds: [1000, 1100]}}
licence: MIT
"""
ROUNDS, LEARNT, HELD = 4, 128, 32


def asynchronous(on: str) -> None:
    """Evolutions in which training is a pause, and what the model says of the very same latencies."""
    sys.path.insert(0, str(TESTS))
    if on == "ray":  # a cluster that is there: what it takes to start one is another matter
        import ray

        places = [str(TESTS), str(TESTS / "bench"), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ |= {"PYTHONPATH": os.pathsep.join(places), "RAY_USAGE_STATS_ENABLED": "0"}
        ray.init(address="local", include_dashboard=False, log_to_driver=False)
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {ROUNDS} rounds of {LEARNT} attempts to "
          f"learn from and two arms of {HELD}; {on}\n")  # fmt: skip
    print("| workers | training, s | wall, s | predicted | asynchronous, s | predicted | gain | predicted | load |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    evolved(4, 0.0, stale=True, tasks=4, on=on)  # what is slow at the first time is through
    for workers, train in ((16, 2.0), (16, 8.0), (48, 2.0), (48, 8.0)):
        real = [evolved(workers, train, stale=stale, on=on) for stale in (False, True)]
        guess = [guessed(workers, train, stale=stale, on=on) for stale in (False, True)]
        told = " | ".join(f"{real[one]:.1f} | {guess[one]:.1f}" for one in (0, 1))
        gain = " | ".join(f"{1 - of[1] / of[0]:.0%}" for of in (real, guess))
        print(f"| {workers} | {train:.0f} | {told} | {gain} | {os.getloadavg()[0]:.1f} |", flush=True)


def evolved(workers: int, train: float, *, stale: bool, tasks: int = LEARNT, on: str = "threads") -> float:
    """The seconds that an evolution takes for real."""
    from agentevolve.config import Config
    from agentevolve.loop.evolve import evolve

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "paced.yaml"
        path.write_text(PACED)
        config = Config.model_validate(
            {
                "tasks": str(path),
                "model": "oracle",
                "method": "paced:pausing",
                "settings": {"training": train},
                "embedder": "hash",
                "workers": {"count": workers, "on": on},
                "rounds": ROUNDS,
                "train": {"tasks": tasks},
                "val": {"tasks": min(tasks, HELD)},
                "arms": ["base", "memory"],
                "gate": {"rule": "none"},
                "asynchronous": stale,
            }
        )
        began = time.monotonic()
        evolve(config, Path(folder) / "run", quiet=True)
        return time.monotonic() - began


def guessed(workers: int, train: float, *, stale: bool, on: str = "threads") -> float:
    """The seconds that the model says the same evolution takes."""
    from paced import pace

    from agentevolve.load import load_task_set, tasks_of
    from agentevolve.loop.evolve import practised

    def paced_as(tasks: Sequence[object]) -> list[Attempt]:
        return [(told["pause"],) * told["length"] for told in map(pace, tasks)]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "paced.yaml"
        path.write_text(PACED)
        task_set = load_task_set(path)
        acquire, arm = paced_as(practised(task_set, LEARNT, 0)), paced_as(tasks_of(task_set, "val", limit=HELD))
    site = Site(workers, 10_000, *{"threads": (0.0005, 0.0014), "ray": (0.0009, 0.0034)}[on])
    return simulate(rounds(ROUNDS, acquire, [arm, arm], train, stale=stale), site, random.Random(0)).wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="run", type=Path, help="a run whose attempts' lengths and latencies are drawn from")
    parser.add_argument("--turn", type=float, default=1.5, help="ms of a node's interpreter a turn")
    parser.add_argument("--driver", type=float, default=3.0, help="ms of the driver an attempt")
    parser.add_argument("--picture", default="simulate.png")
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--nodes", type=int, default=1, help="nodes of the local cluster, for --validate")
    parser.add_argument("--asynchronous", action="store_true")
    parser.add_argument("--on", choices=("threads", "ray"), default="threads", help="where, for --asynchronous")
    args = parser.parse_args()
    if args.asynchronous:
        asynchronous(args.on)
    elif args.validate:
        validate(args)
    else:
        show(pool_of(args.run) if args.run else [], args)


if __name__ == "__main__":
    main()
