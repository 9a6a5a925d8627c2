"""What each page of the inspector says, as JSON values: the page and its `.json` twin are made from the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from agentevolve.evaluate.table import grid
from agentevolve.loop.policies import BACK, GATE, learnt_of
from agentevolve.loop.reports import Found, verdicts
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Usage
from agentevolve.view import attempts, entry, figures, maps, memories, places, shown, standings
from agentevolve.view.attempts import Asked, asked_of
from agentevolve.view.comparisons import Compared, Comparisons, curve
from agentevolve.view.figures import Seed
from agentevolve.view.index import ReadIndex
from agentevolve.view.maps import Charts, Placed
from agentevolve.view.memories import Memories, Wanted
from agentevolve.view.nearest import Nearest
from agentevolve.view.places import Places
from agentevolve.view.soon import NotYet, Soon

Value = TypeVar("Value")
Query = Mapping[str, str]
KEPT = 64  # results that are kept until their run changes
GROWN = "The memory has changed and is being read; until then this page shows it as it was before."
STANDING_AGAIN = "Its runs have grown: the standings are being made again."
DRAWING = "The map is being made of all entries; this page shows it as soon as it is there."
DRAWN_AGAIN = "The map is being made again; until then entries that are new are not on it."


class Pages:
    """The pages over the runs in `places`. Safe to use from several threads.

    `patience` is how many seconds a page waits for what takes long, a large memory, its map or a comparison: then it shows what
    was there before, with a word on it (`making`), or raises NotYet. None: until it is there.
    """

    def __init__(self, places: Places, patience: float | None = None) -> None:
        self.places = places
        self.soon = Soon(patience)
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
            "memories": [self._remembered(name) for name in self.places.memories()],
        }

    def grown(self, name: str) -> str:
        """What changes when a page of that name may say something else (`Places.grown`), or something that takes long is made."""
        return f"{self.places.grown(name)}-{self.soon.done}"

    def comparison(self, name: str, query: Query) -> dict[str, Any]:
        """How compared methods stand, what it cost them, what they forgot, and what cannot be concluded."""
        place = self.places.comparison(name)
        state = self._comparisons.state(place)
        found = self._standing(place, state)
        making = "" if self.soon.fresh(("comparison", place), state) else STANDING_AGAIN
        values = standings.page(found, place, self.places.name_of)
        if values["curve"]:
            try:
                self._curves(place, state, found)
            except NotYet:
                values["curve"], making = False, making or "The learning curves are being drawn."
        return {"comparison": name, "making": making, **values}

    def curves(self, name: str) -> bytes:
        """The learning curves of a comparison as SVG. Raises AgentevolveError where no method is through yet."""
        place = self.places.comparison(name)
        state = self._comparisons.state(place)
        return self._curves(place, state, self._standing(place, state))

    def method(self, name: str, query: Query) -> dict[str, Any]:
        """How one method of a comparison stands at each task set, and its runs."""
        page, method = self.comparison(name, {}), query.get("method", "")
        known = page["asked"]["methods"]
        if method not in known:
            raise AgentevolveError(f"there is no method {method[:200]!r}; known: {', '.join(known)}")
        place = self.places.comparison(name)
        return {
            **{key: page[key] for key in ("comparison", "state", "changed", "making")},
            "method": method,
            "standings": standings.of_method(self._standing(place, self._comparisons.state(place)), method),
            "runs": [one for one in page["runs"] if one["method"] == method],
        }

    def _curves(self, place: Path, state: Hashable, found: Compared) -> bytes:
        return self.soon.get(("curves", place), state, lambda: curve(found))

    def _standing(self, place: Path, state: Hashable) -> Compared:
        return self.soon.get(("comparison", place), state, lambda: self._comparisons.found(place))

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
        if asked.text:
            self.soon.get(("words", name), index.state(), index.update_words)
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
        listed = self._nearest(name, held).listed(asked) if asked.near else memories.listed(held, asked)
        return {**self._about(name, held.index), "making": _behind(held), "asked": asked.model_dump(), **listed}

    def entry(self, name: str, query: Query) -> dict[str, Any]:
        """One entry of the memory."""
        held = self._memory(name)
        row = entry.row_of(held.index, query.get("id", ""), number(query, "seed"))
        ledger = self.soon.get(("ledger", name, row["seed"]), dict(held.now()).get(row["seed"]), lambda: held.ledger(row["seed"]))
        found = entry.entry_page(held.index, ledger, row)
        text = shown.cut(found["entry"].pop("text"), shown.LONGER)
        return {**self._about(name, held.index), "making": _behind(held), **found, "text": text}

    def map(self, name: str, query: Query) -> dict[str, Any]:
        """The map of the memory, as values."""
        held, asked = self._memory(name), asked_of(query, Placed)
        stamps = maps.stamps(held)
        made = self._charts(name, held, stamps)
        making = _behind(held) if made and made.stamps == stamps else DRAWN_AGAIN if made else DRAWING
        values = maps.page(held, maps.shown(held, made.all if made else [], asked), asked)
        return {**self._about(name, held.index), **values, "making": making, **({} if made else {"said": making})}

    def drawn(self, name: str, query: Query, form: str) -> bytes:
        """The picture of the map as SVG or PNG."""
        held, asked = self._memory(name), asked_of(query, Placed)
        made = self._charts(name, held, maps.stamps(held))
        if made is None:
            raise NotYet("the map is being made")
        key = ("picture", name, held.state(), made.stamps, asked, form)
        return self._keep(key, held.index, lambda: maps.drawn(maps.shown(held, made.all, asked), asked, form))

    def _charts(self, name: str, held: Memories, stamps: str) -> Charts | None:
        """Where the entries lie, maybe of before something changed; None where that is being made for the first time."""
        try:
            return self.soon.get(("charts", name), stamps, lambda: maps.charts(held, stamps))
        except NotYet:
            return maps.kept(held.index)

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
        if held.behind():
            try:
                self.soon.get(("memory", name), held.now(), held.update)
            except NotYet:
                if not held.state():
                    raise NotYet("the memory is being read") from None
        return held

    def read_again(self, name: str) -> None:
        """Take in at once what the memory of that name now says, however long it takes."""
        with self.soon.waiting():
            self._memory(name)

    def _nearest(self, name: str, held: Memories) -> Nearest:
        with self._lock:
            return self._near.setdefault(name, Nearest(held))

    def _about(self, name: str, index: ReadIndex) -> dict[str, Any]:
        """What every page of a run says of it."""
        return {
            "name": name,
            "alone": index.alone,
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

    def _remembered(self, name: str) -> dict[str, Any]:
        """A memory without a run in the list of runs; one that cannot be read says why."""
        try:
            held = self._memory(name)
            return {**self._about(name, held.index), **memories.counted(held), "making": _behind(held), "error": ""}
        except NotYet:
            return {"name": name, "state": "being read", "error": ""}
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


def _behind(held: Memories) -> str:
    """What a page says while the memory is being read again."""
    return GROWN if held.behind() else ""


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
