"""What a user has set aside is shown and never recalled until it is restored; what a user notes is nobody else's to read."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner
from worlds import new_run

from agentevolve.cli.main import app
from agentevolve.memory import HashEmbedder, open_memory, read_ledger, read_memory
from agentevolve.memory.audit import audit
from agentevolve.memory.folder import JOURNAL
from agentevolve.memory.forget import forget
from agentevolve.memory.ledger import NOTE
from agentevolve.memory.lineage import changes
from agentevolve.memory.move import take_in, write_entries
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry

TOKEN = "sk-" + "ant-api03-" + "a1B2" * 20


def entry(id: str, text: str = "", **more) -> Entry:
    return Entry(**{"id": id, "kind": "insight", "key": id, "text": text or f"says {id}", "env": "e", "round": 1} | more)


@pytest.fixture
def folder(tmp_path) -> Path:
    """The memory of a run: a, which b says again, and c; a was set aside in round 3."""
    run = new_run(tmp_path / "r")
    run.once("a", lambda: "fact")
    run.close()
    with open_memory(tmp_path / "r" / "memory", embedder=HashEmbedder()) as memory:
        memory.add([entry("a", sources=("1/x/0",)), entry("c"), entry("b", "says a", sources=("2/x/0",), round=2)])
        memory.quarantine("b", 3, "it does harm")  # by the id of what says the same
    return tmp_path / "r" / "memory"


def recalled(memory, as_of: int | None = None) -> list[str]:
    return sorted(one.id for one, _ in memory.recall("a", env="e", k=9, kind="insight", as_of=as_of))


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]


def test_it_is_shown_and_not_recalled_until_it_is_restored(folder):
    with open_memory(folder) as memory:
        assert (recalled(memory), [one.id for one, _ in memory.search("says a", 9)]) == (["c"], ["c"])
        assert [one.id for one in memory.entries()] == ["c"] and memory.get("a").sources == ("1/x/0", "2/x/0")
        assert [recalled(memory, number) for number in (1, 2, 3, 4)] == [["a", "c"], ["a", "c"], ["c"], ["c"]]
        memory.add([entry("d", "says a", sources=("4/x/0",), round=4)])  # what it says does not come in by another door
        assert recalled(memory) == ["c"] and memory.stats()["quarantined"] == 1
        assert memory.restore("a", 5) == "a"
        with pytest.raises(AgentevolveError, match="no such entry was retired or is in quarantine"):
            memory.restore("a", 5)
        assert [recalled(memory, number) for number in (2, 3, 4, 5, None)] == [["a", "c"], ["c"], ["c"], ["a", "c"], ["a", "c"]]
    with read_memory(folder) as reader:  # from what was vouched for
        assert [recalled(reader, number) for number in (2, 3, 4, 5, None)] == [["a", "c"], ["c"], ["c"], ["a", "c"], ["a", "c"]]
        assert reader.get("a").sources == ("1/x/0", "2/x/0", "4/x/0")


def test_what_lets_it_out_must_be_signed(folder):
    with (folder / JOURNAL).open("a") as journal:
        journal.write(json.dumps({"op": "release", "id": "a", "round": 3}) + "\n")
        journal.write(json.dumps({"op": "annotate", "id": "a", "text": "it is harmless", "signed": "0" * 64}) + "\n")
    with open_memory(folder) as memory:
        assert recalled(memory) == ["c"]
    ledger = read_ledger(folder)
    assert ledger.state("a") == "quarantined" and ledger.annotation("a") == ""


def test_a_planted_entry_of_its_id_lets_it_not_out(folder):
    whole = (folder / JOURNAL).read_bytes()
    planted = {"op": "add", "entry": entry("a", "planted").model_dump(mode="json")}
    (folder / JOURNAL).write_bytes(json.dumps(planted).encode() + b"\n" + whole)
    ledger = read_ledger(folder)
    assert ledger.state("a") == "quarantined" and [one.id for one in ledger.entries()] == ["c"] and len(ledger.aside()) == 1


def test_a_note_is_kept_hidden_of_secrets_and_nowhere_else(folder, tmp_path):
    with open_memory(folder) as memory:
        memory.annotate("b", f"the heron told me: {TOKEN}")
        memory.annotate("c", "first")
        memory.annotate("c", "second")
        memory.restore("a", 4)
        assert "heron" not in repr(memory.recall("heron", env="e", k=9, kind="insight")) and "heron" not in repr(memory.entries())
        assert memory.search("heron", 9)[0][1] < 0.99
        for text in ("x" * (NOTE + 1),):
            with pytest.raises(AgentevolveError, match="a note is longer than 2,000 characters"):
                memory.annotate("a", text)
        with pytest.raises(AgentevolveError, match="no such entry"):
            memory.annotate("none", "x")
        write_entries(folder, tmp_path / "out.jsonl")
    assert "heron" not in (tmp_path / "out.jsonl").read_text() and TOKEN not in (folder / JOURNAL).read_text()
    ledger = read_ledger(folder)
    assert ledger.annotation("a") == ledger.annotation("b") != "" and ledger.annotation("c") == "second"
    with open_memory(folder) as memory:
        memory.annotate("c", "")
    assert read_ledger(folder).annotation("c") == ""


def test_what_is_set_aside_is_not_taken_elsewhere(folder, tmp_path):
    assert write_entries(folder, tmp_path / "out.jsonl") == 1
    for source in (folder, tmp_path / "out.jsonl"):
        with open_memory(tmp_path / "n" / source.stem, embedder=HashEmbedder()) as other:
            take_in(other, source)
            assert [one.id for one in other.entries()] == ["c"]
    with open_memory(folder) as memory:
        memory.restore("a", 3)
        memory.annotate("a", "mine")
        memory.note({"c": 0.5}, 3)
    with open_memory(tmp_path / "again", embedder=HashEmbedder()) as other:
        take_in(other, folder)
        assert [(one.id, one.sources) for one in other.entries()] == [("a", ("1/x/0", "2/x/0")), ("c", ())]
        assert read_ledger(other.folder).annotation("a") == ""


def test_what_says_the_same_as_a_retired_one_is_not_taken_elsewhere_either(folder, tmp_path):
    with open_memory(folder) as memory:
        memory.restore("a", 3)
        memory.retire("a", 4, "wrong")
    with open_memory(tmp_path / "n", embedder=HashEmbedder()) as other:
        take_in(other, folder)
        assert [one.id for one in other.entries()] == ["c"]


def test_it_and_its_notes_are_forgotten(folder):
    with open_memory(folder) as memory:
        memory.annotate("a", "the heron sleeps at noon")
    forget(folder.parent, id="a")
    assert not [path for path in folder.parent.rglob("*") if path.is_file() and b"heron" in path.read_bytes()]
    assert b"it does harm" not in (folder / JOURNAL).read_bytes()
    with open_memory(folder) as memory:  # b says what a did, and is recalled no more than a was
        assert memory.get("b").text == "says a" and recalled(memory) == ["c"] and recalled(memory, 2) == ["b", "c"]
        memory.annotate("a", "nothing is kept of what is forgotten")
        memory.quarantine("a", 5, "nor here")
        assert memory.restore("b", 5) == "b" and recalled(memory) == ["b", "c"]
    assert b"nothing is kept" not in (folder / JOURNAL).read_bytes()


def test_the_terminal_tells_of_it(folder):
    with open_memory(folder) as memory:
        memory.annotate("a", "ask Ann")

    def asked(*words: str) -> str:
        done = CliRunner().invoke(app, ["memory", *words], env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        return done.output

    told = json.loads(asked("show", str(folder), "a", "--json"))
    assert (told["in quarantine"], told["note"]) == ("since round 3: it does harm", "ask Ann")
    assert "ask Ann" in asked("show", str(folder), "b") and "note" not in asked("show", str(folder), "c")
    assert "in quarantine since round 3" in asked("audit", str(folder)) and '"quarantined": 1' in asked(
        "stats", str(folder), "--json"
    )
    ledger = read_ledger(folder)
    assert [(one.id, one.what, one.round, one.why) for one in changes(ledger, 2, 3)] == [("a", "quarantined", 3, "it does harm")]
    assert [one.what for one in audit(ledger) if one.id == "a"] == ["in quarantine since round 3"]
    with open_memory(folder) as memory:
        memory.restore("a", 6)
    assert [(one.id, one.what, one.round) for one in changes(read_ledger(folder), 3, 6)] == [("a", "restored", 6)]


@pytest.mark.parametrize("more", [{"round": "x"}, {"id": "none", "round": 1, "why": ""}])
def test_a_damaged_line_is_named(folder, more):
    with (folder / JOURNAL).open("a") as journal:
        journal.write(json.dumps({"op": "quarantine", "id": "a"} | more) + "\n")
    with pytest.raises(AgentevolveError, match=f"{JOURNAL}:5: not a line of a memory"):
        read_ledger(folder)
    assert len(lines(folder)) == 5
