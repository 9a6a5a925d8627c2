"""The read index says what the run itself says, whatever was journalled in which order, and however often it was looked at."""

import json
import os
import random
import shutil
import tempfile
import threading
from collections import Counter
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lived import lived

from agentevolve.loop.reports import reports
from agentevolve.memory import HashEmbedder, open_memory
from agentevolve.memory.forget import forget
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry, Looked, PolicyStamp, Task, Trajectory, Turn, Usage
from agentevolve.run.folder import JOURNAL, VIEW, Run, read_run, seeds
from agentevolve.view import figures, memories
from agentevolve.view.attempts import Asked, asked_of, body_of, facets, listed, row_of
from agentevolve.view.index import ReadIndex, facts_of, index_path
from agentevolve.view.memories import SORTS, Memories, Wanted
from agentevolve.view.memories import listed as entries_listed
from agentevolve.view.rows import KEPT

IDS = [f"1/acquire/t/{number}/0" for number in range(4)]
PHASES = ("1/acquire", "1/val/memory", "val/base", "run")


@st.composite
def attempts(draw):
    """A line with an attempt."""
    lost = draw(st.booleans())
    usage = Usage(calls=1, prompt_tokens=draw(st.integers(0, 9)), seconds=0.25)
    shown = draw(st.lists(st.sampled_from("xyz"), unique=True, max_size=2))
    one = Trajectory(
        id=draw(st.sampled_from(IDS)),
        task=Task(id=draw(st.sampled_from("ab")), env="e", split="train"),
        policy=PolicyStamp(model="m"),
        phase=draw(st.sampled_from(PHASES)),
        recalled=tuple(shown),
        looked=tuple(Looked(id=id, shown=True, tokens=3) for id in shown),
        turns=(Turn(action="go", observation=draw(st.text(max_size=5)), usage=usage),) * draw(st.integers(0, 3)),
        lookup=usage,
        reward=0.0 if lost else draw(st.sampled_from([0.0, 1.0])),
        end="error" if lost else "terminated",
        error=draw(st.text(max_size=9)) if lost else "",
    )
    return {"kind": "trajectory", "data": one.model_dump(mode="json")}


ids = st.lists(st.sampled_from(IDS), unique=True, max_size=3)
usages = st.builds(lambda n: {"usage": Usage(calls=n).model_dump()}, st.integers(0, 5))
facts = st.one_of(
    st.tuples(st.sampled_from(["again 1 0", "accepted 1 0", "accepted 2 0"]), ids),
    st.tuples(st.sampled_from(["ask/q", "spent/update", f"lost/{IDS[0]}/0", "lost/ask/q/0"]), usages),
    st.tuples(st.sampled_from(["evaluation 1/val", "evaluation 2/val"]), st.just({"base": []})),
    st.tuples(st.sampled_from(["refused/x", "other"]), st.text(max_size=5)),
).map(lambda pair: {"kind": "fact", "name": pair[0], "data": pair[1]})
lines = st.lists(st.one_of(attempts(), facts, st.just("look"), st.just("torn")), max_size=25)


def in_order(found: dict) -> dict:
    """The evaluations, with each arm's attempts in the order of their ids: no figure hangs on another."""
    return {name: {arm: sorted(ids) for arm, ids in arms.items()} for name, arms in found.items()}


def same(index: ReadIndex, folder: Path) -> None:
    """Check that the index and the run say the same."""
    run = read_run(folder)
    known = run.attempts()
    rows = {row["id"]: row for row in index.ask("SELECT * FROM attempts WHERE standing = 1")}
    assert rows.keys() == known.keys()
    for id, one in known.items():
        row = rows[id]
        assert (row["outcome"] == "solved", row["outcome"] == "lost") == (one.solved, one.lost)
        assert (row["turns"], row["tokens"], row["recalled"]) == (len(one.turns), one.usage.tokens, len(one.recalled))
        assert body_of(index, row) == one
        shown = {use["entry"] for use in index.ask("SELECT entry FROM uses WHERE n = ?", (row["n"],))}
        assert shown == set(one.recalled)
    for phase, cost in run.costs().items():
        mine = figures.costs(index)[phase].model_dump()
        assert mine == pytest.approx(cost.model_dump())
    kept = facts_of(index, 0)
    assert kept == {name: run.facts[name] for name in kept}
    assert {name for name in run.facts if name.startswith(KEPT)} == set(kept)
    assert in_order(figures.Seed(index, 0).evaluations()) == in_order(run.evaluations())


@settings(max_examples=60, deadline=None)
@given(lines)
def test_it_says_what_the_run_says(journal):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path = folder / JOURNAL
        path.write_bytes(b'{"kind":"run","format":1}\n')
        index = ReadIndex(folder)
        torn = b""
        for line in journal:
            if line == "look":
                index.update()
                same(index, folder)
                continue
            data = path.read_bytes().removesuffix(torn) if torn else path.read_bytes()
            torn = b'{"kind":"fact","na' if line == "torn" else b""
            path.write_bytes(data + (torn or json.dumps(line).encode() + b"\n"))
        index.update()
        same(index, folder)
        state = index.ask("SELECT * FROM attempts ORDER BY n"), index.ask("SELECT * FROM uses")
        index.close()
        (folder / VIEW).unlink()
        again = ReadIndex(folder)
        again.update()
        assert [[tuple(row) for row in rows] for rows in state] == [
            [tuple(row) for row in again.ask(query)] for query in ("SELECT * FROM attempts ORDER BY n", "SELECT * FROM uses")
        ]
        again.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return lived(tmp_path_factory.mktemp("lived") / "mine")


@pytest.fixture
def index(run):
    made = ReadIndex(run)
    made.update()
    yield made
    made.close()


def test_the_reports_are_the_terminal_s(run, index):
    wanted = reports(run, [read_run(folder) for folder in seeds(run)])
    assert figures.found(index) == wanted
    assert any("which may be forgetting" in line for line in wanted.verdicts)


def test_it_is_found_by_words_filters_and_pages(index, monkeypatch):
    every = listed(index, Asked())
    assert every["count"] == len(every["rows"]) == 11
    assert every["said"] == "11 attempts; the first made first."
    lost = listed(index, Asked(outcome="lost"))
    assert [row["error"] for row in lost["rows"]] == ["OSError: the ceiling came down"]
    assert listed(index, Asked(text="LAMP left"))["count"] > 0
    assert listed(index, Asked(text="zebra"))["count"] == 0
    shown = listed(index, Asked(entry="demo/1/acquire/corridor/train/0/0"))
    assert {row["arm"] for row in shown["rows"]} == {"val/memory"}
    assert "1 attempt that was shown the entry demo/1/acquire/corridor/train/0/0" in shown["said"]
    monkeypatch.setattr("agentevolve.view.attempts.PAGE", 2)
    for sort in ("first", "last", "reward", "turns", "tokens", "slowest", "task"):
        found, query = [], {"sort": sort}
        while True:
            page = listed(index, asked_of(query, Asked))
            found += [row["id"] for row in page["rows"]]
            if not page["next"]:
                break
            query = dict(part.split("=") for part in page["next"].replace("%2F", "/").replace("%7E", "~").split("&"))
        assert sorted(found) == sorted(row["id"] for row in every["rows"])


@pytest.mark.parametrize("asked", [{"round": "x"}, {"outcome": "won"}, {"sort": "id; DROP TABLE attempts"}])
def test_what_cannot_be_asked_is_refused(asked):
    with pytest.raises(AgentevolveError, match=next(iter(asked))):
        asked_of(asked, Asked)


@pytest.mark.parametrize("after", ["x", "1~x", "~", "nan~1~", "1 OR 1=1~1~x"])
def test_a_place_that_is_none_is_refused(index, after):
    with pytest.raises(AgentevolveError, match="no place in this list"):
        listed(index, Asked(after=after, sort="reward"))


def test_memory_is_listed_with_uses(index):
    memories = Memories(index)
    memories.update()
    found = entries_listed(memories, Wanted())
    assert {row["kind"] for row in found["rows"]} == {"demo", "insight"} and sum(row["uses"] for row in found["rows"]) == 6
    asked = Wanted(text="lamp", kind="insight")
    assert [row["id"] for row in entries_listed(memories, asked)["rows"]] == ["rule"]


def test_a_damaged_journal_is_named_and_what_was_read_stays(run, tmp_path):
    place = shutil.copytree(run, tmp_path / "r")
    index = ReadIndex(place)
    index.update()
    before = index.state()
    with (place / JOURNAL).open("ab") as file:
        file.write(b"{nonsense}\n")
    number = (place / JOURNAL).read_bytes().count(b"\n")
    with pytest.raises(AgentevolveError, match=f"{JOURNAL}:{number}: not a line"):
        index.update()
    assert index.state() == before
    index.close()


def test_what_was_forgotten_leaves_the_index_too(run, tmp_path):
    place = shutil.copytree(run, tmp_path / "r")
    index = ReadIndex(place)
    index.update()
    index.update_words()
    forget(place, task="corridor/train/0")
    assert not (place / VIEW).exists()
    index.update()
    assert row_of(index, "1/acquire/corridor/train/0/0", None)["forgotten"]
    index.update_words()
    assert listed(index, Asked(text="Corridor one", task="corridor/train/0"))["count"] == 0
    index.close()


def test_an_index_that_is_broken_or_of_another_version_is_made_again(run, tmp_path):
    place = shutil.copytree(run, tmp_path / "r")
    (place / VIEW).unlink(missing_ok=True)
    for broken in (b"not a database, but long enough to be taken for one" * 99, b""):
        (place / VIEW).write_bytes(broken)
        index = ReadIndex(place)
        index.update()
        assert index.ask("SELECT count(*) FROM attempts")[0][0] == 11
        index.close()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="may write everywhere")
def test_a_folder_that_cannot_be_written_has_its_index_in_the_cache(run, tmp_path):
    place = shutil.copytree(run, tmp_path / "r")
    place.chmod(0o500)
    assert index_path(place).parent != place


chosen = st.fixed_dictionaries(
    {},
    optional={
        "outcome": st.sampled_from(["solved", "not solved", "lost"]),
        "round": st.sampled_from([1, 2]),
        "split": st.sampled_from(["train", "val"]),
        "arm": st.sampled_from(["acquire", "broken", "val/memory", "val/base"]),
        "at_least": st.integers(0, 4),
        "at_most": st.integers(0, 4),
        "entry": st.sampled_from(["demo/1/acquire/corridor/train/0/0", "demo/1/acquire/corridor/train/1/0"]),
        "text": st.sampled_from(["lamp", "ceiling", "lamp one", "zebra"]),
    },
)


def meets(one: Trajectory, asked: dict) -> bool:
    """Whether an attempt is what the filter asks for, decided from the whole of it."""
    number, _, arm = one.phase.partition("/")
    said = " ".join([one.prompt, one.context, one.error, *(f"{turn.action} {turn.observation}" for turn in one.turns)]).lower()
    tests = {
        "outcome": lambda value: value == ("lost" if one.lost else "solved" if one.solved else "not solved"),
        "round": lambda value: number == str(value),
        "split": lambda value: one.task.split == value,
        "arm": lambda value: arm == value,
        "at_least": lambda value: len(one.turns) >= value,
        "at_most": lambda value: len(one.turns) <= value,
        "entry": lambda value: value in one.recalled,
        "text": lambda value: all(word in said for word in value.split()),
    }
    return all(tests[name](value) for name, value in asked.items())


@settings(max_examples=150, deadline=None)
@given(chosen)
def test_a_filter_finds_what_it_says(everything, asked):
    index, attempts = everything
    page = listed(index, Asked(**asked))
    assert {row["id"] for row in page["rows"]} == {id for id, one in attempts.items() if meets(one, asked)}
    for name, values in facets(index, Asked(**asked)).items():
        for one in values:
            if name in ("outcome", "round", "arm", "split"):
                wanted = sum(meets(attempt, asked | {name: one["value"]}) for attempt in attempts.values())
                assert one["count"] == wanted


@pytest.fixture(scope="module")
def everything(run):
    index = ReadIndex(run)
    index.update()
    yield index, read_run(run).attempts()
    index.close()


def test_of_a_run_under_way_the_seeds_that_are_measured_are_shown(run, tmp_path):
    shutil.copytree(run, tmp_path / "two" / "seed-0")
    other = tmp_path / "two" / "seed-1"
    other.mkdir()
    (other / JOURNAL).write_bytes(b'{"kind":"run","format":1}\n')
    index = ReadIndex(tmp_path / "two")
    index.update()
    found = figures.found(index)
    assert len(found.by_seed) == 1 and found.tables == reports(run, [read_run(run)]).tables
    shutil.copy(run / JOURNAL, other / JOURNAL)
    index.update()
    assert figures.found(index) == reports(tmp_path / "two", [read_run(folder) for folder in seeds(tmp_path / "two")])
    assert listed(index, Asked())["count"] == 22 and listed(index, Asked(seed=1))["count"] == 11
    index.close()


def test_it_follows_a_run_that_is_being_written(run, tmp_path):
    place = shutil.copytree(run, tmp_path / "r")
    writer, index = Run(place, quiet=True), ReadIndex(place)
    one = next(iter(writer.trajectories.values()))
    writing = threading.Thread(
        target=lambda: [writer.add(one.model_copy(update={"id": f"{one.id}/{number}"})) for number in range(200)]
    )
    writing.start()
    counts = [0]
    while writing.is_alive() or counts[-1] < 211:
        index.update()
        counts.append(listed(index, Asked())["count"])
        assert counts[-1] >= counts[-2]
    writing.join()
    writer.close()
    assert counts[-1] == 211
    same(index, place)
    index.close()


@pytest.mark.parametrize("sort", SORTS)
def test_entries_are_paged_as_they_are_sorted(tmp_path, sort, monkeypatch):
    run = Run(tmp_path / "r", quiet=True)
    run.once("a run", lambda: "with memories")
    run.close()
    luck = random.Random(sort)
    with open_memory(tmp_path / "r" / "memory", embedder=HashEmbedder()) as memory:
        made = [
            Entry(
                id=f"e{n}",
                kind=luck.choice(("insight", "case")),
                key=f"key {n}",
                text=luck.choice(("lamp", "door")) + " x" * luck.randrange(4) + f" {n}",
                env=luck.choice("vw"),
                task=luck.choice("tu"),
                round=luck.randrange(3),
                reward=luck.choice((0.0, 0.1, 1.0)),
            )
            for n in range(60)
        ]
        memory.add(made)
        memory.note({one.id: luck.choice((-0.3, 0.1, 0.7)) for one in made[:30]}, 1)
        for one in made[::7]:
            memory.retire(one.id, 2, "old")
        for one in made[3::9]:
            memory.quarantine(one.id, 2, "odd")
    index = ReadIndex(tmp_path / "r")
    held = Memories(index)
    held.update()
    monkeypatch.setattr(memories, "PAGE", 7)
    rows = [dict(row) for row in index.ask("SELECT * FROM entries ORDER BY n")]
    column, down = SORTS[sort]
    filters = [
        {"kind": "case", "state": "there"},
        {"round": 1, "task": "t"},
        {"text": "lamp", "env": "v"},
        {"state": "quarantined"},
    ]
    for asked in ({}, *filters):
        wanted = sorted(meant(rows, asked), key=lambda row: (row[column], row["n"]), reverse=down)
        found, query = [], Wanted(sort=sort, **asked)
        while True:
            page = entries_listed(held, query)
            assert page["count"] == len(wanted)
            for facet, values in page["facets"].items():
                rest = {key: value for key, value in asked.items() if key != facet}
                counts = Counter(row[facet] for row in meant(rows, rest))
                assert {one["value"]: one["count"] for one in values} == dict(counts)
            found += [row["id"] for row in page["rows"]]
            if not page["next"]:
                break
            query = asked_of(dict(parse_qsl(page["next"])), Wanted)
        assert found == [row["id"] for row in wanted]
    index.close()


def meant(rows, asked):
    """The rows that are asked for, one by one."""
    return [
        row for row in rows if all(value in row["start"] if key == "text" else row[key] == value for key, value in asked.items())
    ]
