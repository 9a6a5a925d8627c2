"""A memory without a run: its list, map and entries; and what takes long is said to be made while it is."""

import sqlite3
import threading

import pytest
from lived import Page, lived, twin
from starlette.testclient import TestClient
from test_server import SAME, SAYS, client
from test_terminal import drive

from agentevolve.memory import HashEmbedder, open_memory
from agentevolve.memory.folder import JOURNAL
from agentevolve.memory.forget import forget
from agentevolve.records import Entry
from agentevolve.run.folder import VIEW
from agentevolve.view import server
from agentevolve.view.places import Places
from agentevolve.view.security import Guard, hosts

KINDS = ("insight", "workflow")
ADDRESSES = ["/", "/runs/mem/memory", "/runs/mem/memory?text=lamp", "/runs/mem/map", "/runs/mem/map?x=300&y=200&zoom=2"]
ADDRESSES += ["/runs/mem/entry?id=a1", "/runs/mem/memory?near=lamp"]


def entry(n: int) -> Entry:
    return Entry(id=f"a{n}", kind=KINDS[n % 2], key=f"lamp {n}", text=f"says {n}{SAYS}", env="e", round=n % 3)


@pytest.fixture
def place(tmp_path):
    """A memory of twelve entries that say hostile things."""
    with open_memory(tmp_path / "mem", embedder=HashEmbedder()) as memory:
        memory.add([entry(n) for n in range(12)])
        memory.search("lamp", 1)
        memory.retire("a2", 2, "old")
    return tmp_path / "mem"


@pytest.mark.parametrize("below", [True, False])
def test_its_pages_are_there_and_no_others(place, below):
    asked = client(place.parent if below else place)
    for address in ADDRESSES:
        answer, told = asked.get(address), asked.get(twin(address))
        assert (answer.status_code, told.status_code) == (200, 200) and Page(answer.text).wrong == []
        assert "Attempts</a>" not in answer.text and "Policies</a>" not in answer.text and "uses</th>" not in answer.text
    [one] = asked.get("/index.json").json()["memories"]
    assert (one["name"], one["entries"], one["model"], one["state"]) == ("mem", 12, "hash-64", "at rest")
    assert {state["value"]: state["count"] for state in one["states"]} == {"retired": 1, "there": 11}
    assert asked.get("/runs/mem").headers["location"] == "/runs/mem/memory"
    assert "12 entries on the map" in asked.get("/runs/mem/map").text and "Shown to" not in asked.get(ADDRESSES[5]).text


def test_it_is_edited(place):
    asked, one = client(place, edit=True), {"id": "a1", "seed": "0"}
    assert asked.post("/runs/mem/quarantine", data=one | {"why": "wrong"}, headers=SAME).status_code == 303
    assert asked.post("/runs/mem/annotate", data=one | {"note": "mine"}, headers=SAME).status_code == 303
    told = asked.get("/runs/mem/entry.json?id=a1").json()["row"]
    assert (told["state"], told["note"]) == ("quarantined", "mine")


def test_links_out_of_the_folder_are_not_followed(place, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (place / JOURNAL).rename(tmp_path / "elsewhere" / JOURNAL)
    (place / JOURNAL).symlink_to(tmp_path / "elsewhere" / JOURNAL)
    asked = client(place)
    assert "leads out of" in asked.get("/runs/mem/memory.json").json()["error"]
    assert "leads out of" in asked.get("/index.json").json()["memories"][0]["error"]


def test_the_memory_of_a_run_can_be_looked_at_alone_and_forgotten(tmp_path):
    lived(tmp_path / "mine")
    asked = client(tmp_path / "mine" / "memory")
    assert asked.get("/runs/memory/memory.json").json()["count"] == 4
    assert (tmp_path / "mine" / "memory" / VIEW).is_file()
    forget(tmp_path / "mine", id="rule")
    assert not (tmp_path / "mine" / "memory" / VIEW).exists()


def test_in_the_terminal(place, tmp_path):
    drive(place, ("", "12 entries; the oldest first.", "a11"), ("enter", "Found by"), ("u", "12 entries"))
    lived(tmp_path / "mine")
    drive(tmp_path, ("", "1 run, 1 memory at or below", "12 entries"), ("j enter", "12 entries; the oldest first."))


def test_what_takes_long_is_said_to_be_made(place):
    """The memory and its map are read while another viewer writes in the index, so that what is read has to wait."""
    inspector = server.Inspector(Places(place), edit=True, patience=0.05)
    inspector.pages.places.index("mem")  # makes the index
    other = sqlite3.connect(place / VIEW, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    asked = TestClient(Guard(inspector.app(), hosts("localhost", 8265, "")), base_url="http://localhost:8265")

    def until(address, told):
        for _ in range(600):
            answer = asked.get(address)
            if told(answer):
                return answer
            threading.Event().wait(0.05)
        raise AssertionError(answer.text)

    for address in ADDRESSES[1:]:
        answer = asked.get(address)
        assert answer.status_code == 202 and "the first look takes a moment" in answer.text and Page(answer.text).wrong == []
        assert "data-hx-sse:connect" in answer.text and asked.get(twin(address)).json() == {"state": "the memory is being read"}
    assert "being read" in asked.get("/").text and asked.get("/runs/mem/map.svg").status_code == 503
    since = inspector.pages.grown("mem")
    other.execute("ROLLBACK")
    until("/runs/mem/memory", lambda answer: answer.status_code == 200)
    until("/runs/mem/map", lambda answer: "12 entries on the map" in answer.text)
    assert inspector.pages.grown("mem") != since  # so that who looks at a page is told
    other.execute("BEGIN IMMEDIATE")
    with open_memory(place, embedder=HashEmbedder()) as memory:
        memory.add([Entry(id="new", kind="insight", key="lamp new", text="new", env="e")])
        memory.search("lamp", 1)
    page = asked.get("/runs/mem/memory")
    assert page.status_code == 200 and "has changed and is being read" in page.text and "12 entries;" in page.text
    assert "data-hx-sse:connect" in page.text and asked.get("/runs/mem/memory.json").json()["making"]
    said = asked.get("/runs/mem/map").text
    assert "12 entries on the map" in said and "is being" in said
    other.execute("ROLLBACK")
    until("/runs/mem/memory", lambda answer: "13 entries;" in answer.text and "is being read" not in answer.text)
    until("/runs/mem/map", lambda answer: "13 entries on the map" in answer.text and "is being made" not in answer.text)
    other.close()
