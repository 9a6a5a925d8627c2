"""The map of a memory: the vectors by which its entries are found, in the two directions in which they differ most (PCA).

The places are those of all entries that one embedding model has embedded, whatever is asked for: a filter moves none of them.
What is not embedded yet, or set aside, has no place. Nothing is embedded, locked or written for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import field_validator

from agentevolve.memory.folder import INDEX, about
from agentevolve.memory.ledger import Shelf
from agentevolve.view import rows, scatter
from agentevolve.view.attempts import Number
from agentevolve.view.index import ReadIndex, Row
from agentevolve.view.memories import SHOWN, Memories, Wanted, condition, described, facets, uses_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agentevolve.memory.embed import Vectors

NEAREST = 20  # entries that are listed for a place
DRAWN = 3_000  # entries up to which the picture is SVG; of more that would be long
COLUMNS = "n, kind, round, gain"


class Placed(Wanted):
    """Which entries are asked for, what their colour says, and the place of the picture that was pressed, in its pixels."""

    colour: Literal["kind", "credit", "round"] = "kind"
    x: Number | None = None
    y: Number | None = None

    @field_validator("x", "y", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return None if value == "" else value


class Chart(NamedTuple):
    """Where the entries of one embedding model lie: their numbers, ascending, their places, and what of it all these show."""

    n: NDArray[np.int64]
    spots: NDArray[np.float64]  # (len(n), 2)
    shares: tuple[float, float]


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


def stamps(held: Memories) -> tuple[tuple[Any, ...], ...]:
    """What changes when the map does: the memories, and the files of their vectors."""
    folders = [folder / "memory" / INDEX for _, folder in sorted(held.index.folders.items())]
    files = [(str(path), path.stat()) for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.vectors"))]
    return (*held.state(), *((path, stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in files))


def charts(held: Memories) -> list[Chart]:
    """A chart for each embedding model and size of its vectors, all seeds together."""
    found: dict[tuple[str, int], list[tuple[list[int], Vectors]]] = {}
    for seed in (row[0] for row in held.state()):
        for model, numbers, vectors in _vectors(held, seed):
            found.setdefault((model, vectors.shape[1]), []).append((numbers, vectors))
    return [_chart(parts) for _, parts in sorted(found.items(), key=lambda one: one[0])]


def _vectors(held: Memories, seed: int) -> Iterator[tuple[str, list[int], Vectors]]:
    """The embedding model, the entries' numbers and the vectors of each shelf of a seed."""
    from agentevolve.memory.index import lying

    ledger, folder = held.ledger(seed), held.index.folders[seed] / "memory"
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
    return Chart(n[order], spots[order], shares)


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


def shown(index: ReadIndex, made: Sequence[Chart], asked: Wanted) -> Shown:
    """What is asked for, on the chart that has the most of it."""
    import numpy as np

    where, values = condition(asked)
    found = index.ask(f"SELECT {COLUMNS} FROM entries WHERE {where} ORDER BY n", values)
    n = np.array([row["n"] for row in found], np.int64)
    placed = [np.isin(n, one.n) for one in made]
    empty = Chart(np.zeros(0, np.int64), np.zeros((0, 2)), (0.0, 0.0))
    best = max(range(len(made)), key=lambda one: int(placed[one].sum()), default=None)
    chart, here = (empty, np.zeros(len(n), bool)) if best is None else (made[best], placed[best])
    kept = [found[place] for place in np.flatnonzero(here).tolist()]
    kinds, kind = _kinds([row["kind"] for row in kept])
    some = sum(int(one.sum()) for one in placed)
    return Shown(
        n[here],
        chart.spots[np.searchsorted(chart.n, n[here])],
        kinds,
        kind,
        np.array([row["round"] for row in kept], np.int64),
        np.array([row["gain"] for row in kept], np.float64),
        chart,
        some - len(kept),
        len(n) - some,
    )


def _kinds(said: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The kinds, the most frequent first, and which of them each is."""
    from collections import Counter

    import numpy as np

    kinds = tuple(kind for kind, _ in sorted(Counter(said).items(), key=lambda one: (-one[1], one[0])))
    place = {kind: at for at, kind in enumerate(kinds)}
    return kinds, np.array([place[one] for one in said], np.int64)


def page(index: ReadIndex, found: Shown, asked: Placed, groups: Sequence[Row]) -> dict[str, Any]:
    """The map as values: how many of each kind are on it, the filter in words, and the entries nearest to the place pressed."""
    left = [(found.apart, "embedded by another model"), (found.none, "not embedded")]
    beside = ", ".join(f"{count:,} {why}" for count, why in left if count)
    places = _places(found)
    at = f" at {places:,} places" if places < len(found.n) else ""
    return {
        "asked": asked.model_dump(),
        "count": len(found.n),
        "places": places,
        "said": f"{len(found.n):,} {described(asked, len(found.n))} on the map{at}{f'; not on it: {beside}' if beside else ''}.",
        "apart": found.apart,
        "none": found.none,
        "shares": list(found.chart.shares),
        "form": "svg" if len(found.n) <= DRAWN else "png",
        "size": list(scatter.SIZE),
        "table": [_counted(found, place) for place in range(len(found.kinds))],
        "facets": facets(groups, asked),
        "near": _near(index, found, asked),
    }


def _places(found: Shown) -> int:
    """At how many pixels something lies: entries with the same key lie at one."""
    import numpy as np

    x, y = scatter.pixels(found.spots, found.chart.spots).round().astype(np.int64).T
    return len(np.unique(x * 10_000 + y))


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


def _near(index: ReadIndex, found: Shown, asked: Placed) -> list[Mapping[str, Any]]:
    """The entries shown nearest to the place of the picture, the nearest first; of equals the oldest."""
    import numpy as np

    if asked.x is None or asked.y is None or not len(found.n):
        return []
    away = scatter.pixels(found.spots, found.chart.spots) - (asked.x, asked.y)
    numbers = found.n[np.argsort(np.square(away).sum(1), kind="stable")[:NEAREST]].tolist()
    marks = ", ".join("?" * len(numbers))
    known = {row["n"]: dict(row) for row in index.ask(f"SELECT {SHOWN} FROM entries WHERE n IN ({marks})", numbers)}
    return [known[n] | {"uses": uses_of(index, known[n]["id"], known[n]["seed"])} for n in numbers if n in known]


def drawn(found: Shown, asked: Placed, form: str) -> bytes:
    """The picture of the map as SVG or PNG."""
    by: dict[str, NDArray[Any]] = {"kind": found.kind, "credit": found.credit, "round": found.round}
    pressed = None if asked.x is None or asked.y is None else (asked.x, asked.y)
    dots = scatter.Dots(found.spots, found.chart.spots, by[asked.colour], asked.colour, found.kinds)
    return scatter.drawn(dots, found.chart.shares, pressed, form)
