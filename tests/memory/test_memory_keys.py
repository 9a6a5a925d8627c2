"""What of a key is compared, and which of the nearest are taken."""

import json
import random

import numpy as np
import pytest

from agentevolve.memory import EntryMemory, HashEmbedder, open_memory, read_memory
from agentevolve.memory.keys import Shelved, distinctive, key_id, sentences
from agentevolve.memory.ranking import Words, differing, fused
from agentevolve.records import Entry, Ranking

POLICY = " ".join(f"Rule {n}: an agent of the airline may never do what rule {n} forbids to it." for n in range(60))
TICKETS = ("I lost my suitcase in Rome.", "Please cancel my flight to Oslo.", "Can I bring a dog?", "My card was charged twice.")


def entry(id: str, key: str, round: int = 1, **fields) -> Entry:
    return Entry(id=id, kind=fields.pop("kind", "demo"), key=key, text=f"text of {id}", env="e", round=round, **fields)


@pytest.fixture
def memory(tmp_path):
    with open_memory(tmp_path / "m", embedder=HashEmbedder()) as opened:
        yield opened


def found(memory: EntryMemory, query: str, k: int = 1, **how) -> list[str]:
    ranked = {name: how.pop(name) for name in ("difference", "words") if name in how}
    return [one.id for one, _ in memory.recall(query, env="e", k=k, ranking=Ranking(**ranked), **how)]


def test_sentences_are_lines_and_what_ends_with_a_stop():
    assert sentences("One. Two!\nThree: four?  \n\nfive") == ["One.", "Two!", "Three:", "four?", "five"]
    assert sentences("3.5 km") == ["3.5 km"] and sentences(" \n ") == []


def test_what_all_keys_share_is_left_out_and_never_everything():
    assert distinctive("Rules. A ticket.", {"Rules."}) == "A ticket."
    assert distinctive("Rules.", {"Rules."}) == "Rules."
    assert distinctive("Rules.  As they are", ()) == "Rules.  As they are"


def test_a_long_policy_before_each_ticket_no_longer_hides_it(tmp_path):
    """With the real encoder, which reads 256 word pieces: the policy alone has more."""
    with open_memory(tmp_path / "m") as memory:
        memory.add([entry(str(n), f"{POLICY}\n{ticket}") for n, ticket in enumerate(TICKETS)])
        asked = ("where is my luggage", "call off the journey to Norway", "are pets allowed", "I paid two times")
        assert [found(memory, f"{POLICY}\n{ticket}") for ticket in asked] == [["0"], ["1"], ["2"], ["3"]]


def test_a_query_without_the_shared_part_finds_the_same(memory):
    memory.add([entry(str(n), f"{POLICY}\n{ticket}") for n, ticket in enumerate(TICKETS)])
    for ticket in TICKETS:
        assert found(memory, f"{POLICY}\n{ticket}", 4) == found(memory, ticket, 4)


def test_one_key_alone_shares_nothing_and_a_second_one_changes_what_is_indexed():
    shelf = Shelved(1)

    def add(key: str) -> bool:
        return shelf.add(key_id(key), entry("a", key), 1)

    assert not add("Rules. One.") and list(shelf.texts().values()) == ["Rules. One."]
    assert not add("Rules. One.")
    assert add("Rules. Two.") and sorted(shelf.texts().values()) == ["One.", "Two."]
    assert not add("Rules. Three.") and key_id("Three.") in shelf.texts()
    assert add("Four.") and "Rules. One." in shelf.texts().values()


@pytest.mark.parametrize("keys", [[], ["Rules. One."], ["Rules. One.", "Rules. Two."], ["Rules. One.", "Rules. Two.", "Four."]])
def test_a_shelf_that_was_told_goes_on_as_the_one_that_told_it(keys):
    told, rest = Shelved(1), ["Rules. Three.", "Rules. One.", "Five.", "Rules. Six."]
    held = {key_id(key): entry("a", key) for key in keys}
    for id, one in held.items():
        told.add(id, one, 1)
    made = Shelved.as_told(json.loads(json.dumps(told.told())), [[one] for one in held.values()])
    for key in rest:
        assert made.texts() == told.texts() and made.shared == told.shared
        assert made.add(key_id(key), entry("b", key), 1) == told.add(key_id(key), entry("b", key), 1)
    assert made.texts() == told.texts() and made.indexed == told.indexed


def test_what_later_rounds_add_changes_nothing_of_what_is_shared(memory):
    memory.add([entry("a", "Rules. One lamp."), entry("b", "Rules. Two doors.")])
    before = memory.recall("Rules. One door.", env="e", k=2, as_of=1)
    memory.add([entry("c", "Something else. One door.", 2)])
    assert memory.recall("Rules. One door.", env="e", k=2, as_of=1) == before
    assert found(memory, "Rules. One door.", 1) == ["c"]


def test_a_kind_that_comes_later_changes_nothing_of_what_is_asked_of_another(memory):
    memory.add([entry("a", "Rules. One lamp.", kind="insight")])
    before = memory.recall("Rules. One door.", env="e", k=2, as_of=1, kind="insight")
    memory.add([entry("b", "Rules. Two doors.", 2), entry("c", "Rules. Three.", 2)])
    assert memory.recall("Rules. One door.", env="e", k=2, as_of=1, kind="insight") == before


def test_within_the_first_round_the_index_follows_what_is_shared(memory):
    memory.add([entry("a", "Rules. One lamp.")])
    assert found(memory, "Rules. One lamp.") == ["a"]
    memory.add([entry("b", "Rules. Two doors.")])
    assert found(memory, "Rules. Two doors.") == ["b"] and found(memory, "lamp") == ["a"]
    memory.add([entry("c", "No such sentence here.")])
    assert {one.id for one, near in memory.recall("Rules. One lamp.", env="e", k=3) if near == 1.0} == {"a"}


def test_the_same_memory_opened_again_and_rebuilt_recalls_the_same(tmp_path):
    rng = random.Random(0)
    words = [f"word{n}" for n in range(30)]
    keys = [f"These are the rules. {' '.join(rng.choices(words, k=4))}." for _ in range(40)]
    with open_memory(tmp_path / "m", embedder=HashEmbedder()) as memory:
        for n, key in enumerate(keys):
            memory.add([entry(str(n), key, 1 + n // 15)])
            if n % 7 == 0:
                found(memory, keys[0], 3)
        answers = [found(memory, key, 5, as_of=r) for key in keys for r in (1, 2, 3)]
        memory.rebuild()
        assert [found(memory, key, 5, as_of=r) for key in keys for r in (1, 2, 3)] == answers
    with read_memory(tmp_path / "m") as memory:
        assert [found(memory, key, 5, as_of=r) for key in keys for r in (1, 2, 3)] == answers


def test_words_find_what_meaning_alone_does_not(tmp_path):
    keys = ["error E4711 in the pump", "error E4712 in the pump", "error E4713 in the pump", "the pump is broken", "a red valve"]
    with open_memory(tmp_path / "m", embedder=HashEmbedder()) as memory:
        memory.add([entry(str(n), key) for n, key in enumerate(keys)])
        for n in range(3):
            assert found(memory, f"E471{n + 1}", words=True) == [str(n)]
        similar = memory.recall("E4712", env="e", k=5, ranking=Ranking(words=True))
        assert all(-1 <= near <= 1 for _, near in similar) and len(similar) == 5
        memory.add([entry("new", "an E9 appears")])
        assert found(memory, "E9", words=True) == ["new"]
        memory.retire("new", 1, "")
        assert "new" not in found(memory, "E9", 6, words=True)


def test_bm25_ranks_by_the_words_and_leaves_out_what_shares_none():
    words = Words({"a": "the red lamp", "b": "the blue lamp lamp", "c": "a door"})
    assert words.ranked("lamp", 3)[:2] == ["b", "a"] and "c" not in words.ranked("lamp", 3)
    assert words.ranked("nothing of it", 3) == []


def test_fusion_prefers_what_both_rankings_have():
    assert fused(["a", "b", "c"], ["c", "d"]) == ["c", "a", "b", "d"]
    assert fused([], ["x"]) == ["x"] and fused([], []) == []


def test_of_equals_the_different_one_is_taken():
    rows = np.asarray([[1, 0], [0.99, 0.141], [0, 1]], np.float32)
    near = [0.9, 0.89, 0.6]
    assert differing(near, rows, 2, 0.0) == [0, 1]
    assert differing(near, rows, 2, 0.5) == [0, 2]
    assert differing(near, rows, 9, 0.5) == [0, 2, 1]


def test_difference_spreads_what_is_recalled(memory):
    memory.add([entry(str(n), f"the lamp is red {'x' * n}") for n in range(4)])
    memory.add([entry("far", "the lamp is in a kitchen")])
    assert "far" not in found(memory, "the lamp is red", 3)
    assert "far" in found(memory, "the lamp is red", 3, difference=0.7)
    assert found(memory, "the lamp is red", 3, difference=0.7)[0] == found(memory, "the lamp is red")[0]


def test_entries_that_share_a_key_differ_in_nothing(memory):
    memory.add([entry(str(n), "the same lamp") for n in range(4)] + [entry("far", "a lamp elsewhere")])
    assert found(memory, "the same lamp", 2, difference=0.6) == ["0", "far"]
    assert len(found(memory, "the same lamp", 5, difference=0.6, words=True)) == 5


def test_what_is_skipped_gives_way_to_the_next(memory):
    memory.add([entry(str(n), f"lamp {n}") for n in range(40)])
    first = found(memory, "lamp 3", 5)
    assert found(memory, "lamp 3", 4, skip=lambda one: one.id == first[0]) == first[1:]
    assert found(memory, "lamp 3", 5, skip=lambda one: True) == []


# --- equal texts ---


def again(id: str, key: str, round: int = 1, task: str = "t", text: str = "the same") -> Entry:
    return Entry(id=id, kind="demo", key=key, text=text, env="e", task=task, round=round, sources=(f"from {id}",))


def test_an_equal_text_is_kept_once_with_all_its_sources_and_keys(tmp_path):
    with open_memory(tmp_path / "m", embedder=HashEmbedder()) as memory:
        memory.add([again("a", "a red lamp"), again("b", "the blue door", 2), again("c", "a third thing", text="another")])
        for opened in (memory, None):
            seen = opened or read_memory(tmp_path / "m")
            assert [(one.id, one.sources) for one in seen.entries()] == [("a", ("from a", "from b")), ("c", ("from c",))]
            assert [one.sources for one in seen.entries(as_of=1)] == [("from a",), ("from c",)]
            assert found(seen, "the blue door") == ["a"] == found(seen, "a red lamp")
            assert seen.recall("the blue door", env="e", k=1)[0][1] == 1.0
            assert seen.recall("the blue door", env="e", k=1, as_of=1)[0][1] < 1.0
            assert len(found(seen, "the blue door", 9)) == 2
            if not opened:
                seen.close()
        memory.add([again("b", "whatever", 5)])
        assert len(memory.entries()) == 2


@pytest.mark.parametrize("other", [{"task": "u"}, {"kind": "case"}, {"env": "f"}, {"counts": {"votes": 1}}, {"reward": 1.0}])
def test_what_says_the_same_of_something_else_is_another_entry(memory, other):
    memory.add([again("a", "k"), again("b", "k").model_copy(update=other)])
    assert [one.id for one in memory.entries()] == ["a", "b"]


def test_what_is_retired_may_be_learnt_again(memory):
    memory.add([again("a", "k"), again("b", "l")])
    memory.retire("b", 2, "by the id of what said it again")
    assert memory.entries() == [] and [one.id for one in memory.entries(as_of=1)] == ["a"]
    memory.add([again("c", "k", 3)])
    assert [(one.id, one.sources) for one in memory.entries()] == [("c", ("from c",))]
