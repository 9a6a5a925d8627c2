"""What entries are filtered, counted and sorted by, as arrays: of a hundred thousand it takes milliseconds."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from agentevolve.view.attempts import MOST, place_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FACETS = ("kind", "state", "round", "env", "seed")
WHOLE = ("n", "round", "chars")
NUMBERS = (*WHOLE, "reward", "gain")


class Columns(NamedTuple):
    """Entries in the order of their numbers: their figures, and for each facet its values, sorted, and which of them each has."""

    numbers: Mapping[str, NDArray[Any]]  # (entries,)
    values: Mapping[str, Sequence[Any]]
    codes: Mapping[str, NDArray[np.int64]]  # (entries,)

    @property
    def n(self) -> NDArray[np.int64]:
        """The numbers of the entries, ascending."""
        return self.numbers["n"]

    def under(self, facets: Mapping[str, Any], among: NDArray[np.bool_] | None = None, but: str = "") -> NDArray[np.bool_]:
        """Which entries have these values, of all or of those `among` them, whatever that of the facet `but` is."""
        import numpy as np

        here = np.ones(len(self.n), bool) if among is None else among.copy()
        for name, value in facets.items():
            if name != but:
                values = self.values[name]
                here &= self.codes[name] == values.index(value) if value in values else False
        return here

    def at(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which entries have one of these numbers."""
        import numpy as np

        here = np.zeros(len(self.n), bool)
        here[places_in(self.n, numbers)[1]] = True
        return here

    def counted(self, facets: Mapping[str, Any], among: NDArray[np.bool_] | None) -> dict[str, list[dict[str, Any]]]:
        """For each facet its values with how many entries have them, under the rest of the filter; at most MOST a facet."""
        import numpy as np

        found = {}
        for name in FACETS:
            counts = np.bincount(self.codes[name][self.under(facets, among, name)], minlength=len(self.values[name])).tolist()
            told = [(value, count) for value, count in zip(self.values[name], counts, strict=True) if count][:MOST]
            found[name] = [{"value": one, "count": count, "chosen": one == facets.get(name)} for one, count in told]
        return found

    def page(self, here: NDArray[np.bool_], column: str, down: bool, after: str, most: int) -> list[int]:
        """The numbers of the first `most` entries, of those that are meant, by that column, behind the place `after`."""
        import numpy as np

        sign = -1 if down else 1
        n, by = sign * self.n[here], sign * self.numbers[column][here]
        if after:
            value, last = place_of(after, column, ())
            value, last = sign * float(value), sign * last
            behind = (by > value) | ((by == value) & (n > last)) if column != "n" else n > last
            n, by = n[behind], by[behind]
        return [sign * one for one in n[np.lexsort((n, by))[:most]].tolist()]


def places_in(all: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which of the numbers are there, and where these are in all numbers, which ascend."""
    import numpy as np

    if not len(all):
        return np.zeros(len(wanted), bool), np.zeros(0, np.int64)
    places = np.minimum(np.searchsorted(all, wanted), len(all) - 1)
    there = all[places] == wanted
    return there, places[there]


def packed(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The columns of entries, given in the order of their numbers, as the index keeps them."""
    import numpy as np

    arrays: dict[str, Any] = {
        name: np.array([row[name] for row in rows], np.int64 if name in WHOLE else np.float64) for name in NUMBERS
    }
    values = {}
    for name in FACETS:
        values[name] = sorted({row[name] for row in rows})
        place = {value: at for at, value in enumerate(values[name])}
        arrays[f"{name}_code"] = np.array([place[row[name]] for row in rows], np.int64)
    into = io.BytesIO()
    np.savez(into, values=np.frombuffer(json.dumps(values).encode(), np.uint8), **arrays)
    return into.getvalue()


def unpacked(kept: Sequence[bytes]) -> Columns:
    """The columns of several seeds, in their order, as one."""
    import numpy as np

    parts = [dict(np.load(io.BytesIO(one))) for one in kept]
    told = [json.loads(part["values"].tobytes()) for part in parts]
    values = {name: sorted({value for one in told for value in one[name]}) for name in FACETS}
    codes = {}
    for name in FACETS:
        places = [np.array([values[name].index(value) for value in one[name]], np.int64) for one in told]
        found = [place[part[f"{name}_code"]] for place, part in zip(places, parts, strict=True)]
        codes[name] = np.concatenate([np.zeros(0, np.int64), *found])
    kinds = {name: np.zeros(0, np.int64 if name in WHOLE else np.float64) for name in NUMBERS}
    return Columns({name: np.concatenate([kinds[name], *(part[name] for part in parts)]) for name in NUMBERS}, values, codes)
