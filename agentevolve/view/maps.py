"""The map of a memory: the vectors by which its entries are found, in the two directions in which they differ most (PCA).

The places are those of all entries that one embedding model has embedded, whatever is asked for: neither a filter nor a window
moves them. They are kept in the read index. What is not embedded yet, or set aside, has no place. Nothing is embedded, locked or
written of the memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import field_validator

from agentevolve.memory.folder import INDEX, about
from agentevolve.memory.ledger import Shelf
from agentevolve.view import rows, scatter
from agentevolve.view.attempts import Number
from agentevolve.view.columns import Columns, places_in
from agentevolve.view.index import ReadIndex
from agentevolve.view.memories import Memories, Wanted, described, rows_of, uses_of
from agentevolve.view.scatter import WHOLE, Window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agentevolve.memory.embed import Vectors

NEAREST = 20  # entries that are listed for a place
DRAWN = 3_000  # entries up to which the picture is SVG; of more that would be long
CLOSEST = 256  # how often a side of the whole is halved at most, as a power of two


class Placed(Wanted):
    """Which entries are asked for, what their colour says, the window (scatter.py), the place of the picture that was pressed, in
    its pixels, and what a press is for.
    """

    colour: Literal["kind", "credit", "round"] = "kind"
    zoom: Number = 1
    across: Number = WHOLE // 2
    up: Number = WHOLE // 2
    press: Literal["list", "closer"] = "list"
    x: Number | None = None
    y: Number | None = None

    @field_validator("x", "y", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("zoom")
    @classmethod
    def _power(cls, value: int) -> int:
        if value not in (known := [1 << power for power in range(CLOSEST.bit_length())]):
            raise ValueError(f"known: {', '.join(map(str, known))}")
        return value

    @property
    def window(self) -> Window:
        """The part of the map that is shown."""
        return Window(self.zoom, self.across, self.up).within()

    @property
    def pressed(self) -> tuple[int, int] | None:
        """The place that was pressed."""
        return None if self.x is None or self.y is None else (self.x, self.y)

    @property
    def entries(self) -> Wanted:
        """The entries that are asked for, wherever they lie."""
        return Wanted.model_construct(**{name: getattr(self, name) for name in Wanted.model_fields})

    def shifted(self, window: Window) -> str:
        """The address's query of another window."""
        return self.query(x=None, y=None, **window.within()._asdict())

    def ways(self) -> dict[str, str]:
        """The queries of the windows that can be gone to from this one: closer (where it was pressed), further, and aside."""
        window, step = self.window, max(1, WHOLE // (2 * self.zoom))
        middle = window.at(*self.pressed) if self.pressed else window
        found = {"closer": middle._replace(zoom=self.zoom * 2)} if self.zoom < CLOSEST else {}
        if self.zoom > 1:
            found |= {"further": window._replace(zoom=self.zoom // 2), "whole": Window()}
            left, low = window.across - step, window.up - step
            found |= {"left": window._replace(across=left), "right": window._replace(across=window.across + step)}
            found |= {"down": window._replace(up=low), "up": window._replace(up=window.up + step)}
        return {name: self.shifted(one) for name, one in found.items() if one.within() != window}


class Chart(NamedTuple):
    """Where the entries of one embedding model lie: their numbers, ascending, their places, and what of it all these show."""

    n: NDArray[np.int64]
    spots: NDArray[np.float64]  # (len(n), 2)
    shares: tuple[float, float]
    ends: NDArray[np.float64]  # (2, 2): the lower and the upper ends of the whole


class Charts(NamedTuple):
    """A chart for each embedding model and size of its vectors, all seeds together, and what they were made of."""

    stamps: str
    all: list[Chart]


class Shown(NamedTuple):
    """The entries that are asked for and have a place, as columns; how many are `apart`, of another model, and have `none`."""

    n: NDArray[np.int64]
    spots: NDArray[np.float64]
    kinds: tuple[str, ...]  # the most frequent first
    kind: NDArray[np.int64]  # which of them
    round: NDArray[np.int64]
    credit: NDArray[np.float64]
    chart: Chart
    apart: int
    none: int

    def inside(self, window: Window) -> Shown:
        """Those that lie in the window."""
        if window.zoom == 1:
            return self
        here = scatter.inside(self.spots, self.chart.ends, window)
        parts = {name: getattr(self, name)[here] for name in ("n", "spots", "kind", "round", "credit")}
        return self._replace(**parts)


def stamps(held: Memories) -> str:
    """What changes when the map does: the memories, and the files of their vectors."""
    folders = [held.index.memory(seed) / INDEX for seed in sorted(held.index.folders)]
    files = [(str(path), path.stat()) for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.vectors"))]
    return json.dumps([held.state(), [(path, stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in files]])


def charts(held: Memories, stamps: str) -> Charts:
    """The charts of these stamps: as the index has them, else made and kept there."""
    found = kept(held.index)
    if found and found.stamps == stamps:
        return found
    by: dict[tuple[str, int], list[tuple[list[int], Vectors]]] = {}
    for seed in (row[0] for row in held.state()):
        for model, numbers, vectors in _vectors(held, seed):
            by.setdefault((model, vectors.shape[1]), []).append((numbers, vectors))
    made = Charts(stamps, [_chart(parts) for _, parts in sorted(by.items(), key=lambda one: one[0])])
    lines = [(stamps, *one.shares, one.n.tobytes(), one.spots.astype("<f8").tobytes()) for one in made.all]
    with held.index.writing():
        held.index.write("DELETE FROM charts", [()])
        held.index.write("INSERT INTO charts (stamps, first, second, n, spots) VALUES (?, ?, ?, ?, ?)", lines)
    return made


def kept(index: ReadIndex) -> Charts | None:
    """The charts that the index has, maybe of before something changed; None where it has none."""
    import numpy as np

    found = index.ask("SELECT * FROM charts ORDER BY number")
    made = []
    for row in found:
        spots = np.frombuffer(row["spots"], "<f8").reshape(-1, 2)
        made.append(Chart(np.frombuffer(row["n"], np.int64), spots, (row["first"], row["second"]), scatter.ends(spots)))
    return Charts(found[0]["stamps"], made) if found else None


def _vectors(held: Memories, seed: int) -> Iterator[tuple[str, list[int], Vectors]]:
    """The embedding model, the entries' numbers and the vectors of each shelf of a seed."""
    from agentevolve.memory.index import lying

    ledger, folder = held.ledger(seed), held.index.memory(seed)
    model = about(folder)["embedding_identity"]
    keys: dict[Shelf, list[tuple[int, str]]] = {}
    for place, entry in enumerate(ledger.all()):
        shelf: Shelf = entry.env, entry.kind
        keys.setdefault(shelf, []).append((rows.place(seed, place), ledger.indexed(shelf, entry)))
    for one, ids in keys.items():
        there = lying(folder / INDEX, model, one)
        if known := [(n, id) for n, id in ids if id in there]:
            yield model, [n for n, _ in known], there.of([id for _, id in known])


def _chart(parts: Sequence[tuple[list[int], Vectors]]) -> Chart:
    import numpy as np

    n = np.concatenate([np.asarray(numbers, np.int64) for numbers, _ in parts])
    order = np.argsort(n)
    spots, shares = flat(np.concatenate([vectors for _, vectors in parts]))
    return Chart(n[order], spots[order], shares, scatter.ends(spots))


def flat(vectors: Vectors) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """The first two principal components of the vectors (n, dim), and the share of the variance of each.

    The same vectors give the same picture: of the two ways round, that in which the largest part of a direction is positive.
    """
    import numpy as np

    around = np.nan_to_num(vectors - vectors.mean(0))
    few = len(around) < around.shape[1]
    found = np.linalg.svd(around if few else around.T @ around, full_matrices=False, hermitian=not few)[2]
    ways = np.zeros((2, around.shape[1]))
    ways[: len(found)] = found[:2]
    largest = np.abs(ways).argmax(1)
    ways[ways[[0, 1], largest] < 0] *= -1
    spots = around @ ways.T
    total = float(np.square(around, dtype=np.float64).sum())
    first, second = np.square(spots).sum(0) / total if total else (0.0, 0.0)
    return spots, (float(first), float(second))


def shown(held: Memories, made: Sequence[Chart], asked: Wanted) -> Shown:
    """What is asked for, on the chart that has the most of it."""
    import numpy as np

    columns = held.columns()
    here = columns.under(asked.facets, held.among(columns, asked))
    n, none = columns.n[here], np.zeros((0, 2))
    charts = [*made, Chart(np.zeros(0, np.int64), none, (0.0, 0.0), scatter.ends(none))]
    placed = [places_in(one.n, n) for one in charts]
    best = max(range(len(charts)), key=lambda one: len(placed[one][1]))
    chart, (on, places) = charts[best], placed[best]
    kinds, kind = _kinds(columns, here, on)
    some = sum(len(found) for _, found in placed)
    return Shown(
        n[on],
        chart.spots[places],
        kinds,
        kind,
        columns.numbers["round"][here][on],
        columns.numbers["gain"][here][on],
        chart,
        some - int(on.sum()),
        len(n) - some,
    )


def _kinds(columns: Columns, here: NDArray[np.bool_], on: NDArray[np.bool_]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The kinds, the most frequent first, and which of them each is."""
    import numpy as np

    codes, values = columns.codes["kind"][here][on], columns.values["kind"]
    counts = np.bincount(codes, minlength=len(values))
    order = [place for place in sorted(range(len(values)), key=lambda one: (-counts[one], values[one])) if counts[place]]
    places = np.zeros(len(values), np.int64)
    places[order] = range(len(order))
    return tuple(values[place] for place in order), places[codes]


def page(held: Memories, found: Shown, asked: Placed) -> dict[str, Any]:
    """The map as values: how many of each kind are on it, the filter in words, and the entries nearest to the place pressed."""
    seen, columns = found.inside(asked.window), held.columns()
    places = _places(seen, asked.window)
    return {
        "asked": asked.model_dump() | asked.window._asdict(),
        "count": len(seen.n),
        "places": places,
        "said": _said(found, seen, asked, places),
        "apart": found.apart,
        "none": found.none,
        "shares": list(found.chart.shares),
        "form": "svg" if len(seen.n) <= DRAWN else "png",
        "size": list(scatter.SIZE),
        "ways": asked.ways(),
        "table": [_counted(seen, place) for place in range(len(seen.kinds)) if (seen.kind == place).any()],
        "facets": columns.counted(asked.facets, held.among(columns, asked)),
        "near": _near(held.index, seen, asked),
    }


def _said(found: Shown, seen: Shown, asked: Placed, places: int) -> str:
    """What is on the map, or in the window, as a sentence."""
    at = f" at {places:,} places" if places < len(seen.n) else ""
    if asked.zoom > 1:
        return f"{len(seen.n):,} of {len(found.n):,} {described(asked)} in this part of the map{at}."
    left = [(found.apart, "embedded by another model"), (found.none, "not embedded")]
    beside = ", ".join(f"{count:,} {why}" for count, why in left if count)
    return f"{len(found.n):,} {described(asked, len(found.n))} on the map{at}{f'; not on it: {beside}' if beside else ''}."


def _places(found: Shown, window: Window) -> int:
    """At how many pixels something lies: entries with the same key lie at one."""
    import numpy as np

    x, y = scatter.pixels(found.spots, found.chart.ends, window).round().astype(np.int64).T
    wide, high = scatter.SIZE
    return int(np.bincount(x * (high + 1) + y, minlength=(wide + 1) * (high + 1)).astype(bool).sum()) if len(x) else 0


def _counted(found: Shown, place: int) -> dict[str, Any]:
    """A row of the table that says what the picture does: a kind, how many there are, of which rounds, of what credit."""
    here = found.kind == place
    rounds, credit = found.round[here], found.credit[here]
    return {
        "kind": found.kinds[place],
        "count": int(here.sum()),
        "first": int(rounds.min()),
        "last": int(rounds.max()),
        "helped": int((credit > 0).sum()),
        "harmed": int((credit < 0).sum()),
    }


def _near(index: ReadIndex, seen: Shown, asked: Placed) -> list[Mapping[str, Any]]:
    """The entries shown nearest to the place of the picture, the nearest first; of equals the oldest."""
    import numpy as np

    if asked.pressed is None or not len(seen.n):
        return []
    away = scatter.pixels(seen.spots, seen.chart.ends, asked.window) - asked.pressed
    numbers = seen.n[np.argsort(np.square(away).sum(1), kind="stable")[:NEAREST]].tolist()
    return [dict(row) | {"uses": uses_of(index, row["id"], row["seed"])} for row in rows_of(index, numbers)]


def drawn(found: Shown, asked: Placed, form: str) -> bytes:
    """The picture of the map as SVG or PNG; of a window in the colours that all of it has."""
    seen = found.inside(asked.window)
    values, all = getattr(seen, asked.colour), getattr(found, asked.colour)
    reach = (float(all.min()), float(all.max())) if len(all) else (0.0, 0.0)
    dots = scatter.Dots(seen.spots, found.chart.ends, asked.window, values, reach, asked.colour, found.kinds)
    return scatter.drawn(dots, found.chart.shares, asked.pressed, form)
