"""The list of attempts: what an address asks for, as a filter and in words; page by page, from the last row of the one before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import Field, field_validator

from agentevolve.protocols import AgentevolveError
from agentevolve.records import Record, Trajectory
from agentevolve.view.index import ReadIndex, Row
from agentevolve.view.rows import plain
from agentevolve.view.text import words

PAGE = 50
MOST = 200  # rows of one page; the names a facet lists
OUTCOMES = ("solved", "not solved", "lost")
SORTS = {
    "first": ("n", False),
    "last": ("n", True),
    "reward": ("reward", True),
    "turns": ("turns", True),
    "tokens": ("tokens", True),
    "slowest": ("took", True),
    "task": ("task", False),
}
SORTED = {
    "first": "the first made first",
    "last": "the last made first",
    "reward": "the best rewarded first",
    "turns": "the longest first",
    "tokens": "the most tokens first",
    "slowest": "the slowest first",
    "task": "by task",
}
SHOWN = "n, size, seed, id, task, split, round, arm, outcome, reward, ended, error, turns, tokens, took, recalled, cut, forgotten"


Number = Annotated[int, Field(ge=0, le=1_000_000_000)]


class Asked(Record):
    """Which attempts are asked for, as the address says it; empty: all. `after` is the last row of the page before."""

    seed: Number | None = None
    task: str = ""
    outcome: Literal["", "solved", "not solved", "lost"] = ""
    round: Number | None = None
    arm: str = ""
    split: Literal["", "train", "val", "test"] = ""
    entry: str = ""
    reason: str = ""
    at_least: Number | None = None
    at_most: Number | None = None
    text: str = ""
    sort: Literal["first", "last", "reward", "turns", "tokens", "slowest", "task"] = "first"
    after: str = ""

    @field_validator("seed", "round", "at_least", "at_most", mode="before")
    @classmethod
    def _empty(cls, value: object) -> object:
        return None if value == "" else value  # as a form sends a field that was left empty

    def query(self, **changes: object) -> str:
        """The address's query, without what is not asked for; `changes` replace fields."""
        asked = self.model_dump() | {"after": ""} | changes
        default = type(self)().model_dump()
        return urlencode({name: value for name, value in asked.items() if value is not None and value != default[name]})


def listed(index: ReadIndex, asked: Asked) -> dict[str, Any]:
    """A page of the attempts: `rows`, how many there are in all, the filter in words, and the query of the next page."""
    if asked.text:
        index.update_words()
    where, values = _where(asked)
    [[count]] = index.ask(f"SELECT count(*) FROM attempts WHERE {where}", values)
    column, down = SORTS[asked.sort]
    behind, more = beyond(asked.after, column, down, ("task",))
    way = "DESC" if down else "ASC"
    query = f"SELECT {SHOWN} FROM attempts WHERE {where}{behind} ORDER BY {column} {way}, n {way} LIMIT ?"
    found = index.ask(query, (*values, *more, PAGE + 1))
    return {
        "rows": [dict(row) for row in found[:PAGE]],
        "count": count,
        "said": f"{count:,} {in_words(asked, count)}",
        "next": asked.query(after=cursor(found[PAGE - 1], column)) if len(found) > PAGE else "",
    }


def in_words(asked: Asked, count: int) -> str:
    """The filter as the rest of one sentence, about so many attempts."""
    parts = [part for part in _parts(asked, "was" if count == 1 else "were") if part]
    return " ".join(["attempt" if count == 1 else "attempts", *parts]) + f"; {SORTED[asked.sort]}."


def _parts(asked: Asked, were: str) -> Iterator[str]:
    outcomes = {"solved": f"that {were} solved", "not solved": f"that {were} not solved", "lost": f"that {were} lost"}
    yield f"at the task {asked.task}" if asked.task else ""
    yield f"of the {asked.split} split" if asked.split else ""
    yield outcomes.get(asked.outcome, "")
    yield f"because of “{asked.reason}”" if asked.reason else ""
    yield f"in round {asked.round}" if asked.round is not None else ""
    yield f"by the arm {asked.arm}" if asked.arm else ""
    yield f"of seed {asked.seed}" if asked.seed is not None else ""
    yield f"that {were} shown the entry {asked.entry}" if asked.entry else ""
    yield f"of at least {asked.at_least} turns" if asked.at_least is not None else ""
    yield f"of at most {asked.at_most} turns" if asked.at_most is not None else ""
    yield f"with the words “{asked.text}”" if asked.text else ""


def facets(index: ReadIndex, asked: Asked) -> dict[str, list[dict[str, Any]]]:
    """For each facet its values with how many attempts have them, under the rest of the filter; at most MOST a facet."""
    names = ("outcome", "round", "arm", "split", "seed", "task")
    return {name: _facet(index, name, asked) for name in names}


def _facet(index: ReadIndex, name: str, asked: Asked) -> list[dict[str, Any]]:
    where, values = _where(asked.model_copy(update={name: type(asked)().model_dump()[name]}))
    query = f"SELECT {name} AS value, count(*) AS count FROM attempts WHERE {where} AND {name} IS NOT NULL"
    found = index.ask(f"{query} GROUP BY {name} ORDER BY {name} LIMIT {MOST}", values)
    chosen = getattr(asked, name)
    return [{**dict(one), "chosen": one["value"] == chosen} for one in found]


def row_of(index: ReadIndex, id: str, seed: int | None) -> Row:
    """The row of the attempt of that id, in that seed or the first that has one. Raises AgentevolveError where there is none."""
    query = "SELECT * FROM attempts WHERE id = ? AND standing = 1 AND (? IS NULL OR seed = ?) ORDER BY n"
    found = index.ask(query, (plain(id), seed, seed))
    if not found:
        raise AgentevolveError(f"there is no attempt {id[:200]!r} in this run")
    return found[0]


def body_of(index: ReadIndex, row: Row) -> Trajectory:
    """The attempt of a row, whole."""
    return index.body(row["n"], row["size"], row["seed"])


def beside(index: ReadIndex, row: Row) -> dict[str, Any]:
    """The attempts before and after this one at the same task in the same seed, and all others at it, in short."""
    values = (row["task"], row["seed"])
    query = f"SELECT {SHOWN} FROM attempts WHERE standing = 1 AND task = ? AND seed = ? ORDER BY n LIMIT {MOST}"
    found = [dict(one) for one in index.ask(query, values)]
    place = next((at for at, one in enumerate(found) if one["n"] == row["n"]), 0)
    return {
        "before": found[place - 1] if place else None,
        "after": found[place + 1] if place + 1 < len(found) else None,
        "others": found,
    }


def asked_of(query: Mapping[str, str], kind: type[Any]) -> Any:
    """What a query asks for, as a record of that kind. Raises AgentevolveError for what cannot be asked for."""
    from pydantic import ValidationError

    try:
        return kind.model_validate({name: value for name, value in query.items() if name in kind.model_fields})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise AgentevolveError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _where(asked: Asked) -> tuple[str, list[Any]]:
    parts, values = ["standing = 1"], []
    tests = {
        "seed": "seed = ?",
        "task": "task = ?",
        "outcome": "outcome = ?",
        "round": "round = ?",
        "arm": "arm = ?",
        "split": "split = ?",
        "entry": "n IN (SELECT n FROM uses WHERE entry = ?)",
        "reason": "error = ?",
        "at_least": "turns >= ?",
        "at_most": "turns <= ?",
    }
    for name, test in tests.items():
        value = getattr(asked, name)
        if value not in (None, ""):
            parts.append(test)
            values.append(value)
    if asked.text:
        parts.append("n IN (SELECT rowid FROM words WHERE words MATCH ?)")
        values.append(words(asked.text))
    return " AND ".join(parts), values


def beyond(after: str, column: str, down: bool, texts: Sequence[str]) -> tuple[str, Sequence[Any]]:
    """What lies behind the last row of the page before, named by `after`; the columns in `texts` hold texts, others numbers.

    Raises AgentevolveError where that is no place in the list.
    """
    if not after:
        return "", ()
    place, sign = place_of(after, column, texts), "<" if down else ">"
    if column == "n":
        return f" AND n {sign} ?", place[1:]
    return f" AND ({column}, n) {sign} (?, ?)", place


def place_of(after: str, column: str, texts: Sequence[str]) -> tuple[Any, int]:
    """The value of the column, and the number, that a place in a list names; errors as `beyond` has them."""
    value, _, n = after.rpartition("~")
    try:
        if not n.isdecimal() or len(n) > 18:
            raise ValueError
        return value if column in texts else float(value), int(n)
    except ValueError:
        raise AgentevolveError(f"after: {after[:100]!r} is no place in this list") from None


def cursor(row: Row, column: str) -> str:
    """The place of a row in a list that is sorted by `column`."""
    return f"{row[column]}~{row['n']}"
