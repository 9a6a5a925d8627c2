"""What `--edit` lets a user do to an entry: put it in quarantine, restore it, note something on it."""

import shutil

import pytest
from lived import Page, lived
from test_server import SAME, SAYS, client

from agentevolve.memory import HashEmbedder, open_memory, read_ledger
from agentevolve.memory.folder import JOURNAL
from agentevolve.memory.forget import forget
from agentevolve.memory.ledger import NOTE

RULE = {"id": "rule", "seed": "0"}
TOKEN = "sk-" + "ant-api03-" + "a1B2" * 20


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return lived(tmp_path_factory.mktemp("runs") / "mine")


@pytest.fixture
def place(run, tmp_path):
    return shutil.copytree(run, tmp_path / "mine")


def test_an_entry_is_put_in_quarantine_and_restored(place):
    assert client(place).post("/runs/mine/quarantine", headers=SAME).status_code in (404, 405)
    asked = client(place, edit=True)
    assert asked.post("/runs/mine/quarantine", data=RULE).status_code == 403
    answer = asked.post("/runs/mine/quarantine", data=RULE | {"why": f"wrong {SAYS}"[:500]}, headers=SAME)
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs/mine/entry?id=rule&seed=0")
    page = asked.get("/runs/mine/entry?id=rule").text
    assert "in quarantine since round 1: <bdi>wrong " in page and 'action="/runs/mine/restore"' in page and not Page(page).wrong
    assert 'action="/runs/mine/quarantine"' not in page and 'action="/runs/mine/retire"' not in page
    told = asked.get("/runs/mine/memory.json?state=quarantined").json()
    assert [one["id"] for one in told["rows"]] == ["rule"] and told["said"].startswith("1 entry that is in quarantine;")
    with open_memory(place / "memory") as memory:
        assert memory.entries(kind="insight") == []
    answer = asked.post("/runs/mine/restore", data=RULE, headers=SAME)
    assert answer.headers["location"] == "/runs/mine/entry?id=rule&seed=0"
    assert asked.get("/runs/mine/entry.json?id=rule").json()["row"]["state"] == "there"
    assert asked.post("/runs/mine/restore", data=RULE, headers=SAME).status_code == 404


def test_a_note_is_shown_to_the_user_alone(place):
    asked, note = client(place, edit=True), f"first line\r\nand {TOKEN} {SAYS}"
    assert asked.post("/runs/mine/annotate", data=RULE | {"note": note}).status_code == 403
    assert asked.post("/runs/mine/annotate", data=RULE | {"note": note}, headers=SAME).status_code == 303
    kept = read_ledger(place / "memory").annotation("rule")
    assert kept.startswith("first line\nand ") and TOKEN not in (place / "memory" / JOURNAL).read_text()
    for address in ("/runs/mine/entry?id=rule", "/runs/mine/memory?kind=insight"):
        for one in (asked, client(place)):
            page = one.get(address).text
            assert "first line" in page and "⟨U+202E⟩turned" in page and not Page(page).wrong
    assert asked.get("/runs/mine/memory.json?kind=insight").json()["rows"][0]["note"] == kept
    assert asked.get("/runs/mine/memory.json?text=first line").json()["count"] == 0  # what is found are the entries' own words
    with open_memory(place / "memory", embedder=HashEmbedder()) as memory:
        memory.search("lamp", 1)
        assert "first line" not in repr(memory.recall("first line", env="e", k=3, kind="insight"))
    assert "first line" in asked.get("/runs/mine/map?x=300&y=200").text
    asked.post("/runs/mine/annotate", data=RULE | {"note": " "}, headers=SAME)
    assert asked.get("/runs/mine/entry.json?id=rule").json()["row"]["note"] == ""
    forget(place, id="rule")
    assert not [path for path in place.rglob("*") if path.is_file() and b"first line" in path.read_bytes()]


def test_a_note_that_is_too_long_is_refused(place):
    asked = client(place, edit=True)
    for note in ("x" * (NOTE + 1), "😀" * 30_000):
        answer = asked.post("/runs/mine/annotate", data=RULE | {"note": note}, headers=SAME)
        assert answer.status_code == 404 and 'role="alert"' in answer.text and "Traceback" not in answer.text
    assert asked.post("/runs/mine/annotate", data=RULE | {"note": "😀" * NOTE}, headers=SAME).status_code == 303
    assert read_ledger(place / "memory").annotation("rule") == "😀" * NOTE
    assert asked.post("/runs/mine/annotate", data={"id": "none", "note": "x"}, headers=SAME).status_code == 404
    with open_memory(place / "memory"):
        assert "in use" in asked.post("/runs/mine/annotate", data=RULE | {"note": "x"}, headers=SAME).text
