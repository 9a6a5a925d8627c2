"""The one file says what the terminal says, asks for nothing, and stays small; the Markdown is a table for a pull request."""

import hashlib
import re
from collections import Counter

import pytest
from lived import Page, lived
from worlds import make_tasks

from agentevolve.act.rollout import rollout
from agentevolve.cli.main import main
from agentevolve.evaluate.table import grid
from agentevolve.loop.reports import reports
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError
from agentevolve.run.folder import Run, read_run, seeds
from agentevolve.view import file
from agentevolve.view.templates import STATIC


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return lived(tmp_path_factory.mktemp("runs") / "mine", " <script>x</script> \u202e http://evil.example/")


@pytest.fixture(scope="module")
def told(run):
    return reports(run, [read_run(folder) for folder in seeds(run)])


def test_it_shows_the_terminal_s_figures(run, told):
    text = file.html(run)
    for found in told.tables.values():
        headings, rows = grid(found)
        cells = re.findall(r"<t[hd][^>]*><bdi>([^<]*)</bdi></t[hd]>", text)
        wanted = [cell for row in rows for cell in row]
        assert not Counter(wanted) - Counter(cells) and set(headings) <= set(cells)
    for line in told.verdicts:
        assert line.partition("<script>")[0].strip() in text


def test_it_asks_for_nothing_and_runs_nothing(run):
    text = file.html(run)
    page = Page(text)
    assert page.wrong == [] and "script" not in page.tags and "form" not in page.tags
    assert "default-src 'none'" in text and "http-equiv" in text
    asked = re.findall(r"""(?:href|src|action|url)\s*[=(]\s*["']?([^"'\s>)]*)""", text)
    assert all(one.startswith(("#", "data:")) for one in asked)
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(re.findall(r'id="([^"]+)"', text))
    assert text.count('<details class="body"') == 11 and "11 attempts. 11 can be opened here." in text


def test_what_has_no_room_is_counted(run, monkeypatch):
    monkeypatch.setattr(file, "LISTED", 6)
    monkeypatch.setattr(file, "LARGEST", 12_000)
    text = file.html(run)
    opened = text.count('<details class="body"')
    assert 0 < opened < 6
    assert "11 attempts. 6 of them are listed, those measured last first; 5 are not in this file." in text
    assert f"{opened} can be opened here; of {6 - opened} there are the figures alone" in text


def test_a_thousand_attempts_stay_under_five_megabytes(tmp_path):
    run = Run(tmp_path / "r", quiet=True)
    [one] = rollout(Policy(model="oracle"), make_tasks(1, length=10), run, phase="1/acquire")
    turns = tuple(turn.model_copy(update={"observation": f"{turn.observation} " * 40}) for turn in one.turns)
    for number in range(1_100):
        run.add(one.model_copy(update={"id": f"1/acquire/x/{number}", "turns": turns, "sample": number}))
    run.close()
    text = file.html(tmp_path / "r")
    assert len(text.encode()) < 5_000_000 and "are not in this file" in text and "there are the figures alone" in text


def test_markdown_is_the_same_table(run, told, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["agentevolve", "report", str(run), "--md"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().out
    assert ended.value.code == 0 and said == file.markdown(told)
    lines = said.splitlines()
    assert lines[0] == "### mine" and "| --- |" in said and "\\<script\\>" in said
    headings, rows = grid(told.tables["1/val"])
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == len(rows) + 2 and table[0].count("|") == len(headings) + 1


def test_it_is_written_by_the_command(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["agentevolve", "report", str(run), "--html", str(tmp_path / "r.html")])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().out == f"{tmp_path / 'r.html'}\n"
    assert (tmp_path / "r.html").read_text("utf-8").startswith("<!doctype html>")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(AgentevolveError, match="no run or memory in it or below"):
        file.html(tmp_path)


def test_what_others_have_written_is_shipped_unchanged_and_with_its_licence():
    named = [line.split() for line in (STATIC / "SOURCES.txt").read_text("utf-8").splitlines() if line.endswith(".js")]
    assert {name for _, name in named} == {path.name for path in STATIC.glob("*.js")} - {"keys.js"}
    for digest, name in named:
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest
    assert "Zero-Clause BSD" in (STATIC / "htmx.LICENSE.txt").read_text("utf-8")
    assert len((STATIC / "keys.js").read_text("utf-8").splitlines()) <= 100
    assert sum(path.stat().st_size for path in STATIC.iterdir()) < 1_500_000
