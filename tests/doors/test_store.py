"""LangGraph's store over a memory: it does what LangGraph's own does, lasts, and is signed like everything that is remembered."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import GetOp, InvalidNamespaceError, ListNamespacesOp, MatchCondition, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore

from agentevolve.doors.store import MemoryStore
from agentevolve.memory import HashEmbedder, open_memory, read_ledger


def embed(texts: list[str]) -> list[list[float]]:
    return HashEmbedder().embed(texts).tolist()


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "m"


@pytest.fixture
def store(folder):
    with open_memory(folder, embedder=HashEmbedder()) as memory:
        yield MemoryStore(memory, fields=["text"])


def plain(result: Any) -> Any:
    """A result without its times; scores to three decimals."""
    if isinstance(result, list):
        return [plain(one) for one in result]
    if result is None or isinstance(result, tuple):
        return result
    score = getattr(result, "score", None)
    return result.namespace, result.key, result.value, None if score is None else round(score, 3)


# LangGraph's published cases, as operations: https://github.com/langchain-ai/langgraph, libs/checkpoint/tests/test_store.py
WRITTEN = [
    PutOp(("a", "b", "c"), "id1", {"text": "a red lamp", "n": 1}),
    PutOp(("a", "b", "d"), "id1", {"text": "a blue door", "n": 2.5, "tags": ["x", "y"], "deep": {"in": "side"}}),
    PutOp(("a", "b", "e"), "id2", {"text": "a kitchen", "n": 3}),
    PutOp(("a", "x"), "id3", {"text": "nothing here", "n": None}),
    PutOp(("f", "b", "c"), "id4", {"text": "the red door", "flag": True}),
    PutOp(("docs",), "plain", {"n": 7}),
    PutOp(("docs",), "hidden", {"text": "a red lamp again"}, index=False),
    PutOp(("docs",), "twice", {"text": "a lamp", "more": ["red", "blue"]}, index=["text", "more[*]"]),
]
READ = [
    GetOp(("a", "b", "c"), "id1"),
    GetOp(("a", "b"), "id1"),
    GetOp(("a", "b", "c"), "nobody"),
    SearchOp(("a",)),
    SearchOp(()),
    SearchOp(("a", "b"), limit=1, offset=1),
    SearchOp(("nobody",)),
    SearchOp((), filter={"n": 1}),
    SearchOp((), filter={"n": {"$ne": 1}}),
    SearchOp((), filter={"flag": True}),
    SearchOp((), filter={"deep": {"in": "side"}}),
    SearchOp((), filter={"tags": ["x", "y"]}),
    SearchOp(("a", "b"), filter={"n": {"$gt": 1, "$lte": 3}}),
    SearchOp(("a", "b"), filter={"n": {"$gte": 2}}),
    SearchOp(("a",), query="red lamp", limit=2),
    SearchOp(("a",), query="red lamp", limit=2, offset=1),
    SearchOp((), query="door", filter={"n": {"$eq": 2.5}}),
    SearchOp(("docs",), query="red"),
    ListNamespacesOp(),
    ListNamespacesOp((MatchCondition("prefix", ("a", "b")),)),
    ListNamespacesOp((MatchCondition("suffix", ("c",)),)),
    ListNamespacesOp((MatchCondition("prefix", ("a", "*", "d")),)),
    ListNamespacesOp((MatchCondition("prefix", ("a",)), MatchCondition("suffix", ("e",)))),
    ListNamespacesOp(max_depth=1),
    ListNamespacesOp(max_depth=2, limit=2, offset=1),
]


def theirs() -> InMemoryStore:
    return InMemoryStore(index={"dims": HashEmbedder.dim, "embed": embed, "fields": ["text"]})


@pytest.mark.parametrize("op", READ, ids=str)
def test_it_answers_as_langgraph_s_own_store_does(store, op):
    other = theirs()
    assert store.batch(WRITTEN) == other.batch(WRITTEN) == [None] * len(WRITTEN)
    mine, asked = plain(store.batch([op])[0]), plain(other.batch([op])[0])
    if isinstance(op, SearchOp) and op.query:  # of equally near ones either may come first
        assert sorted(map(repr, mine)) == sorted(map(repr, asked)) and [one[3] for one in mine] == [one[3] for one in asked]
    else:
        assert mine == asked


def test_any_sequence_of_operations_comes_to_the_same(store):
    luck, other = random.Random(3), theirs()
    for _ in range(60):
        ops = []
        for _ in range(luck.randrange(1, 5)):
            namespace, key = luck.choice([("a",), ("a", "b"), ("c",)]), luck.choice("xyz")
            value = luck.choice([None, {"text": f"lamp {luck.random()}", "n": luck.randrange(3)}])
            ops.append(
                luck.choice([PutOp(namespace, key, value), GetOp(namespace, key), SearchOp(("a",), {"n": 1}), ListNamespacesOp()])
            )
        mine, asked = plain(store.batch(ops)), plain(other.batch(ops))
        for op, one, two in zip(ops, mine, asked, strict=True):
            if isinstance(op, ListNamespacesOp):  # theirs goes on listing what holds nothing any more
                assert set(one) <= set(two)
            else:
                assert (sorted(map(repr, one)) == sorted(map(repr, two))) if isinstance(op, SearchOp) else one == two


def test_what_is_kept_lasts_and_times_tell_of_changes(folder):
    with open_memory(folder, embedder=HashEmbedder()) as memory:
        store = MemoryStore(memory)
        store.put(("users", "ann"), "likes", {"drink": "tea"})
        first = store.get(("users", "ann"), "likes")
        store.put(("users", "ann"), "likes", {"drink": "coffee"})
        store.put(("users", "ann"), "gone", {"a": 1})
        store.delete(("users", "ann"), "gone")
    with open_memory(folder) as memory:
        store = MemoryStore(memory)
        item = store.get(("users", "ann"), "likes")
        assert item.value == {"drink": "coffee"} and item.created_at == first.created_at < item.updated_at
        assert store.get(("users", "ann"), "gone") is None and len(store.search(())) == 1
        assert store.search(("users",), query="coffee")[0].key == "likes"
    ledger = read_ledger(folder)
    assert len(ledger.entries(kind="item")) == 1 and len(ledger.all()) == 3 and ledger.aside() == []


def test_what_was_planted_in_the_folder_is_no_item(folder):
    with open_memory(folder, embedder=HashEmbedder()) as memory:
        MemoryStore(memory).put(("a",), "k", {"text": "ours"})
    journal = folder / "entries.jsonl"
    journal.write_text(journal.read_text().replace("ours", "mine"))
    with open_memory(folder) as memory:
        assert MemoryStore(memory).search(()) == []


def test_secrets_are_hidden_in_what_is_kept(store, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "sesame-open-sesame")
    store.put(("a",), "k", {"text": "it is sesame-open-sesame"})
    assert store.get(("a",), "k").value == {"text": "it is [secret]"}


def test_asynchronous_use_is_the_same(store):
    async def use():
        await store.aput(("a",), "k", {"text": "a lamp"})
        return await store.aget(("a",), "k"), await store.asearch(("a",), query="lamp")

    item, found = asyncio.run(use())
    assert item.value == {"text": "a lamp"} and [one.key for one in found] == ["k"]


def test_what_is_no_number_is_neither_greater_nor_less(store):
    store.put(("a",), "k", {"n": None})
    store.put(("a",), "l", {"n": 3})
    assert [one.key for one in store.search(("a",), filter={"n": {"$gt": 1}})] == ["l"]


def test_what_cannot_be_is_named(store):
    with pytest.raises(InvalidNamespaceError):
        store.put(("a.b",), "k", {})
    with pytest.raises(ValueError, match=r"unknown operator '\$near'; known: \$eq"):
        store.put(("a",), "k", {"n": 1})
        store.search(("a",), filter={"n": {"$near": 1}})
