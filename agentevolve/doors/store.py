"""LangGraph's `BaseStore` over a memory: an agent that is not ours remembers in it, and what it keeps is signed and traceable.

    with open_memory(Path("memory")) as memory:
        graph = builder.compile(store=MemoryStore(memory))

An item is an entry of the kind "item"; its namespace is the entry's env, its key the task. A change retires the entry and adds
another, so that what was there before stays in the journal (`agentevolve memory forget` takes it out). Items do not expire.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    get_text_at_path,
    tokenize_path,
)

from agentevolve.memory import EntryMemory
from agentevolve.records import Entry, Kind

KIND: Kind = "item"
Namespace = tuple[str, ...]
COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": lambda mine, asked: mine == asked,
    "$ne": lambda mine, asked: mine != asked,
    "$gt": lambda mine, asked: float(mine) > float(asked),
    "$gte": lambda mine, asked: float(mine) >= float(asked),
    "$lt": lambda mine, asked: float(mine) < float(asked),
    "$lte": lambda mine, asked: float(mine) <= float(asked),
}


class MemoryStore(BaseStore):
    """A store in `memory`, which must be open for writing and stays its owner's to close.

    `fields` are the JSON paths of a value that are searched by meaning, each by itself ("$": the whole). Safe to use from several
    threads. Of one batch, what is read comes before what is written.
    """

    __slots__ = ("_entries", "_fields", "_last", "_lock", "_memory")

    def __init__(self, memory: EntryMemory, *, fields: Sequence[str] = ("$",)) -> None:
        self._memory, self._fields, self._lock = memory, tuple(fields), threading.RLock()
        self._entries: dict[Namespace, dict[str, Entry]] = {}
        self._last = datetime.min.replace(tzinfo=UTC)
        for entry in memory.entries(kind=KIND):
            self._entries.setdefault(_namespace(entry), {})[entry.task] = entry

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do the operations; their results, in their order."""
        with self._lock:
            results: list[Result] = []
            puts: dict[tuple[Namespace, str], PutOp] = {}
            for op in ops:
                match op:
                    case GetOp():
                        results.append(self._get(op))
                    case SearchOp():
                        results.append(self._search(op))
                    case ListNamespacesOp():
                        results.append(self._namespaces(op))
                    case PutOp():
                        puts[op.namespace, op.key] = op  # of several the last one counts
                        results.append(None)
                    case _:
                        raise ValueError(f"unknown operation: {type(op)}")
            for put in puts.values():
                self._put(put)
            return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """As `batch`, in a thread of its own."""
        return await asyncio.to_thread(self.batch, list(ops))

    def _get(self, op: GetOp) -> Item | None:
        entry = self._entries.get(op.namespace, {}).get(op.key)
        return Item(**_fields(entry)) if entry else None

    def _put(self, op: PutOp) -> None:
        held = self._entries.setdefault(op.namespace, {})
        before = held.pop(op.key, None)
        if before:
            self._memory.retire(before.id, before.round, "deleted" if op.value is None else "changed")
        if op.value is None:
            if not held:
                del self._entries[op.namespace]
            return
        self._last = max(datetime.now(UTC), self._last + timedelta(microseconds=1))  # no two changes at one time
        now = self._last.isoformat()
        made = {"value": dict(op.value), "created_at": now, "updated_at": now}
        if before:
            made["created_at"] = json.loads(before.text)["created_at"]
        entries = [
            Entry(
                id=f"{KIND}/{_env(op.namespace)}/{op.key}/{now}/{n}",
                kind=KIND,
                key=text,
                text=_json(made),
                env=_env(op.namespace),
                task=op.key,
                sources=(f"store/{now}",),
            )
            for n, text in enumerate(self._texts(op) or [""])
        ]
        self._memory.add(entries)  # they say the same under several keys, and so are one entry
        kept = self._memory.get(entries[0].id)
        assert kept
        self._entries.setdefault(op.namespace, {})[op.key] = kept

    def _texts(self, op: PutOp) -> list[str]:
        """What the item is found by: nothing, if it is not to be indexed."""
        if op.index is False:
            return []
        paths = self._fields if op.index is None else op.index
        assert op.value is not None
        texts = [
            text for path in paths for text in get_text_at_path(dict(op.value), path if path == "$" else tokenize_path(path))
        ]
        return list(dict.fromkeys(text for text in texts if text.strip()))

    def _search(self, op: SearchOp) -> list[SearchItem]:
        found = [
            entry
            for namespace, held in self._entries.items()
            if namespace[: len(op.namespace_prefix)] == op.namespace_prefix
            for entry in held.values()
            if _matches(entry, op.filter)
        ]
        if not op.query:
            return [SearchItem(**_fields(entry)) for entry in found[op.offset : op.offset + op.limit]]
        wanted = {entry.id for entry in found}
        near = [
            hit
            for env in dict.fromkeys(entry.env for entry in found)
            for hit in self._memory.recall(
                op.query, env=env, k=op.offset + op.limit, kind=KIND, skip=lambda one: one.id not in wanted or not one.key
            )
        ]
        near = sorted(near, key=lambda hit: (-hit[1], hit[0].id))[op.offset : op.offset + op.limit]
        rest = [entry for entry in found if not entry.key][: max(0, op.limit - len(near))]
        return [SearchItem(**_fields(entry), score=score) for entry, score in near] + [
            SearchItem(**_fields(entry)) for entry in rest
        ]

    def _namespaces(self, op: ListNamespacesOp) -> list[Namespace]:
        found = [one for one in self._entries if all(_fits(one, condition) for condition in op.match_conditions or ())]
        cut = {one[: op.max_depth] for one in found} if op.max_depth is not None else set(found)
        return sorted(cut)[op.offset : op.offset + op.limit]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _env(namespace: Namespace) -> str:
    return f"store {_json(list(namespace))}"


def _namespace(entry: Entry) -> Namespace:
    return tuple(json.loads(entry.env.removeprefix("store ")))


def _fields(entry: Entry) -> dict[str, Any]:
    told = json.loads(entry.text)
    times = {name: datetime.fromisoformat(told[name]) for name in ("created_at", "updated_at")}
    return {"namespace": _namespace(entry), "key": entry.task, "value": told["value"], **times}


def _matches(entry: Entry, asked: Mapping[str, Any] | None) -> bool:
    """Whether the item's value is as the filter asks, by equality or by operators such as {"$gt": 3}."""
    value = json.loads(entry.text)["value"]
    return all(_agrees(value.get(name), wanted) for name, wanted in (asked or {}).items())


def _agrees(mine: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict) and any(str(name).startswith("$") for name in wanted):
        if unknown := [name for name in wanted if name not in COMPARED]:
            raise ValueError(f"unknown operator {unknown[0]!r}; known: {', '.join(COMPARED)}")
        return all(_compared(name, mine, asked) for name, asked in wanted.items())
    if isinstance(wanted, Mapping):
        return isinstance(mine, dict) and all(_agrees(mine.get(name), asked) for name, asked in wanted.items())
    return bool(mine == wanted)


def _compared(name: str, mine: Any, asked: Any) -> bool:
    try:
        return bool(COMPARED[name](mine, asked))
    except (TypeError, ValueError):  # what is no number is neither greater nor less
        return False


def _fits(namespace: Namespace, condition: MatchCondition) -> bool:
    path = condition.path
    if len(namespace) < len(path):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(asked in ("*", label) for label, asked in zip(part, path, strict=True))
