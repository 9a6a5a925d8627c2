"""A run: one directory, one seed, one append-only journal. What the journal holds is done and is never paid for again.

RUN/config.yaml      what was asked for, every default resolved
RUN/journal.jsonl    trajectories, reflections, evaluations and gate decisions, in the order in which they happened;
                     a large run goes on in journal-000002.jsonl (run/segments.py)
RUN/.journal.sqlite  what was counted of a large journal, so that opening the run need not read it (run/checkpoint.py)
RUN/underway.jsonl   what is being paid for at this moment
RUN/journal.d/       what workers elsewhere have made and was not journalled yet (shards.py)
RUN/memory/          the entries (a journal of their own, and the index made from it)
RUN/adapters/        one folder for each fine-tuning
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agentevolve.policy import Price, Workers
from agentevolve.protocols import AgentevolveError
from agentevolve.records import SPLITS, Outcome, PolicyStamp, Task, Trajectory, Usage, usage_of
from agentevolve.redact import redacted
from agentevolve.run.attempts import Attempts, Lent, mark
from agentevolve.run.budget import Budget
from agentevolve.run.checkpoint import CHECKPOINT, GONE, STANDS, Checkpoint, Counted, Phase, attempt_in
from agentevolve.run.checkpoint import LOST as FAILED
from agentevolve.run.journal import encoded
from agentevolve.run.lock import Lock, lock
from agentevolve.run.parts import Part, Parts
from agentevolve.run.permits import Permits
from agentevolve.run.progress import progress
from agentevolve.run.segments import Line, Segments
from agentevolve.run.underway import Underway

JOURNAL = "journal.jsonl"
VIEW = ".view.sqlite"  # what the inspector makes of the journal, for itself
FORMAT = 1
OPENING = {"kind": "run", "format": FORMAT}  # a journal's first line; the journals of before it had none
ATTEMPT = b'{"kind":"trajectory",'  # how the line of an attempt begins, as it is written
ALONE = "run"  # the phase of the attempts of `agentevolve run`
MEGABYTE = 1 << 20
LONG = 64  # megabytes of a journal that are counted before anybody is told
PHASES = ("acquire", "refine", "update", "evaluate")
ASKED = "ask/"  # the facts that are answers of a model, with what they cost
LOST = "lost/"  # the facts that say what a stopped attempt or question has cost
ACCEPTED = "accepted "  # the facts that name lost attempts which stay lost, because something was derived without them
MANNER = "manner/"  # the facts that say what a model's backend has refused, and why
AGAIN = "again "  # the facts that name attempts which are made again
EVALUATION = "evaluation "  # the facts that name the attempts of an evaluation, by arm
REFUSED = "refused/"  # the facts that say why an entry was not remembered, by its id
SPENT = "spent/"  # the facts that say what anything else has cost


def phase_of(name: str) -> str:
    """Whether an attempt was made to measure (of a run of one policy, or on a split) or to learn, by its phase or id."""
    if name.startswith(ASKED):
        return "refine"
    first = name.split("/")[:2]
    return "evaluate" if first[0] == ALONE or any(part in SPLITS for part in first) else "acquire"


def identity(task: Task) -> str:
    """What makes two tasks the same world, whatever their ids and splits: environment, seed and settings."""
    return json.dumps([task.env, task.seed, task.data], sort_keys=True)


def derived(*parts: object) -> int:
    """A seed of 31 bits that depends on `parts` alone."""
    said = "/".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(said).digest()[:4], "big") >> 1


def same(task: Task, seed: int, hint: str, stamp: PolicyStamp) -> str:
    """What makes two attempts without adapter and memory the same one."""
    return json.dumps([identity(task), task.prompt, seed, hint, stamp.model_dump(exclude={"round"})], sort_keys=True)


class Run:
    """The run in `folder`, new or resumed. `workers` says how many attempts run side by side, and where; `quiet` hides the bars.

    `round` is the number of the round under way, from 1; `held_out` are the identities of tasks that may not be practised.
    `trajectories` are the attempts that count, `lost` those that the outside failed and that are made again when they are asked
    for; what they cost stays counted. Both are read from the journal one by one, as they are asked for: what is counted, summed
    or chosen over many is taken from their figures (`phases`, `outcomes`, `outcomes_of`). `embedder` makes the vectors of its
    memory ("": all-MiniLM-L6-v2); `prices` are those of models that LiteLLM knows no price of, or another one.
    `rolled` is called when a rollout to learn from is complete; `permits`, if there are any, are asked for before each attempt;
    `known` is the last round whose entries attempts recall, whatever their policy says (set on what is made `ahead`); `at_work`
    is what of `journal.d` belongs to a rollout under way.
    Opening it locks the folder, until `close`, and counts what its journal says, as far as no checkpoint does; one that is only
    read (`read_run`) locks nothing.
    Raises AgentevolveError naming the process that has it open, or file and line where the journal is damaged.
    """

    def __init__(
        self, folder: Path, *, seed: int = 0, workers: int | Workers = 4, quiet: bool = False, read_only: bool = False
    ) -> None:
        self.folder, self.seed, self.quiet = folder, seed, quiet
        self.where = Workers.model_validate(workers)
        self.workers = self.where.count
        self.journal = Segments(folder / JOURNAL, OPENING)
        self.round = 1
        self.held_out: frozenset[str] = frozenset()
        self.lent = Lent()
        self.answered: dict[str, dict[str, Any]] = {}
        self.prices: Mapping[str, Price] = {}
        self.embedder = ""
        self.notes = Underway(folder)
        self.budget = Budget(notes=self.notes)
        self.rolled: Callable[[], None] = lambda: None
        self.permits: Permits | None = None
        self.at_work: set[Path] = set()
        self.known: int | None = None
        self._parts, self._holder = Parts(), "now"
        self._lock, self._counting = threading.Lock(), threading.RLock()
        self._held: Lock | None = None if read_only else lock(folder)
        try:
            self._counted = Checkpoint(folder / CHECKPOINT, self.journal)
            self.facts = self._counted.facts
            self.trajectories, self.lost = Attempts(self._counted, STANDS), Attempts(self._counted, FAILED)
            self._catch_up()
            if self._held:
                self._charge()
        except BaseException:
            if self._held:
                self._held.release()
            raise

    def add(self, trajectory: Trajectory) -> None:
        """Journal a finished attempt; a second one of the same id is refused."""
        with self._lock:
            if trajectory.id in self.trajectories:
                raise ValueError(f"trajectory {trajectory.id} is journalled already")
            with self._counting:
                line, clean = self._append({"kind": "trajectory", "data": trajectory.model_dump(mode="json")})
                self._keep(trajectory, line, clean)
                self._counted.write()

    def lose(self, name: str, usage: Usage) -> None:
        """Journal what an attempt or a question has cost that was stopped before its end: it is made again, this was spent."""
        with self._lock:
            number = self._said(f"{LOST}{name}/")
            self.once(f"{LOST}{name}/{number}", lambda: {"usage": usage.model_dump()})

    def making(self, name: str) -> str:
        """The name of this making of an attempt or question, for what is spent on it meanwhile."""
        return f"{name}#{self._counted.makings(name)}"

    def accept(self, name: str, ids: Iterable[str]) -> None:
        """Let the lost ones among these attempts stay lost: what `name` is was derived without them."""
        with self._lock:
            if missing := [id for id in ids if id in self.lost]:
                number = self._said(f"{ACCEPTED}{name} ")
                self.once(f"{ACCEPTED}{name} {number}", lambda: missing)

    def again(self, name: str, ids: Sequence[str]) -> None:
        """Let these attempts be made again, and what they cost stay counted."""
        with self._lock:
            if ids:
                number = self._said(f"{AGAIN}{name} ")
                self.once(f"{AGAIN}{name} {number}", lambda: list(ids))

    def attempts(self) -> Mapping[str, Trajectory]:
        """Every attempt by its id as it stands, the lost ones among them."""
        return Attempts(self._counted, STANDS, FAILED)

    def phases(self, *, lost: bool = False) -> dict[str, Phase]:
        """The phases of the attempts that count, with `lost` of the lost ones too: how many they are, and what time they took."""
        return self._counted.phases((STANDS, FAILED) if lost else (STANDS,))

    def outcomes(self, ids: Iterable[str]) -> Mapping[str, Outcome]:
        """The figures of those of these attempts that are there, the lost ones among them, by id."""
        return self._counted.of_ids(ids)

    def outcomes_of(self, wanted: Callable[[str], bool], *, lost: bool = False) -> Iterator[Counted]:
        """The figures of the attempts that count, with `lost` of those that are lost too, in the phases that are `wanted`."""
        return self._counted.of_phases(wanted, (STANDS, FAILED) if lost else (STANDS,))

    def spend(self, name: str, usage: Usage) -> None:
        """Journal and book, once, what something that is neither an attempt nor a question has cost."""
        if SPENT + name not in self.facts:
            self.budget.pay(usage)
            self.once(SPENT + name, lambda: {"usage": usage.model_dump()})

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """The JSON value journalled under `name`, made and journalled now if it is not there yet."""
        if name not in self.facts:
            value = make()
            with self._counting:
                if name not in self.facts:  # else another thread was quicker
                    line, clean = self._append({"kind": "fact", "name": name, "data": value})
                    self._note(name, value, line, clean)
        return self.facts[name]

    def about(self, name: str, value: Any) -> Any:
        """Journal what the run is about, or find what it is about already. Raises AgentevolveError for a run of another kind."""
        told = [fact for fact in list(self.facts) if not fact.startswith(MANNER)]  # that may be another run's
        if bool(self.trajectories or self.lost or told) and name not in self.facts:
            raise AgentevolveError(f"{self.folder}: holds a run of another {name}; name a new folder with --out")
        return self.once(name, lambda: value)

    def settle(self, name: str, value: Any) -> None:
        """Journal what the run is about; raise AgentevolveError when it is about something else already."""
        if redacted(self.about(name, value)) != redacted(value):
            raise AgentevolveError(f"{self.folder}: holds a run of another {name}; name a new folder with --out")

    def evaluations(self) -> dict[str, dict[str, list[str]]]:
        """The finished evaluations by name (`1/val`, …), or the attempts of `agentevolve run`: ids by arm."""
        return evaluations(self.facts.copy(), self._counted.tried(ALONE, (STANDS, FAILED)))

    def acquired(self, *rounds: int) -> list[Trajectory]:
        """The attempts of these rounds' acquire phases (none named: of all so far), in the order of their ids, round by round."""
        wanted = [f"{number}/acquire" for number in rounds or range(1, self.round + 1)]
        found: dict[str, list[str]] = {name: [] for name in wanted}
        for one in self.outcomes_of(lambda phase: _stage(phase) in found):
            found[_stage(one.phase)].append(one.id)
        return [self.trajectories[id] for name in wanted for id in sorted(found[name])]

    def borrow(self, other: Run) -> None:
        """Take what `other` has paid for instead of paying again: attempts of a bare model, and answers, to the very same.

        They are charged to this run's budget as if it had made them. What a backend has refused there is not asked of it here.
        """
        for name in [name for name in other.facts if name.startswith(MANNER)]:
            self.once(name, lambda name=name: other.facts[name])  # type: ignore[misc]
        self.lent.take(other._counted)
        self.answered |= {fact["same"]: fact for fact in other.facts.values() if isinstance(fact, dict) and "same" in fact}

    def limit(self, max_tokens: int | None, max_usd: float | None) -> None:
        """Let the run spend no more than this, what it has spent so far included."""
        self.budget = Budget(max_tokens, max_usd, spent=self.spent(), notes=self.notes)

    def spent(self) -> Usage:
        """What the run has cost so far, in this process and in those before it."""
        return sum(self.costs().values(), Usage())

    def costs(self, wanted: Callable[[str], bool] = lambda phase: True) -> dict[str, Usage]:
        """What each phase has cost so far: acquire (attempts), refine (questions), update (training, embedding), evaluate.

        Of attempts only those in the phases that are `wanted` are counted (by default all).
        """
        costs = dict.fromkeys(PHASES, Usage())
        for phase, cost in self._counted.costs.items():
            if wanted(phase):
                costs[phase_of(phase)] += usage_of(cost)
        for name, fact in self.facts.copy().items():
            kind, _, rest = name.partition("/")
            if f"{kind}/" in (ASKED, LOST, SPENT) and "usage" in fact:
                phase = {ASKED: "refine", SPENT: "update"}.get(f"{kind}/") or phase_of(rest)
                costs[phase] += Usage.model_validate(fact["usage"])
        return costs

    def learning(self) -> tuple[int, Usage]:
        """How many attempts were made to learn from, and what learning has cost so far: everything but evaluation."""
        costs = self.costs()
        episodes = sum(found.attempts for phase, found in self.phases().items() if phase_of(phase) == "acquire")
        return episodes, costs["acquire"] + costs["refine"] + costs["update"]

    def derive(self, *parts: object) -> int:
        """A seed of 31 bits that depends on the run's seed and `parts` alone."""
        return derived(self.seed, *parts)

    def rng(self, *parts: object) -> random.Random:
        """A generator seeded by `derive(*parts)`."""
        return random.Random(self.derive(*parts))

    def part(self, kind: str, key: str, make: Callable[[], Part]) -> Part:
        """The run's open part of this kind (its model, its memory). Another key closes the one before, once the new one is open:
        what both hold, such as a base in memory, stays. What is made ahead and the round under way share what has the same key.
        """
        return self._parts.take(self._holder, kind, key, make)

    def rest(self, kind: str) -> None:
        """Let the open part of this kind give back what it holds, such as a GPU's memory, until it is used again."""
        self._parts.rest(self._holder, kind)

    def ahead(self) -> Run:
        """This run as its next round sees it, begun while this one goes on: the same journal, facts, budget and permits.

        Its attempts recall nothing that the round under way adds. `left` is called when nothing more is done with it.
        """
        view = copy.copy(self)
        view.round, view.known, view._holder = self.round + 1, self.round - 1, "ahead"
        return view

    def called(self, phase: str) -> str:
        """What a phase is called where it is shown."""
        return phase if self.known is None else f"{phase}, ahead"

    def left(self) -> None:
        """Give back the model and the memory of what was made ahead. Processes on other nodes stay for the next time."""
        self._parts.leave(self._holder, "model", "memory")

    def close(self) -> None:
        """Close the open parts and let others write; what was read can still be read. Closing twice is allowed."""
        with self._lock:
            try:
                self._parts.close()
            finally:
                self.notes.close()
                if self._held:
                    with self._counting:
                        self._counted.write()
                    self._held.release()
                self._held = None

    def _said(self, prefix: str) -> int:
        """How many facts begin so."""
        return sum(name.startswith(prefix) for name in list(self.facts))

    def _append(self, record: dict[str, Any]) -> tuple[Line, bool]:
        """Journal a record; its line, and whether that says just what the record does."""
        if self._held is None:
            raise AgentevolveError(f"{self.folder}: cannot write: the run was closed, or opened for reading only")
        [line] = self.journal.append(record)
        return line, encoded(record)[:-1] == line.text

    def _keep(self, trajectory: Trajectory, line: Line, clean: bool = True) -> None:
        """Let an attempt stand in the place of an earlier making of it."""
        alike = None
        if not (trajectory.lost or trajectory.policy.adapter or trajectory.policy.memory):
            alike = mark(same(trajectory.task, trajectory.seed, trajectory.hint, trajectory.policy))
        self._counted.keep(trajectory, line, alike, clean=clean)

    def _note(self, name: str, value: Any, line: Line, clean: bool = True) -> None:
        """Keep a fact, and do what it says of attempts."""
        self._counted.say(name, value, line, clean=clean)
        if name.startswith(ACCEPTED):
            self._counted.move(value, STANDS, only=FAILED)
        elif name.startswith(AGAIN):
            self._counted.move(value, GONE)
        elif name.startswith(ASKED):
            self._counted.made(name)
        elif name.startswith(LOST):
            self._counted.made(name.removeprefix(LOST).rpartition("/")[0])

    def _charge(self) -> None:
        """Journal what a killed process had spent on what it did not end."""
        for name, usage in self.notes.left().items():
            what, _, number = name.rpartition("#")
            if number == str(self._counted.makings(what)):
                self.lose(what, usage)
        self.notes.clear()

    def _catch_up(self) -> None:
        """Count what the journal says and the checkpoint does not, and write that down if it is much."""
        if self._counted.done >= self._counted.until:
            return
        left = -(-(self._counted.until - self._counted.done) // MEGABYTE)
        shown = progress(f"{self.folder}: reading the journal, MB", left, quiet=self.quiet or left < LONG)
        with shown as advance, self._counted.counting():
            told = self._counted.done
            for line in self.journal.lines(told, self._counted.until):
                self._take(line)
                if line.at - told >= MEGABYTE:
                    told += MEGABYTE
                    advance("")
        self._counted.write()

    def _take(self, line: Line) -> None:
        if line.text.startswith(ATTEMPT) and (one := attempt_in(self.journal, line)):
            return self._keep(one, line)
        said = self.journal.parse(line)
        try:
            match said["kind"]:
                case "trajectory":
                    self._keep(Trajectory.model_validate(said["data"]), line)
                case "fact":
                    self._note(said["name"], said["data"], line)
                case "segment":
                    self._counted.skip(line)
                case "run":
                    self._check_version(line, "format", said["format"], [FORMAT])
                    self._counted.skip(line)
                case kind:
                    self._check_version(line, "kind", kind, ["fact", "run", "trajectory"])
        except (KeyError, TypeError, ValidationError) as error:
            why = str(error).splitlines()[0]
            raise AgentevolveError(f"{self._where(line)}: not a line of a run's journal ({why}); nothing was changed") from None

    def _check_version(self, line: Line, field: str, value: object, known: Sequence[object]) -> None:
        """Raise AgentevolveError for what only a newer version can have written."""
        if value not in known:
            names, where = ", ".join(map(str, known)), self._where(line)
            raise AgentevolveError(f"{where}: {field}: {repr(value)[:100]} is not known; this version reads {field} {names}")

    def _where(self, line: Line) -> str:
        path, number = self.journal.whereabouts(line.at)
        return f"{path}:{number}"


def evaluations(facts: Mapping[str, Any], tried: Iterable[tuple[str, str, str]]) -> dict[str, dict[str, list[str]]]:
    """What a run's facts say was measured: by name the ids by arm. `tried` are `agentevolve run`'s attempts: id, split, model."""
    found = {name.removeprefix(EVALUATION): arms for name, arms in facts.items() if name.startswith(EVALUATION)}
    for id, split, model in tried:
        found.setdefault(f"run {split}", {}).setdefault(model, []).append(id)
    return found


def seeds(place: Path) -> list[Path]:
    """The folders of the runs at `place`: itself, or one for each seed. Raises AgentevolveError if there is none."""
    found = started(place)
    if not found:
        raise AgentevolveError(f"{place}: not a run: there is no {JOURNAL} in it")
    return found


def started(place: Path) -> list[Path]:
    """As `seeds`; none if none of them was begun."""
    if (place / JOURNAL).is_file():
        return [place]
    return sorted(folder for folder in place.glob("seed-*") if (folder / JOURNAL).is_file())


def journal_of(folder: Path) -> Segments:
    """The journal of the run in `folder`, to be read."""
    return Segments(folder / JOURNAL, OPENING)


def written(folder: Path) -> float:
    """When the journal of the run in `folder` was last written, in seconds since 1970."""
    return journal_of(folder).written()[2] / 1e9


def read_run(folder: Path) -> Run:
    """The run in `folder` for reading alone, also while another process writes: nothing is locked or changed.

    What was counted of a large journal is written down, where that can be done.
    """
    return Run(folder, read_only=True)


def _stage(phase: str) -> str:
    """A phase without what comes after its round and its first word."""
    return "/".join(phase.split("/")[:2])
