"""What each page of the inspector says, as JSON values: the page and its `.json` twin are made from the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

from agentevolve.evaluate.table import grid
from agentevolve.loop.policies import BACK, GATE, learnt_of
from agentevolve.loop.reports import Found, verdicts
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Usage
from agentevolve.view import attempts, entry, figures, maps, memories, places, shown, standings
from agentevolve.view.attempts import Asked, asked_of
from agentevolve.view.comparisons import Comparisons
from agentevolve.view.figures import Seed
from agentevolve.view.index import ReadIndex, Row
from agentevolve.view.maps import Placed
from agentevolve.view.memories import Memories, Wanted
from agentevolve.view.nearest import Nearest
from agentevolve.view.places import Places

Value = TypeVar("Value")
Query = Mapping[str, str]
KEPT = 64  # results that are kept until their run changes


class Pages:
    """The pages over the runs in `places`. Safe to use from several threads."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self._comparisons = Comparisons()
        self._memories: dict[str, Memories] = {}
        self._near: dict[str, Nearest] = {}
        self._kept: dict[Hashable, Any] = {}
        self._lock = threading.Lock()

    def runs(self, query: Query) -> dict[str, Any]:
        """All comparisons and all runs that belong to none, with how far they are."""
        compared = self.places.comparisons()
        theirs = {run for place in compared.values() for run in places.runs_of(place)}
        alone = [name for name, place in self.places.names().items() if place not in theirs]
        return {
            "root": str(self.places.root),
            "comparisons": [self._compared(name) for name in compared],
            "runs": [self._short(name) for name in alone],
        }

    def every(self) -> dict[str, Any]:
        """All runs, those of comparisons among them."""
        return {"root": str(self.places.root), "runs": [self._short(name) for name in self.places.names()]}

    def comparison(self, name: str, query: Query) -> dict[str, Any]:
        """How compared methods stand, what it cost them, what they forgot, and what cannot be concluded."""
        place = self.places.comparison(name)
        return {"comparison": name, **standings.page(self._comparisons.found(place), place, self.places.name_of)}

    def curves(self, name: str) -> bytes:
        """The learning curves of a comparison as SVG. Raises AgentevolveError where no method is through yet."""
        return self._comparisons.curve(self.places.comparison(name))

    def run(self, name: str, query: Query) -> dict[str, Any]:
        """One run: its figures as the terminal has them, what the gate said, what it cost, and why attempts were lost."""
        index = self.places.index(name)
        found = self.found(name)
        return {
            **self._about(name, index),
            "of": self.places.comparison_of(index.place),
            "settings": places.settings(index.place),
            "tables": {} if found is None else {title: _table(found, title) for title in found.tables},
            "curve": found is not None and bool(found.tables),
            "measured": 0 if found is None else len(found.by_seed),
            "verdicts": self._verdicts(index),
            "gates": _gates(index),
            "costs": {phase: cost.model_dump() | {"tokens": cost.tokens} for phase, cost in figures.costs(index).items()},
            "lost": figures.lost(index),
        }

    def attempts(self, name: str, query: Query) -> dict[str, Any]:
        """A page of the list of attempts."""
        index, asked = self.places.index(name), asked_of(query, Asked)
        found = attempts.listed(index, asked)
        key = ("facets", name, asked.model_copy(update={"after": "", "sort": "first"}))
        facets = self._keep(key, index, lambda: attempts.facets(index, asked))
        return {**self._about(name, index), "asked": asked.model_dump(), **found, "facets": facets}

    def attempt(self, name: str, query: Query) -> dict[str, Any]:
        """One attempt, turn by turn."""
        index = self.places.index(name)
        row = attempts.row_of(index, query.get("id", ""), number(query, "seed"))
        one = attempts.body_of(index, row)
        found = shown.replay(one, number(query, "turn") or 0)
        policy, cost = one.policy.model_dump(mode="json"), one.usage.model_dump()
        known = {**dict(row), "policy": policy, "usage": cost, "hint": bool(one.hint), "error": one.error[: shown.LONG]}
        return {**self._about(name, index), "row": known, **found, "beside": attempts.beside(index, row)}

    def compare(self, name: str, query: Query) -> dict[str, Any]:
        """Two attempts beside each other."""
        index = self.places.index(name)
        found = [attempts.row_of(index, query.get(side, ""), number(query, f"seed_{side}")) for side in ("a", "b")]
        one, other = (attempts.body_of(index, row) for row in found)
        both = shown.side_by_side(one, other, number(query, "turn"))
        return {**self._about(name, index), "rows": [_brief(dict(row)) for row in found], **both}

    def memory(self, name: str, query: Query) -> dict[str, Any]:
        """A page of the list of entries."""
        held, asked = self._memory(name), asked_of(query, Wanted)
        if asked.near:
            return {**self._about(name, held.index), "asked": asked.model_dump(), **self._nearest(name, held).listed(asked)}
        listed = memories.listed(held.index, asked, self._groups(name, held, asked))
        return {**self._about(name, held.index), "asked": asked.model_dump(), **listed}

    def entry(self, name: str, query: Query) -> dict[str, Any]:
        """One entry of the memory."""
        held = self._memory(name)
        found = entry.entry_page(held, query.get("id", ""), number(query, "seed"))
        text = shown.cut(found["entry"].pop("text"), shown.LONGER)
        return {**self._about(name, held.index), **found, "text": text}

    def map(self, name: str, query: Query) -> dict[str, Any]:
        """The map of the memory, as values."""
        held, asked = self._memory(name), asked_of(query, Placed)
        groups = self._groups(name, held, asked)
        return {**self._about(name, held.index), **maps.page(held.index, self._shown(name, held, asked), asked, groups)}

    def drawn(self, name: str, query: Query, form: str) -> bytes:
        """The picture of the map as SVG or PNG."""
        held, asked = self._memory(name), asked_of(query, Placed)
        key = ("picture", name, maps.stamps(held), asked, form)
        return self._keep(key, held.index, lambda: maps.drawn(self._shown(name, held, asked), asked, form))

    def _groups(self, name: str, held: Memories, asked: Wanted) -> list[Row]:
        """How many entries there are for the values of all facets, kept until the memory changes."""
        key = ("entries", name, held.state(), asked.text, asked.task)
        return self._keep(key, held.index, lambda: memories.groups(held.index, asked))

    def _shown(self, name: str, held: Memories, asked: Placed) -> maps.Shown:
        """The entries asked for that have a place; where all lie is kept until the memory, or what is embedded of it, changes."""
        stamps = maps.stamps(held)
        made = self._keep(("charts", name, stamps), held.index, lambda: maps.charts(held))
        entries = asked.model_copy(update={"colour": "kind", "x": None, "y": None})
        return self._keep(("shown", name, stamps, entries), held.index, lambda: maps.shown(held.index, made, entries))

    def policies(self, name: str, query: Query) -> dict[str, Any]:
        """What was learnt in weights, from what, and what the gate said of it; which policy is in place."""
        index = self.places.index(name)
        found = self._keep(("adapters", name, _trained(index)), index, lambda: _adapters(index))
        return {**self._about(name, index), "adapters": found, "gates": _gates(index), "verdicts": self._verdicts(index)}

    def found(self, name: str) -> Found | None:
        """The reports of a run, kept until it changes; None where nothing is measured yet."""
        index = self.places.index(name)
        return self._keep(("found", name), index, lambda: _found(index))

    def curve(self, name: str) -> bytes:
        """The learning curve of a run as SVG. Raises AgentevolveError where nothing is measured yet."""
        found = self.found(name)
        if found is None:
            raise AgentevolveError("nothing is measured yet")
        return self._keep(("curve", name), self.places.index(name), lambda: figures.curve(found))

    def _keep(self, key: Hashable, index: ReadIndex, make: Callable[[], Value]) -> Value:
        state = index.state()
        known = self._kept.get(key)
        if known is None or known.state != state:
            known = _Kept(state, make())
            with self._lock:
                self._kept[key] = known
                while len(self._kept) > KEPT:
                    del self._kept[next(iter(self._kept))]
        return known.value  # type: ignore[no-any-return]

    def _memory(self, name: str) -> Memories:
        index = self.places.index(name)
        with self._lock:
            held = self._memories.setdefault(name, Memories(index))
            held.update()
        return held

    def _nearest(self, name: str, held: Memories) -> Nearest:
        with self._lock:
            return self._near.setdefault(name, Nearest(held))

    def _about(self, name: str, index: ReadIndex) -> dict[str, Any]:
        """What every page of a run says of it."""
        return {
            "name": name,
            "state": places.state(index.place),
            "changed": places.changed(index.place),
            "seeds": self._keep(("progress", name), index, lambda: figures.progress(index)),
        }

    def _short(self, name: str) -> dict[str, Any]:
        """A run in the list of runs; one that cannot be read says why."""
        if name in self.places.unread:
            return {"name": name, "state": "being read", "error": ""}
        try:
            index = self.places.index(name)
            wanted = places.settings(index.place)
            asked = {key: wanted.get(key) for key in ("tasks", "model", "method", "rounds", "seeds")}
            cost = sum((one for one in figures.costs(index).values()), Usage())
            spent = {"tokens": cost.tokens, "usd": cost.usd, "seconds": cost.seconds}
            return {**self._about(name, index), "asked": asked, "spent": spent, "verdicts": self._verdicts(index), "error": ""}
        except (AgentevolveError, OSError) as error:
            return {"name": name, "error": str(error)}

    def _compared(self, name: str) -> dict[str, Any]:
        """A comparison in the list of runs; one that cannot be read says why."""
        try:
            return {"name": name, **standings.short(self.places.comparison(name)), "error": ""}
        except (AgentevolveError, OSError) as error:
            return {"name": name, "error": str(error)}

    def _verdicts(self, index: ReadIndex) -> list[str]:
        several = len(index.folders) > 1
        return [line for seed in sorted(index.folders) for line in verdicts(Seed(index, seed), several)]


class _Kept(NamedTuple):
    state: Hashable
    value: Any


def _found(index: ReadIndex) -> Found | None:
    try:
        return figures.found(index)
    except AgentevolveError:
        return None


def _trained(index: ReadIndex) -> tuple[int, ...]:
    """What changes when an adapter comes or goes."""
    found = [folder / "adapters" for folder in index.folders.values()]
    return tuple(path.stat().st_mtime_ns for path in found if path.is_dir())


def _adapters(index: ReadIndex) -> list[dict[str, Any]]:
    found = []
    for seed, folder in sorted(index.folders.items()):
        for one in learnt_of(Seed(index, seed), f"{folder.name}/" if folder != index.place else ""):
            told = one.model_dump(mode="json", exclude={"path", "verdicts"})
            found.append({**told, "trajectories": len(one.trajectories), "verdicts": [said.said for said in one.verdicts]})
    return found


def _table(found: Found, title: str) -> dict[str, Any]:
    """The terminal's table, and the figures behind it."""
    headings, rows = grid(found.tables[title])
    return {"headings": headings, "rows": rows, "reports": [one.model_dump(mode="json") for one in found.tables[title]]}


def _gates(index: ReadIndex) -> list[dict[str, Any]]:
    """What the gate said after each round of each seed, and whether somebody took a policy back after it."""
    found = []
    for seed, folder in sorted(index.folders.items()):
        facts = Seed(index, seed).facts
        for name, fact in facts.items():
            if name.startswith(GATE):
                number = int(name.removeprefix(GATE).split("/")[0])
                backs = [one for key, one in facts.items() if key.startswith(f"{BACK}{number}/")]
                about = {"seed": seed, "name": folder.name, "round": number}
                found.append({**about, "guards": {}, "alarms": {}, **fact, "taken_back": backs})
    return found


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    names = ("n", "seed", "id", "task", "split", "round", "arm", "outcome", "reward", "turns", "tokens", "took", "recalled")
    return {name: row[name] for name in names}


def number(query: Query, name: str) -> int | None:
    """A whole number of the query, if it is there. Raises AgentevolveError where it is none."""
    said = query.get(name, "")
    if not said:
        return None
    if not said.isdecimal() or len(said) > 9:
        raise AgentevolveError(f"{name}: {said[:100]!r} is not a number")
    return int(said)
