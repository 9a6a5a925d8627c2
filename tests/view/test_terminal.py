"""The inspector in the terminal, driven by its keys alone: every screen opened, filtered, replayed, compared; all as text."""

import asyncio
import html
import json
import os
import random
import re
import select
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from lived import lived
from typer.testing import CliRunner

from agentevolve.cli.main import app as command
from agentevolve.protocols import AgentevolveError
from agentevolve.run.folder import JOURNAL, VIEW, read_run
from agentevolve.run.lock import LOCK
from agentevolve.update import examples
from agentevolve.view.pages import Pages
from agentevolve.view.places import Places
from agentevolve.view.terminal import show, words
from agentevolve.view.terminal.app import Inspector

sys.path.insert(0, str(Path(__file__).parents[1] / "memory"))
import hostile
from test_memory_forget import adapter

SAYS = " [red]x[/red] [@click=app.quit]y[/] [bold \\[z] [/] \u202eturned\u2066 \x1b[31mred\x1b]8;;http://evil.example\x07 \u200b"
AS_TEXT = (
    "[red]x[/red]",
    "[@click=app.quit]y[/]",
    "[bold \\[z]",
    "⟨U+202E⟩turned⟨U+2066⟩",
    "⟨U+001B⟩[31mred⟨U+001B⟩]8;;http://evil.example⟨U+0007⟩",
    "⟨U+200B⟩",
)
NAMED = {"[": "left_square_bracket", "]": "right_square_bracket", "/": "slash", "?": "question_mark"}
WAIT = 30.0  # seconds that a machine with other work may need
PIECE = re.compile(r'<text class="[^"]*" x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>')


def seen(app):
    """What is on the screen, as lines."""
    rows = {}
    for x, y, text in PIECE.findall(app.export_screenshot()):
        rows.setdefault(float(y), []).append((float(x), html.unescape(text).replace("\xa0", " ")))
    return "\n".join("".join(f" {text}" for _, text in sorted(row)) for _, row in sorted(rows.items()))


async def until(app, pilot, told):
    """The screen once it shows all of these words, however its lines are broken."""
    flat = ""
    for _ in range(int(WAIT / 0.05)):
        await pilot.pause(0.05)
        text = seen(app)
        flat = " ".join(text.split())
        if all(" ".join(word.split()) in flat for word in told):
            return text
    raise AssertionError(f"{told} is not to be seen in {flat}")


def drive(place, *steps, size=(150, 60)):
    """Walk through the inspector: each step is the keys that are pressed and what is then to be seen; the last screen."""

    async def walk():
        app = Inspector(Pages(Places(place)))
        async with app.run_test(size=size, notifications=True) as pilot:
            text = await until(app, pilot, [""])
            for keys, *told in steps:
                await pilot.press(*(NAMED.get(key, key) for key in keys.split()))
                text = await until(app, pilot, told)
        app.pages.places.close()
        return text

    return asyncio.run(walk())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run and one that says hostile things."""
    root = tmp_path_factory.mktemp("runs")
    lived(root / "mine")
    lived(root / "odd", SAYS)
    return root


def test_every_screen_is_opened_by_keys(runs):
    text = drive(
        runs,
        ("", "2 runs at or below", "mine", "odd", "gate, round 1: promoted memory"),
        ("enter", "1/val", "100 [44, 100]", "├", "What was decided", "promoted memory", "which may be forgetting"),
        ("", "Lost attempts", "OSError: the ceiling came down", "What it cost", "evaluate"),
        ("a", "11 attempts; the first made first.", "1/acquire/corridor/train/0/0", "1/val/memory/corridor/val/102/0"),
        ("enter", "arm acquire, round 1", "Walk to the lamp.", "House rules"),
        ("u", "11 attempts"),
        ("u m", "4 entries; the oldest first.", "insight", "rule"),
        ("enter", "Found by", "Shown as", "came from", "1/acquire/corridor/train/0/0", "1/val/memory/corridor/val/100/0"),
        ("?", "mark an attempt"),
        ("escape u", "4 entries"),
        ("u u", "2 runs at or below"),
        ("u", "2 runs at or below"),
    )
    assert "mark an attempt" not in text


def test_policies_are_shown(runs, tmp_path):
    drive(runs / "mine", ("p", "0 adapters learnt in this run", "Nothing was learnt in weights.", "What is in place", "memory"))
    place = copied(runs, tmp_path)
    made = [one for one in read_run(place).trajectories.values() if one.solved and one.task.split == "train"]
    adapter(place / "adapters" / "round-1", examples(made))
    text = drive(
        place, ("p", "1 adapter learnt in this run", "round-1", "from the base", "loss 1.000 to 1.000"), ("u", "What was decided")
    )
    assert "round-1" not in text


def test_a_folder_that_is_a_run_begins_with_it(runs):
    drive(runs / "mine", ("", "What was decided"), ("u", "What was decided"), ("a", "11 attempts"))


def test_attempts_are_filtered(runs):
    drive(
        runs / "mine",
        ("a", "11 attempts"),
        ("f j enter", "1 attempt that was lost;", "✓ lost 1", "OSError: the ceiling came down"),
        ("enter", "11 attempts; the first made first."),
        ("escape / c e i l i n g enter", "1 attempt with the words “ceiling”;"),
        ("enter", "lost: OSError: the ceiling came down"),
        ("u / ctrl+u ? enter", "text: name a word to look for"),
        ("/ ctrl+u enter", "11 attempts; the first made first."),
        ("f j j j j enter", "attempts by the arm", "✓"),
    )


def test_lists_are_paged(runs, tmp_path):
    place = copied(runs, tmp_path)
    lines = (place / JOURNAL).read_bytes().splitlines(keepends=True)
    one = json.loads(next(line for line in lines if line.startswith(b'{"kind":"trajectory"')))
    told = [{**one, "data": {**one["data"], "id": f"1/more/{number}"}} for number in range(60)]
    more = [json.dumps(each, separators=(",", ":")) for each in told]
    (place / JOURNAL).write_bytes(b"".join(lines) + b"".join(line.encode() + b"\n" for line in more))
    text = drive(place, ("a", "71 attempts"), ("]", "1/more/59"), size=(150, 70))
    assert "1/acquire/corridor/train/0/0" not in text
    drive(place, ("a", "71 attempts"), ("] [", "1/acquire/corridor/train/0/0"), size=(150, 70))


def test_an_attempt_is_replayed_turn_by_turn(runs):
    drive(
        runs / "mine",
        ("a", "11 attempts"),
        ("j j j j j j j j enter", "1/val/memory/corridor/val/100/0", "2 recalled of", "Recalled attempts, as messages"),
        ("j", "Turn 1 of 3", "> left", "Admissible actions", "you stand at -1.", "reward 0.00"),
        ("j j j", "Turn 3 of 3", "reward 1.00"),
        ("k", "Turn 2 of 3"),
        ("[", "1/val/base/corridor/val/100/0", "Start"),
        ("]", "1/val/memory/corridor/val/100/0", "Start"),
        ("]", "1/val/memory/corridor/val/100/0"),
    )


def test_two_attempts_are_shown_side_by_side(runs):
    drive(
        runs / "mine",
        ("a", "11 attempts"),
        ("v", "marked: v on", "●"),
        ("v", "no longer marked"),
        ("v j j j enter", "1/broken/corridor/train/0/0"),
        ("v", "The same until turn 3", "≠ first: another action", "ended before", "1/acquire/corridor/train/0/0"),
        ("k", "Turn 2", "the same"),
        ("k k k", "Prompt, the same for both"),
        ("u", "1/broken/corridor/train/0/0", "Start"),
        ("u j j enter v", "marked"),
        ("] v", "They differ from the start: in what they were shown"),
    )


def test_a_narrow_screen_has_room_for_the_list(runs):
    drive(runs / "mine", ("", "100 [44, 100]", "├────", "+0 [-77, +77]"), size=(80, 24))
    text = drive(runs / "mine", ("a", "11 attempts", "1/val/memory/corridor/val/102/0", "reward", "q leave"), size=(80, 24))
    assert "corridor/train/0 2" not in text
    steps = ("a", "11 attempts"), ("f", "corridor/train/0 2"), ("j enter escape", "1 attempt that was lost;", "reward")
    assert "✓" not in drive(runs / "mine", *steps, size=(80, 24))


@pytest.mark.parametrize("seed", range(2))
def test_no_row_of_keys_ends_it(runs, seed):
    luck, keys = random.Random(seed), [*"jkumavf?/[]", "enter", "enter", "space", "escape", "escape", "tab", "backspace"]
    place, size = (runs, (150, 40)) if seed % 2 else (runs / "odd", (60, 12))
    drive(place, *((luck.choice(keys), "") for _ in range(100)), ("escape escape", "leave"), size=size)


def test_memory_is_searched(runs):
    drive(
        runs / "mine",
        ("m", "4 entries"),
        ("/ G o enter", "1 entry with the words “Go”;", "rule"),
        ("enter", "insight of round 1", "Go to the lamp.", "Shown to 0 attempts"),
        ("u / ctrl+u enter", "4 entries"),
        ("f j enter", "3 entries of the kind demo;"),
        ("escape enter", "demo of round 1", "shown to"),
        ("j enter", "1/val/memory/corridor/val/100/0", "Start"),
        ("u", "demo of round 1"),
    )


@pytest.mark.parametrize(
    "keys", ["m enter", "a enter", "a j j j j j j j j enter", "a j j j j j j j j enter j", "a v j j j j j enter v", ""]
)
def test_hostile_words_are_text(runs, keys):
    told = AS_TEXT if keys else ("2 different actions", *AS_TEXT)
    steps = [(key, "odd") for key in keys.split()]
    text = drive(runs / "odd", ("", "odd"), *steps, ("", *told))
    assert [sign for sign in text if sign != "\n" and unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co")] == []


@pytest.mark.parametrize("text", [SAYS, hostile.TAGGED, hostile.VARIED, hostile.PEM])
def test_words_have_no_meaning_of_their_own(text):
    for made in (words.said(text), words.name(text, wide=10_000), words.cut({"text": text, "more": 0})):
        assert made.spans == [] and not made.style
        assert not [sign for sign in made.plain if sign != "\n" and unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co")]
    assert len(words.name("a\nb\tc" * 100).plain) <= words.WIDE + 1 and "\n" not in words.name("a\nb").plain


def copied(runs, tmp_path):
    return Path(shutil.copytree(runs / "mine", tmp_path / "mine", ignore=shutil.ignore_patterns(f"{VIEW}*")))


def test_a_run_under_way_is_shown_as_it_grows(runs, tmp_path):
    place = copied(runs, tmp_path)
    lines = (place / JOURNAL).read_bytes().splitlines(keepends=True)
    (place / JOURNAL).write_bytes(b"".join(lines[:3]))
    (place / LOCK).write_text(str(os.getpid()))

    async def grow():
        app = Inspector(Pages(Places(place)))
        async with app.run_test(size=(150, 50)) as pilot:
            await until(app, pilot, ["under way", "Nothing is measured yet."])
            await pilot.press("a")
            await until(app, pilot, ["2 attempts; the first made first."])
            await pilot.press("j")
            with (place / JOURNAL).open("ab") as file:
                file.write(b"".join(lines[3:]))
            await until(app, pilot, ["11 attempts; the first made first.", "under way"])
            assert app.screen.table.cursor_row == 1
            (place / LOCK).unlink()
            await until(app, pilot, ["at rest"])
            await pilot.press("u")
            await until(app, pilot, ["promoted memory", "at rest"])

    asyncio.run(grow())


def test_what_goes_wrong_is_one_line(runs, tmp_path):
    place = copied(runs, tmp_path)
    with pytest.raises(AgentevolveError, match="no run or memory in it or below"):
        show(tmp_path / "none")
    with (place / JOURNAL).open("ab") as file:
        file.write(b"not a line\n")
    drive(place, ("", "not a line of a run's journal"), ("a", "not a line"), ("j v ] enter u m", "not a line"))


def test_a_memory_entry_may_be_missing(runs, tmp_path):
    place = copied(runs, tmp_path)
    shutil.rmtree(place / "memory")
    drive(place, ("m", "0 entries"), ("j enter ]", "0 entries"))


def test_a_snapshot_can_be_kept(runs, tmp_path):
    async def taken():
        app = Inspector(Pages(Places(runs)))
        async with app.run_test(size=(100, 30)) as pilot:
            await until(app, pilot, ["2 runs"])
            return app.save_screenshot(str(tmp_path / "runs.svg"))

    asyncio.run(taken())
    assert "<script" not in (tmp_path / "runs.svg").read_text()


def test_the_command_needs_the_extra(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "textual", None)
    done = CliRunner().invoke(command, ["view", str(runs), "--tui"])
    assert isinstance(done.exception, AgentevolveError) and 'needs the extra "view"' in str(done.exception)


def test_the_command_shows_the_terminal_view(runs, monkeypatch):
    shown = []
    monkeypatch.setattr(Inspector, "run", lambda self: shown.append(self.pages.places.root))
    done = CliRunner().invoke(command, ["view", str(runs), "--tui"])
    assert (done.exit_code, shown) == (0, [runs.resolve()])


@pytest.mark.skipif(os.name == "nt", reason="a pseudo terminal is asked for")
def test_the_command_in_a_terminal_says_nothing_hostile_to_it(runs):
    import pty

    keys, said = ["", *"a", "\r", *"jkuu", *"m", "\r", *"uq"], b""
    place = [sys.executable, "-c", "from agentevolve.cli.main import main; main()", "view", str(runs / "odd"), "--tui"]
    ours, theirs = pty.openpty()
    settings = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    with subprocess.Popen(place, stdin=theirs, stdout=theirs, stderr=theirs, env=settings) as running:
        os.close(theirs)
        for key in keys:
            os.write(ours, key.encode())
            said += heard(ours, 2.0 if said else WAIT)
        while more := heard(ours, WAIT):
            said += more
    os.close(ours)
    assert running.returncode == 0 and "⟨U+202E⟩".encode() in said and b"[red]x[/red]" in said
    assert b"\x1b]8;" not in said and b"\x1b[31mred" not in said and "\u202e".encode() not in said


def heard(terminal, seconds):
    """What comes from the terminal until it is silent for half a second; nothing once it has ended."""
    said, wait = b"", seconds
    while select.select([terminal], [], [], wait)[0]:
        try:
            said += os.read(terminal, 65_536)
        except OSError:  # as Linux says that the other side has closed
            break
        wait = 0.5
    return said


def test_textual_is_loaded_by_nobody_else():
    code = "import sys, agentevolve.view.server, agentevolve.cli.main, agentevolve.view.terminal; print('textual' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False", done.stderr
