"""The page of a comparison: the terminal's figures, whatever methods are called, and of one under way what is there."""

import html
import json
import re
import shutil
import sys

import pytest
from lived import Page, twin
from starlette.testclient import TestClient
from test_terminal import drive
from worlds import task_file

from agentevolve.act.rollout import rollout
from agentevolve.cli.compare import compared
from agentevolve.cli.main import main
from agentevolve.config import Comparison
from agentevolve.evaluate.scoreboard import cells, columns
from agentevolve.refine import demos
from agentevolve.run.folder import JOURNAL
from agentevolve.update import remember
from agentevolve.view import comparisons, file
from agentevolve.view.security import hosts
from agentevolve.view.server import guarded

HOST = "127.0.0.1:8265"
HOSTILE = "\"'><img src=x onerror=alert(1)> {{ 7*7 }} \u202eturned\u2066 \u200b"


def patient(policy, tasks, run, *, samples: int = 1):
    """Attempts, and demos of what succeeded, all of them recalled."""
    attempts = rollout(policy, tasks, run, phase=f"{run.round}/acquire", samples=samples)
    return remember(policy, demos(attempts, run.round), run).using(
        recall=policy.recall.model_copy(update={"whole": ("demo",), "nearest": {}})
    )


def asking(place):
    app = guarded(place, hosts("127.0.0.1", 8265, ""), "")
    return TestClient(app, base_url=f"http://{HOST}", follow_redirects=False)


def made(path, **changes) -> Comparison:
    values = {
        "tasks": str(path),
        "model": "random",
        "workers": 2,
        "methods": [f"test_comparisons:{HOSTILE}", {"method": "test_comparisons:patient", "settings": {"samples": 2}}],
        "rounds": 2,
        "seeds": [0, 1],
        "train": {"tasks": 3},
        "held": {"tasks": 4, "samples": 2},
        "budget": {"episodes": 100},
        "recall": {"nearest": {}},
    }
    return Comparison.model_validate(values | changes)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """A finished comparison with a guard, and what the terminal said of it."""
    place = tmp_path_factory.mktemp("compared")
    there = sys.modules.get("test_comparisons")
    sys.modules["test_comparisons"] = sys.modules[__name__]
    setattr(sys.modules[__name__], HOSTILE, patient)
    guard = task_file(place / "tasks", "another", length=1)
    config = made(task_file(place / "tasks", length=2), guard=str(guard))
    try:
        yield place / "runs" / "mine", compared(config, place / "runs" / "mine", False, True)
    finally:
        sys.modules["test_comparisons"] = there or sys.modules[__name__]


@pytest.fixture
def copy(comparison, tmp_path):
    return shutil.copytree(comparison[0], tmp_path / "runs" / "mine")


def cells_of(page: str) -> list[str]:
    """What the tables' cells say."""
    found = re.findall(r"<t[dh][^>]*><bdi>(.*?)</bdi></t[dh]>", page)
    return [html.unescape(one) for one in found]


def test_the_page_says_what_the_terminal_says(comparison):
    place, told = comparison
    asked = asking(place.parent)
    page, values = asked.get("/comparisons/mine").text, asked.get("/comparisons/mine.json").json()
    shown = columns(told.rows)
    said = [cell for row in told.rows if row.difference for cell in cells(row, shown)[1:]]
    assert "guard" in shown and "p (Holm)" in shown and "learning tokens" in shown
    assert set(said) <= set(cells_of(page))
    for table in ("standings", "costs", "forgotten"):
        [found] = [one[table] for one in values["sets"]]
        rows = told.rows if table == "standings" else [row for row in told.rows if row.difference]
        assert found["rows"] == [cells(row, found["headings"]) for row in rows]
    assert values["cannot_be_concluded"] == told.caveats and values["so_far"] == []
    results = json.loads((place / "results.json").read_text())
    assert alike(values["standings"], results["standings"])


def alike(one, other) -> bool:
    """Whether two JSON values are the same, but for what adding up in another order changes."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return one == pytest.approx(other, rel=1e-9) if isinstance(one, float) else one == other


def test_a_method_s_name_stays_text(comparison):
    asked = asking(comparison[0].parent)
    for address in ("/", "/comparisons/mine"):
        answer = asked.get(address)
        assert answer.status_code == 200 and Page(answer.text).wrong == []
        assert "{{ 7*7 }}" in answer.text and "⟨U+202E⟩" in answer.text and "&lt;img" in answer.text
        assert "\u202e" not in asked.get(twin(address)).text


def test_the_curves_are_drawn_and_the_methods_lead_to_their_runs(comparison):
    asked = asking(comparison[0].parent)
    picture = asked.get("/comparisons/mine/curves.svg")
    assert picture.headers["content-type"] == "image/svg+xml" and b"<svg" in picture.content
    assert "no round fitted" not in picture.text
    page = asked.get("/comparisons/mine").text
    runs = re.findall(r'href="(/runs/[^"]+)"', page)
    assert len(runs) == 6 and {asked.get(html.unescape(run)).status_code for run in runs} == {200}
    assert 'of the comparison <a href="/comparisons/mine">' in asked.get(html.unescape(runs[0])).text
    told = asked.get(twin(html.unescape(runs[-1]))).json()
    assert (told["of"], [one["rounds"] for one in told["seeds"]]) == ("mine", [2])
    first = asked.get("/index.json").json()
    assert first["runs"] == [] and [(one["name"], one["begun"], one["all"]) for one in first["comparisons"]] == [("mine", 6, 6)]


def test_the_folder_itself_and_a_task_set_of_it_can_be_given(comparison):
    place = comparison[0]
    assert [one["name"] for one in asking(place).get("/index.json").json()["comparisons"]] == ["mine"]
    assert asking(place).get("/comparisons/mine").status_code == 200
    inside = asking(place / "corridor").get("/index.json").json()
    assert inside["comparisons"] == [] and len(inside["runs"]) == 6


@pytest.mark.parametrize(
    ("gone", "said", "methods"),
    [
        ("corridor/seed-1/patient", "of 2 of the 2 methods with 1 of the 2 seeds", 2),
        ("corridor/seed-1", "of 2 of the 2 methods with 1 of the 2 seeds", 2),
        ("corridor", "", 0),
    ],
)
def test_one_under_way_shows_what_is_through(copy, gone, said, methods):
    shutil.rmtree(copy / gone)
    answer = asking(copy.parent).get("/comparisons/mine")
    values = asking(copy.parent).get("/comparisons/mine.json").json()
    assert answer.status_code == 200 and Page(answer.text).wrong == []
    assert sum(bool(row["difference"]) for row in values["standings"]) == methods
    assert said in answer.text if said else "Nothing can be held against each other yet" in answer.text


def test_a_run_that_has_not_ended_does_not_count(copy):
    journal = copy / "corridor" / "seed-0" / "patient" / JOURNAL
    asked = asking(copy.parent)
    whole = asked.get("/comparisons/mine.json").json()
    lines = journal.read_bytes().splitlines(keepends=True)
    for share in (0.9, 0.5):
        journal.write_bytes(b"".join(lines[: int(share * len(lines))]))
        values = asked.get("/comparisons/mine.json").json()
        assert values["so_far"] == [
            "So far the standings at corridor are of 2 of the 2 methods with 1 of the 2 seeds: the others are not through."
        ]
    journal.write_bytes(b"".join(lines))
    assert asked.get("/comparisons/mine.json").json()["standings"] == whole["standings"]


def test_only_the_run_that_was_written_in_is_read_again(copy, monkeypatch):
    read, reads = comparisons.read_run, []
    monkeypatch.setattr(comparisons, "read_run", lambda place: (reads.append(place.name), read(place))[1])
    asked = asking(copy.parent)
    asked.get("/comparisons/mine")
    asked.get("/comparisons/mine.json")
    assert len(reads) == 6
    journal = copy / "corridor" / "seed-1" / "patient" / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-1])
    asked.get("/comparisons/mine")
    assert reads[6:] == ["patient"]


@pytest.mark.parametrize("damaged", ["comparison.yaml", f"corridor/seed-0/patient/{JOURNAL}"])
def test_a_damaged_comparison_is_one_line(copy, damaged):
    (copy / damaged).write_bytes(b"{[<script>\n" * 3)
    asked = asking(copy.parent)
    answer, told = asked.get("/comparisons/mine"), asked.get("/comparisons/mine.json")
    assert (answer.status_code, told.status_code) == (404, 404) and Page(answer.text).wrong == []
    assert damaged in told.json()["error"] and "\n" not in told.json()["error"]
    assert asked.get("/").status_code == 200
    if damaged == "comparison.yaml":
        [one] = asked.get("/index.json").json()["comparisons"]
        assert damaged in one["error"] and "\n" not in one["error"]


def test_nothing_outside_is_read(copy, tmp_path):
    (tmp_path / "elsewhere.yaml").write_bytes((copy / "comparison.yaml").read_bytes())
    (copy / "comparison.yaml").unlink()
    (copy / "comparison.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    answer = asking(copy.parent).get("/comparisons/mine.json")
    assert answer.status_code == 404 and "leads out of" in answer.json()["error"]
    assert asking(copy.parent).get("/comparisons/none").status_code == 404
    [one] = asking(copy.parent).get("/index.json").json()["comparisons"]
    assert "leads out of" in one["error"]


def test_it_is_one_file(comparison, tmp_path, monkeypatch, capsys):
    place, told = comparison
    text = file.html(place)
    page = Page(text)
    assert page.wrong == [] and "script" not in page.tags and "form" not in page.tags
    assert "default-src 'none'" in text and "data:image/svg+xml;base64," in text and len(text.encode()) < 5_000_000
    assert 'href="/' not in text and 'src="/' not in text and "http" not in text.partition("<main>")[0].replace("http-equiv", "")
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(re.findall(r'id="([^"]+)"', text))
    said = [cell for row in told.rows if row.difference for cell in cells(row, columns(told.rows))[1:]]
    assert set(said) <= set(cells_of(text)) and all(html.escape(line, quote=False)[:40] in text for line in told.caveats[:2])
    monkeypatch.setattr(sys, "argv", ["agentevolve", "report", str(place), "--html", str(tmp_path / "c.html")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and capsys.readouterr().out == f"{tmp_path / 'c.html'}\n"
    assert (tmp_path / "c.html").read_text("utf-8") == text


def test_one_under_way_is_one_file_too(copy):
    shutil.rmtree(copy / "corridor")
    text = file.html(copy)
    assert Page(text).wrong == [] and "Nothing can be held against each other yet" in text and "None was begun." in text


def test_it_is_looked_at_in_the_terminal(comparison):
    place, told = comparison
    row = next(row for row in told.rows if row.method == "patient")
    [success] = cells(row, ["success %"])
    wide = (220, 60)
    text = drive(
        place.parent,
        ("", "2 methods against no learning", "task set", "success %", success, "patient", "{{ 7*7 }}"),
        ("", "What cannot be concluded", "methods are not tested against each other"),
        size=wide,
    )
    assert "\u202e" not in text and "⟨U+202E⟩" in text
    steps = [("j j j j enter", "patient", "Round by round", "learning tokens", "Its runs, below:", "corridor", "at rest")]
    drive(place.parent, ("", "2 methods"), *steps, ("enter", "How far it is"), size=wide)


def test_one_under_way_is_looked_at_in_the_terminal(copy):
    shutil.rmtree(copy / "corridor" / "seed-1")
    shutil.rmtree(copy / "corridor" / "seed-0" / "controls")
    steps = [
        ("", "Nothing can be held against each other yet", "not through"),
        ("enter", "It is not through yet.", "does not count yet"),
    ]
    drive(copy, *steps, size=(220, 60))
