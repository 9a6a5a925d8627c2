"""A run says the same however it is read: at once, or one by one; from one file or many; with a checkpoint or without."""

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from eager import Eager
from hypothesis import given, settings
from hypothesis import strategies as st

from agentevolve.memory.forget import forget
from agentevolve.protocols import AgentevolveError
from agentevolve.records import PolicyStamp, Task, Trajectory, Turn, Usage
from agentevolve.run.checkpoint import CHECKPOINT, LEAST, Checkpoint
from agentevolve.run.folder import JOURNAL, OPENING, Run, journal_of, read_run
from agentevolve.run.segments import Segments
from agentevolve.view.index import ReadIndex

IDS = [f"1/acquire/t/{number}/0" for number in range(4)] + ["half \ud800 pair", "ä\u2028"]
FIGURES = ("id", "policy", "phase", "sample", "seed", "asked", "reward", "error", "cut", "forgotten", "seconds", "lost", "solved")
PHASES = ("1/acquire", "1/acquire/more", "2/acquire", "1/val/memory", "val/base", "run")


def made(id: str, *, phase: str = "1/acquire", lost: bool = False, model: str = "m", tokens: int = 5, **more) -> Trajectory:
    return Trajectory(
        id=id,
        task=Task(id=f"t {id[:5]}", env="e", split="train", seed=tokens % 3),
        policy=PolicyStamp(model=model, adapter="a" if model == "tuned" else None),
        phase=phase,
        turns=(Turn(action="go", observation="x" * tokens, usage=Usage(calls=1, prompt_tokens=tokens, usd=0.25)),) * (tokens % 4),
        lookup=Usage(seconds=0.5),
        end="error" if lost else "terminated",
        error="OSError: down" if lost else "",
        reward=0.0 if lost else float(tokens % 2),
        **more,
    )


ids = st.lists(st.sampled_from(IDS), max_size=3)
usage = st.integers(0, 9).map(lambda n: Usage(calls=n, usd=n / 8))
adding = st.builds(
    made,
    st.sampled_from(IDS),
    phase=st.sampled_from(PHASES),
    lost=st.booleans(),
    model=st.sampled_from(["m", "tuned", "half \udfff pair"]),
    tokens=st.integers(0, 300),
    asked=st.sampled_from([(), ("grammar",)]),
    hint=st.sampled_from(["", "look left"]),
)
steps = st.one_of(
    adding.map(lambda one: ("add", one)),
    st.tuples(st.just("lose"), st.sampled_from([*IDS, "ask/q"]), usage),
    st.tuples(st.sampled_from(["accept", "again"]), st.sampled_from("ab"), ids),
    st.tuples(st.just("once"), st.sampled_from(["ask/q", "evaluation 1/val", "half \ud800 pair", "other"]), usage),
    st.tuples(st.just("spend"), st.sampled_from("xy"), usage),
    st.just(("kill",)),
    st.just(("reopen",)),
    st.just(("write",)),
    st.just(("torn",)),
    st.just(("look",)),
)


def same_as_read_at_once(run: Run, folder: Path) -> None:
    expected = Eager(folder)
    assert [*run.trajectories] == [*expected.trajectories] and [*run.lost] == [*expected.lost]
    assert dict(run.trajectories) == expected.trajectories and dict(run.lost) == expected.lost
    assert list(run.attempts().items()) == list(expected.attempts().items())
    assert (len(run.trajectories), len(run.lost)) == (len(expected.trajectories), len(expected.lost))
    assert list(run.facts.items()) == list(expected.facts.items())
    assert run.evaluations() == expected.evaluations()
    for rounds in ((1,), (2,), (1, 2)):
        assert run.acquired(*rounds) == expected.acquired(*rounds)
    assert [cost.model_dump() for cost in run.costs().values()] == [
        pytest.approx(cost.model_dump()) for cost in expected.costs().values()
    ]
    assert run.learning()[0] == expected.episodes()
    for name in [*IDS, "ask/q"]:
        assert run.making(name) == f"{name}#{expected.makings[name]}"
        assert (name in run.attempts()) == (name in expected.attempts())
    told = list(run.outcomes_of(lambda phase: True, lost=True))
    assert {one.id: one for one in told} == run.outcomes(run.attempts())
    for one, whole in zip(told, expected.attempts().values(), strict=True):
        names = (
            "id",
            "policy",
            "phase",
            "sample",
            "seed",
            "asked",
            "reward",
            "error",
            "cut",
            "forgotten",
            "seconds",
            "lost",
            "solved",
        )
        assert [getattr(one, name) for name in names] == [getattr(whole, name) for name in names]
        assert (one.task.id, one.task.env, one.task.split) == (whole.task.id, whole.task.env, whole.task.split)
        assert (len(one.turns), list(one.cost), one.hinted) == (len(whole.turns), list(whole.cost), bool(whole.hint))
    other = read_run(folder.parent / "other")
    other.borrow(run)
    lent = expected.lent()
    assert {key: other.lent.get(key) for key in lent} == lent
    assert all(key in other.lent for key in lent) and other.lent.get("none") is None


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=30), st.sampled_from([1, 700, 1 << 20]))
def test_it_says_what_a_run_that_is_read_at_once_says(done, limit):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        run = Run(folder, quiet=True)
        for what, *how in done:
            run.journal.limit = limit
            if what == "add":
                if how[0].id in run.trajectories:
                    with pytest.raises(ValueError, match="is journalled already"):
                        run.add(how[0])
                else:
                    run.add(how[0])
            elif what == "once":
                run.once(how[0], lambda how=how: {"usage": how[1].model_dump()} if how[0].startswith("ask/") else {"base": []})
            elif what in ("lose", "accept", "again", "spend"):
                getattr(run, what)(*how)
            elif what == "write":
                run._counted.write(always=True)
            elif what == "torn":
                with journal_of(folder).paths()[-1].open("ab") as file:
                    file.write(b'{"kind":"fact","na')
            elif what == "look":
                looked = read_run(folder)
                same_as_read_at_once(looked, folder)
                looked._counted.write(always=True)
            else:
                if what == "reopen":
                    run.close()
                run = killed(run, folder)
        same_as_read_at_once(run, folder)
        run.close()
        same_as_read_at_once(run, folder)
        same_as_read_at_once(read_run(folder), folder)
        (folder / CHECKPOINT).unlink(missing_ok=True)
        same_as_read_at_once(read_run(folder), folder)


def killed(run: Run, folder: Path) -> Run:
    """The run opened again, with whatever was not written down gone."""
    if run._held:
        run._held.release()
    return Run(folder, quiet=True)


def large(folder: Path, attempts: int = 40, limit: int = 2_000) -> Path:
    """A run of several files, with a checkpoint."""
    run = Run(folder, quiet=True)
    run.journal.limit = limit
    for number in range(attempts):
        run.add(made(f"1/acquire/t/{number}/0", tokens=number))
    run.once("fact", lambda: {"x": 1})
    run._counted.write(always=True)
    run.close()
    return folder


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_journal_goes_on_in_further_files_and_each_is_closed_for_good(tmp_path):
    folder = large(tmp_path / "run")
    paths = journal_of(folder).paths()
    assert [path.name for path in paths[:3]] == [JOURNAL, "journal-000002.jsonl", "journal-000003.jsonl"]
    assert files(folder) == sorted([CHECKPOINT, *(path.name for path in paths)])
    lines = [[json.loads(line) for line in path.read_bytes().splitlines()] for path in paths]
    assert all(of_file[0] == OPENING for of_file in lines)
    assert [of_file[-1] for of_file in lines[:-1]] == [{"kind": "segment", "next": path.name} for path in paths[1:]]
    before = [path.read_bytes() for path in paths[:-1]]
    run = Run(folder)
    run.add(made("another"))
    run.close()
    assert [path.read_bytes() for path in paths[:-1]] == before
    assert list(read_run(folder).trajectories)[-1] == "another"


def test_what_a_kill_leaves_between_two_files_is_gone_on_with(tmp_path):
    folder = large(tmp_path / "run", 3, 1 << 20)
    journal = Segments(folder / JOURNAL, OPENING)
    Segments(folder / "journal-000002.jsonl", OPENING).append()  # the next one is there, and nothing says so
    same_as_read_at_once(read_run(folder), folder)
    run = Run(folder)
    run.journal.limit = 1
    run.add(made("b"))
    run.add(made("c"))
    run.close()
    assert [path.name for path in journal.paths()] == [JOURNAL, "journal-000002.jsonl", "journal-000003.jsonl"]
    assert list(read_run(folder).trajectories)[-2:] == ["b", "c"]


@pytest.mark.parametrize("number", [2, 3, -1])
@pytest.mark.parametrize("counted", [True, False])
def test_a_file_that_is_missing_is_named(tmp_path, number, counted):
    folder = large(tmp_path / "run")
    paths = journal_of(folder).paths()
    if not counted:
        (folder / CHECKPOINT).unlink()
    gone = paths[number - 1] if number > 0 else paths[-1]
    gone.unlink()
    for use in (Run, read_run):
        with pytest.raises(AgentevolveError, match=f"{gone.name}: missing: .* ends with going on there") as caught:
            use(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", [b"{oh no", b'{"kind":"trajectory","data":{"id":"a"}}', b'{"kind":"verdict"}'])
def test_damage_in_a_closed_file_is_named_by_file_and_line(tmp_path, line):
    folder = large(tmp_path / "run")
    path = journal_of(folder).paths()[2]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], line + b"\n", *lines[2:]]))
    before = {one.name: one.read_bytes() for one in folder.iterdir() if one.name != CHECKPOINT}
    for use in (Run, read_run):
        with pytest.raises(AgentevolveError, match=r"journal-000003\.jsonl:3: ") as caught:
            use(folder)
        assert "\n" not in str(caught.value)
    assert {one.name: one.read_bytes() for one in folder.iterdir() if one.name != CHECKPOINT} == before


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(20_000))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5_000])


def zeroed(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:8192] + bytes(len(data) - 8192))


def older(path: Path) -> None:
    change(path, "PRAGMA user_version = 99")


def other_tables(path: Path) -> None:
    change(path, "DROP TABLE facts")


def change(path: Path, what: str) -> None:
    db = sqlite3.connect(path)
    db.execute(what)
    db.commit()
    db.close()


@pytest.mark.parametrize("spoil", [garbage, empty, torn, zeroed, older, other_tables])
def test_a_checkpoint_that_is_garbage_is_made_again_without_a_word(tmp_path, capsys, spoil):
    folder = large(tmp_path / "run")
    spoil(folder / CHECKPOINT)
    same_as_read_at_once(read_run(folder), folder)
    spoil_again = large(tmp_path / "again")
    spoil(spoil_again / CHECKPOINT)
    run = Run(spoil_again, quiet=True)
    same_as_read_at_once(run, spoil_again)
    run.close()
    assert capsys.readouterr() == ("", "")


def test_a_checkpoint_of_another_journal_is_not_believed(tmp_path):
    one, other = large(tmp_path / "one", 40), large(tmp_path / "two", 41)
    shutil.copy(one / CHECKPOINT, other / CHECKPOINT)
    same_as_read_at_once(read_run(other), other)
    paths = journal_of(one).paths()
    text = paths[1].read_bytes()
    paths[1].write_bytes(text.replace(b'"usd":0.25', b'"usd":0.5', 1))  # one byte less
    same_as_read_at_once(read_run(one), one)


def test_a_run_that_was_copied_or_has_grown_keeps_its_checkpoint(tmp_path):
    folder = shutil.copytree(large(tmp_path / "run"), tmp_path / "copy")
    counted = Checkpoint(folder / CHECKPOINT, journal_of(folder))
    assert counted.done == journal_of(folder).size()
    run = Run(folder)
    run.add(made("b"))
    run.close()
    grown = Checkpoint(folder / CHECKPOINT, journal_of(folder))
    assert grown.done == counted.done < journal_of(folder).size()
    same_as_read_at_once(read_run(folder), folder)


def test_an_attempt_that_was_changed_behind_the_checkpoint_is_not_taken_for_another(tmp_path):
    folder = large(tmp_path / "run", limit=1 << 20)
    path = folder / JOURNAL
    path.write_bytes(path.read_bytes().replace(b"1/acquire/t/1/0", b"1/acquire/t/z/0", 1))
    run = read_run(folder)
    assert run.trajectories["1/acquire/t/2/0"].id == "1/acquire/t/2/0"
    with pytest.raises(AgentevolveError, match=rf"was changed behind .*{CHECKPOINT}; delete this one"):
        run.trajectories["1/acquire/t/1/0"]


def test_a_small_run_has_no_checkpoint_and_a_larger_one_gets_it_on_the_way(tmp_path):
    run = Run(tmp_path / "run", quiet=True)
    for number in range(12):
        run.add(made(str(number), tokens=900_001))
        assert (run.folder / CHECKPOINT).exists() is (run.journal.size() >= LEAST)
    run.close()
    assert (run.folder / CHECKPOINT).exists()
    same_as_read_at_once(read_run(run.folder), run.folder)


def test_what_cannot_be_written_down_is_counted_all_the_same(tmp_path):
    folder = large(tmp_path / "run")
    (folder / CHECKPOINT).unlink()
    (folder / CHECKPOINT).mkdir()  # where none can be put, whoever asks
    run = read_run(folder)
    run._counted.write(always=True)
    same_as_read_at_once(run, folder)
    assert (folder / CHECKPOINT).is_dir() and not list(folder.glob("*.partial"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="may write everywhere")
def test_a_folder_that_cannot_be_written_is_read_all_the_same(tmp_path):
    folder = large(tmp_path / "run")
    folder.chmod(0o500)
    same_as_read_at_once(read_run(folder), folder)


READING = """
import sys
from pathlib import Path
from agentevolve.run.folder import read_run
before = ""
while True:
    run = read_run(Path(sys.argv[1]))
    run._counted.write(always=True)
    ids = list(run.trajectories)
    assert [run.trajectories[id].id for id in ids] == ids == sorted(ids)
    if "end" in run.facts:
        break
print(len(ids))
"""


def test_several_processes_read_and_write_down_what_they_counted_while_one_writes(tmp_path):
    folder = tmp_path / "run"
    run = Run(folder, quiet=True)
    run.journal.limit = 20_000
    run.add(made("0000"))
    readers = [subprocess.Popen([sys.executable, "-c", READING, str(folder)], stdout=subprocess.PIPE) for _ in range(2)]
    for number in range(1, 300):
        run.add(made(f"{number:04}", tokens=300))
        if number % 50 == 0:
            run._counted.write(always=True)
    run.once("end", lambda: True)
    assert [reader.communicate(timeout=120)[0] for reader in readers] == [b"300\n", b"300\n"]
    run.close()
    same_as_read_at_once(read_run(folder), folder)
    assert not list(folder.glob("*.partial"))


def test_what_was_forgotten_leaves_the_checkpoint_and_every_file(tmp_path):
    folder = large(tmp_path / "run")
    run = Run(folder)
    run.add(made("secret", hint="what nobody may know"))
    run._counted.write(always=True)
    run.close()
    stale = read_run(folder)
    assert forget(folder, id="secret")
    assert not (folder / CHECKPOINT).exists()
    assert not any(b"what nobody may know" in path.read_bytes() for path in folder.iterdir())
    stale._counted.done += 1  # as if it had counted more: what it knows is of a journal that is no more
    stale._counted.write(always=True)
    assert not (folder / CHECKPOINT).exists()
    run = read_run(folder)
    assert run.trajectories["secret"].forgotten
    same_as_read_at_once(run, folder)


def test_nothing_that_was_hidden_in_the_journal_is_written_into_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "open sesame")
    folder = tmp_path / "run"
    run = Run(folder, quiet=True)
    run.add(made("open sesame/0", hint="say open sesame"))
    run.once("fact", lambda: "open sesame")
    assert run.trajectories["open sesame/0"].hint == "say open sesame"  # it goes by the id that it was given
    assert run.facts == {"fact": "open sesame"}
    run._counted.write(always=True)
    run.close()
    read_run(folder)._counted.write(always=True)
    assert (folder / CHECKPOINT).is_file()
    assert not any(b"open sesame" in path.read_bytes() for path in folder.iterdir())
    same_as_read_at_once(read_run(folder), folder)


def test_the_inspector_reads_a_journal_of_several_files(tmp_path):
    folder = large(tmp_path / "run", 3)
    index = ReadIndex(folder)
    index.update()
    run = Run(folder)
    run.journal.limit = 3_000
    for number in range(30):
        run.add(made(f"more {number}", tokens=300))
        if number % 7 == 0:
            index.update()
    index.update()
    rows = index.ask("SELECT id, n, size, seed FROM attempts ORDER BY n")
    assert [row["id"] for row in rows] == list(run.trajectories)
    assert [index.body(row["n"], row["size"], row["seed"]) for row in rows] == list(run.trajectories.values())
    assert len(run.journal.paths()) > 3
    run.close()
    index.close()


def test_an_older_version_does_not_take_the_first_file_for_all(tmp_path):
    """It refuses kinds of lines that it does not know, and a closed file ends with one."""
    folder = large(tmp_path / "run")
    kinds = [json.loads(line)["kind"] for line in (folder / JOURNAL).read_bytes().splitlines()]
    assert kinds[-1] not in ("run", "fact", "trajectory") and set(kinds[:-1]) == {"run", "trajectory"}
