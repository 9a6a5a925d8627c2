"""Bad input, kind by kind, through the real command: one line, exit code 2, nothing left behind; no traceback and no hang."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from lines import COMPARISON, CONFIG, refused
from worlds import TASKS, make_tasks, new_run, task_file

from agentevolve.act.rollout import rollout
from agentevolve.memory import HashEmbedder, open_memory
from agentevolve.policy import Policy
from agentevolve.records import Entry
from agentevolve.run.folder import JOURNAL

COMMAND = [sys.executable, "-c", "from agentevolve.cli.main import main; main()"]
LONG = "x" * 5_000


@pytest.fixture
def place(tmp_path):
    """A folder with a task set, a config and a comparison."""
    task_file(tmp_path)
    (tmp_path / "evolve.yaml").write_text(CONFIG)
    (tmp_path / "compare.yaml").write_text(COMPARISON)
    return tmp_path


def asked(
    place: Path, *words: str, stdout: int = subprocess.PIPE, limits=(), **settings: str
) -> subprocess.CompletedProcess[str]:
    """One command in a process of its own, within two minutes and 4 GB."""

    def limit() -> None:
        for kind, most in ((resource.RLIMIT_AS, 4 << 30), *limits):
            resource.setrlimit(kind, (most, most))

    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[1])])} | settings
    return subprocess.run(
        [*COMMAND, *words],
        cwd=place, env=environment, stdout=stdout, stderr=subprocess.PIPE, timeout=120, preexec_fn=limit, encoding="utf-8",
        errors="surrogateescape",
    )  # fmt: skip


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)
BOMBS = {
    "aliases of aliases": (LAUGHS, "line 5: more than 20,000 values, counting what aliases stand for"),
    "merged aliases": ("a: &a {x: 1}\n" + LAUGHS[LAUGHS.index("b:") :], "line 5: more than 20,000 values"),
}
YAML = {
    "an alias inside of itself": ("a: &a [*a]\n", "line 1: more than 20,000 values"),
    "very many values": (f"a: [{'1,' * 30_000}]\n", "line 1: more than 20,000 values"),
    "deep": (f"a: {'[' * 40}{']' * 40}\n", "line 1: nested deeper than 30"),
    "very deep": ("{a: " * 9_000, "line 1: nested deeper than 30"),
    "a large file": ("#" * (1 << 20) + "\n", "larger than 1,048,576 bytes"),
    "a key twice": ("rounds: 1\ntasks: x\nrounds: 2\n", "line 3: the key 'rounds' is there twice"),
    "a key twice inside": ("tasks: x\ntrain: {tasks: 1, tasks: 2}\n", "line 2: the key 'tasks' is there twice"),
    "a key twice, spelled otherwise": ("1: a\n0x1: b\n", "line 2: the key 1 is there twice"),
    "endless digits": (f"rounds: {'9' * 5_000}\n", "not YAML: Exceeds the limit"),
    "a number of very many bits": (f"rounds: 0x{'f' * 99}\n", "line 1: a number of more than 64 bits: 0xfff"),
    "no such alias": ("rounds: *none\n", "not YAML: found undefined alias 'none' (line 1)"),
    "an object": ("rounds: !!python/object/apply:os.getpid []\n", "not YAML: could not determine a constructor"),
}


READERS = (("evolve", "bad.yaml"), ("compare", "bad.yaml"), ("run", "bad.yaml", "--model", "random"))


@pytest.mark.parametrize("name", YAML)
def test_yaml_that_is_too_much_or_says_two_things_is_refused_by_all_that_read_it(ask, place, name):
    text, said = YAML[name]
    (place / "bad.yaml").write_text(text)
    for words in READERS:
        assert refused(ask, place, *words).startswith(f"error: bad.yaml: {said}")


@pytest.mark.parametrize("name", BOMBS)
def test_aliases_of_aliases_have_an_end(place, name):
    text, said = BOMBS[name]
    (place / "bad.yaml").write_text(text)
    for words in READERS[::2]:
        done = asked(place, *words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr[-500:]
        assert done.stderr.startswith(f"error: bad.yaml: {said}")


VALUES = {
    "rounds=1:30": "rounds: Input should be a valid integer, unable to parse string as an integer, not '1:30'",
    "rounds=1:30.5": "rounds: Input should be a valid integer",
    "temperature=.inf": "temperature: Input should be a finite number, not inf",
    "temperature=.nan": "temperature: Input should be ",
    "temperature=1e400": "temperature: Input should be a finite number, not '1e400'",
    "max_usd=.inf": "max_usd: Input should be a finite number",
    "gate.margin=.nan": "gate.margin: Input should be ",
    "settings.epsilon=[.nan]": "settings.epsilon",
    "settings.epsilon=['nan']": "method 'agentevolve': epsilon.0: Input should be ",
    "settings.samples=1:30": "method 'agentevolve': samples: Input should be a valid integer",
    "settings.sample=1": "method 'agentevolve': unknown key sample; known: samples, ",
    "rounds={a: 1, a: 2}": "'rounds={a: 1, a: 2}': the value is line 1: the key 'a' is there twice",
    f"rounds={'[' * 2_000}": "the value is line 1: nested deeper than 30",
    f"settings.{'a.' * 2_000}b=1": "more than 30 groups of settings inside each other",
    'tasks="a\\0.yaml"': "a\\x00.yaml: ",
    "=": "unknown key ",
}


@pytest.mark.parametrize("change", VALUES, ids=lambda change: change[:24])
def test_a_value_out_of_range_is_one_line(ask, place, change):
    assert VALUES[change] in refused(ask, place, "evolve", "evolve.yaml", change)


def test_an_alias_bomb_in_a_change_is_one_line(place):
    done = asked(place, "evolve", "evolve.yaml", f"settings={{{LAUGHS.strip().replace(chr(10), ', ')}}}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "line 1: more than 20,000 values" in done.stderr


FOLDERS = {
    "": "--out is empty",
    "file": "file is not a folder",
    "file/under": "file is not a folder",
    "y" * 300: "File name too long",
    f"new/{'y' * 300}": "File name too long",
    "nowhere": "nowhere is a link to nothing",
    "nowhere/under": "nowhere is a link to nothing",
    "closed/under": "closed cannot be written",
}
OUTS = {
    "run": ("run", "corridor.yaml", "--model", "random"),
    "evolve": ("evolve", "evolve.yaml"),
    "forecast": ("evolve", "evolve.yaml", "--dry-run"),
    "resume": ("evolve", "evolve.yaml", "--resume"),
    "compare": ("compare", "compare.yaml"),
    "distill": ("distill", "lived"),
}


@pytest.mark.parametrize("command", OUTS)
@pytest.mark.parametrize("out", FOLDERS, ids=lambda out: out[:20])
def test_a_folder_that_cannot_be_is_one_line(ask, place, command, out):
    (place / "file").write_text("")
    (place / "nowhere").symlink_to("none")
    (place / "closed").mkdir(mode=0o555)
    if out.startswith("closed") and os.access(place / "closed", os.W_OK):
        pytest.skip("root writes everywhere")
    assert FOLDERS[out] in refused(ask, place, *OUTS[command], "--out", out)


def test_runs_that_is_a_file_is_one_line(ask, place):
    (place / "runs").write_text("")
    for words in OUTS.values():
        if not {"--resume", "distill"} & set(words):
            assert "runs is not a folder" in refused(ask, place, *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("report", "y" * 300), "File name too long"),
        (("memory", "list", "y" * 300), "File name too long"),
        (("distill", "y" * 300, "--out", "new"), "File name too long"),
        (("run", "corridor.yaml", "--model", "random", "--memory", "y" * 300), "File name too long"),
        (("run", "y" * 300 + ".yaml", "--model", "random"), "File name too long"),
        (("evolve", "y" * 300), "File name too long"),
        (("evolve", "."), ".: cannot be read: Is a directory"),
        (("compare", "corridor.yaml/under"), "cannot be read: Not a directory"),
        (("report", "corridor.yaml"), "not a run"),
        (("memory", "list", "corridor.yaml"), "neither a memory folder nor a run with one"),
    ],
)
def test_a_path_that_cannot_be_read_is_one_line(ask, place, words, said):
    assert said in refused(ask, place, *words)


@pytest.mark.parametrize(
    "words",
    [
        ("--limit", "0"), ("--limit", "-1"), ("--limit", "1.5"), ("--samples", "0"), ("--workers", "0"), ("--threads", "0"),
        ("--max-tokens", "0"), ("--max-usd", "-1"), ("--max-usd", "nan"), ("--max-usd", "inf"), ("--temperature", "nan"),
        ("--temperature", "inf"), ("--temperature", "-1"), ("--seed", "x"),
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_one_line(ask, place, words):
    answer = refused(ask, place, "run", "corridor.yaml", "--model", "random", *words)
    assert words[0].strip("-") in answer


MODULES = {
    "exits": ("import sys\nprint('words')\nsys.exit(0)\n", "the module exits fails when it is imported: SystemExit: 0"),
    "raises": ("print('words')\n1 / 0\n", "fails when it is imported: ZeroDivisionError: division by zero"),
    "misspelt": ("def make(:\n", "fails when it is imported: SyntaxError: "),
    "circular": ("import circular\ncircular.make\n", "fails when it is imported: AttributeError: "),
    "loud": (f"raise RuntimeError({LONG!r})\n", "fails when it is imported: RuntimeError: xxx"),
    "deep": ("def f(): f()\nf()\n", "fails when it is imported: RecursionError: "),
}
WORLDS = MODULES | {
    "empty": ("def make(): return None\n", "'empty:make': it makes a NoneType, which has no reset, step, oracle, close"),
    "half": (
        "class make:\n    def reset(self, task): ...\n    def close(self): ...\n",
        "which has no step, oracle",
    ),
    "number": ("make = 5\n", "cannot be called to make an environment"),
    "endless": ("def check(settings): check(settings)\ndef make(): ...\n", "RecursionError"),
}
METHODS = MODULES | {
    "notone": ("make = 5\n", "method 'notone:make' is no function of (policy, tasks, run): "),
    "short": ("def make(policy): ...\n", "method 'short:make' is no function of (policy, tasks, run): too many"),
    "unknown": ("def make(policy, tasks, run: 'Nothing'): ...\n", "is no function of (policy, tasks, run): name 'Nothing'"),
}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that can be imported, and is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written: list[str] = []

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        written.append(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_that_cannot_be_made_is_one_line(ask, place, module, name):
    text, said = WORLDS[name]
    module(name, text)
    (place / "corridor.yaml").write_text(TASKS.format(settings={}).replace("worlds:Corridor", f"{name}:make"))
    for words in (("run", "corridor.yaml", "--model", "random"), ("evolve", "evolve.yaml"), ("compare", "compare.yaml")):
        assert said in without_words(refused, ask, place, *words)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_is_none_is_one_line(ask, place, module, name):
    text, said = METHODS[name]
    module(name, text)
    for words in (("compare", "compare.yaml", "--method", f"{name}:make"), ("evolve", "evolve.yaml", f"method={name}:make")):
        assert said in without_words(refused, ask, place, *words)


def without_words(refused, ask, place: Path, *words: str) -> str:
    """The refusal, less the words that the module printed: they are beside the result, on stderr."""

    def quiet(*asked: str) -> tuple[int, str, str]:
        code, out, err = ask(*asked)
        return code, out, err.removeprefix("words\n")

    return refused(quiet, place, *words)


def test_what_a_world_prints_when_it_is_imported_is_no_result(ask, place, module):
    module("talker", "print('hello')\nfrom worlds import Corridor\n")
    (place / "corridor.yaml").write_text(TASKS.format(settings={}).replace("worlds:", "talker:"))
    code, out, err = ask("run", "corridor.yaml", "--model", "oracle", "--limit", "1", "--json", "--quiet")
    assert (code, json.loads(out)["corridor val"][0]["success"]) == (0, 1.0)
    assert err.startswith("hello\n")


ECHOED = {
    "task set": ("run", LONG, "--model", "random"),
    "task file": ("run", f"{LONG}.yaml", "--model", "random"),
    "model": ("run", "corridor.yaml", "--model", LONG),
    "split": ("run", "corridor.yaml", "--model", "random", "--split", LONG),
    "number": ("run", "corridor.yaml", "--model", "random", "--limit", LONG),
    "words": ("run", "corridor.yaml", "--model", "random", "--limit", "x " * 2_000),
    "out": ("run", "corridor.yaml", "--model", "random", "--out", LONG),
    "memory": ("run", "corridor.yaml", "--model", "random", "--memory", LONG),
    "adapter": ("run", "corridor.yaml", "--model", "local/smollm2-135m", "--adapter", LONG),
    "option": ("run", f"--{LONG}"),
    "command": (LONG,),
    "config": ("evolve", LONG),
    "change": ("evolve", "evolve.yaml", LONG),
    "change of words": ("evolve", "evolve.yaml", "x " * 2_000),
    "key": ("evolve", "evolve.yaml", f"{LONG}=1"),
    "value": ("evolve", "evolve.yaml", f"rounds={LONG}"),
    "list": ("evolve", "evolve.yaml", f"rounds=[{'x, ' * 2_000}]"),
    "number of digits": ("evolve", "evolve.yaml", f"rounds=0x{'f' * 5_000}"),
    "setting": ("evolve", "evolve.yaml", f"settings.{LONG}=1"),
    "setting's value": ("evolve", "evolve.yaml", f"settings.samples={LONG}"),
    "alias": ("evolve", "evolve.yaml", f"rounds=*{LONG}"),
    "tag": ("evolve", "evolve.yaml", f"rounds=!{LONG} 1"),
    "tasks": ("evolve", "evolve.yaml", f"tasks={LONG}"),
    "method": ("compare", "compare.yaml", "--method", LONG),
    "method's module": ("compare", "compare.yaml", "--method", f"{LONG}:f"),
    "method's function": ("compare", "compare.yaml", "--method", f"worlds:{LONG}"),
    "label": ("compare", "compare.yaml", f"methods=[{{method: memento, label: '{'x ' * 2_000}'}}]"),
    "run": ("report", LONG),
    "escape": ("evolve", "evolve.yaml", "\x1b[31mx\r\x07=1"),
    "surrogate": ("evolve", "evolve.yaml", "\udcffx=1"),
}


@pytest.mark.parametrize("name", ECHOED)
def test_a_message_echoes_the_start_of_what_was_given_and_no_control_character(ask, place, name):
    answer = refused(ask, place, *ECHOED[name])
    assert len(answer) < 1_100
    assert len(re.sub(r"[^xf]", "", answer)) < 300, "200 of what was given, and those of our own words"
    assert answer.rstrip("\n").isprintable()


# what is shown, and what the disk and the reader can take of it


@pytest.fixture
def measured(tmp_path):
    """A run with something to report."""
    rollout(Policy(model="oracle"), make_tasks(2, split="val"), run := new_run(tmp_path / "r"), phase="run")
    run.close()
    return tmp_path


def test_a_report_is_printed_where_its_picture_cannot_be_written(ask, measured):
    (measured / "r" / "report.png").mkdir()
    code, out, err = ask("report", "r")
    assert (code, "oracle" in out) == (0, True)
    assert err == "no picture: r/report.png: cannot write: Is a directory\n"
    assert not list((measured / "r").glob(".*"))


def test_a_report_is_printed_on_a_full_disk_and_the_picture_before_stands(ask, measured):
    (measured / "r" / "report.png").write_bytes(b"before")
    done = asked(measured, "report", "r", limits=[(resource.RLIMIT_FSIZE, 5_000)])
    assert (done.returncode, "oracle" in done.stdout) == (0, True)
    assert done.stderr == "no picture: r/report.png: cannot write: File too large\n"
    assert (measured / "r" / "report.png").read_bytes() == b"before"
    assert not list((measured / "r").glob(".*"))


def test_a_report_in_a_folder_that_is_read_only_is_printed(ask, measured):
    (measured / "r").chmod(0o555)
    if os.access(measured / "r", os.W_OK):
        pytest.skip("root writes everywhere")
    code, out, err = ask("report", "r")
    assert (code, "oracle" in out, err.count("\n")) == (0, True, 1)
    assert err.startswith("no picture: r/report.png: cannot write: ")


def test_a_comparison_s_files_are_whole_or_as_they_were_on_a_full_disk(place):
    words = ("compare", "compare.yaml", "--quiet", "--out", "c")
    assert asked(place, *words).returncode == 0
    before = {path: path.read_bytes() for path in (place / "c").iterdir() if path.is_file()}
    most = len(before[place / "c" / "results.json"]) - 1
    assert len(before[place / "c" / "comparison.yaml"]) < most
    done = asked(place, *words, "--resume", limits=[(resource.RLIMIT_FSIZE, most)])
    assert (done.returncode, done.stderr) == (2, "error: c/results.json: cannot write: File too large\n")
    assert {path: path.read_bytes() for path in (place / "c").iterdir() if path.is_file()} == before


def test_a_stdout_that_is_full_or_closed_is_no_traceback(measured):
    with open("/dev/full", "w") as full:
        done = asked(measured, "report", "r", stdout=full.fileno())
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, "error: No space left on device")
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    reading, writing = os.pipe()
    os.close(reading)
    done = asked(measured, "tasks", "--json", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


ODD = "half \ud800 of a pair, 道 and \x1b[31m"


@pytest.fixture
def odd(measured):
    """The run, and a memory, with text that an encoder trips over."""
    with open_memory(measured / "r" / "memory", embedder=HashEmbedder()) as memory:
        memory.add([Entry(id="demo/1", kind="demo", key=ODD, text=ODD, env=ODD)])
    journal = measured / "r" / JOURNAL
    journal.write_bytes(journal.read_bytes().replace(b'"model":"oracle"', b'"model":"or\\ud800acle \xe9\x81\x93"'))
    return measured


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("words", [("memory", "list", "r"), ("memory", "stats", "r"), ("report", "r")], ids=" ".join)
def test_half_surrogates_are_listed_on_any_stdout(odd, words, encoding):
    done = asked(odd, *words, PYTHONIOENCODING=encoding)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert "half" in done.stdout or "acle" in done.stdout
    done = asked(odd, *words, "--json", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    values = json.dumps(json.loads(done.stdout))
    assert json.dumps(ODD)[1:-1] in values or json.dumps("or\ud800acle 道") in values
