"""Names to things: the user's own modules, the shipped environments, task sets and every way a YAML file can be wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentevolve.load import DOORS, environments, load, load_environment, load_task_set, task_sets, tasks_of
from agentevolve.protocols import AgentevolveError, Environment

GOOD = """\
name: mine
about: Find the coin.
env: textworld_express
settings: {game: coin, params: {numLocations: 3}, limit: 9}
splits:
  train: {seeds: [0, 10]}
  val: {seeds: [10000, 10005]}
licence: MIT
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "mine.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(call, *args) -> str:
    with pytest.raises(AgentevolveError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_load_finds_an_attribute_and_a_nested_one():
    assert load("agentevolve.records:Task").__name__ == "Task"
    assert load("pathlib:Path.cwd")() == Path.cwd()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no.such.module:Thing", "no module 'no'"),
        ("agentevolve.records:Tusk", "Trajectory"),
        ("agentevolve.records", "package.module:Attribute"),
        ("agentevolve.records:", "package.module:Attribute"),
        ("../etc/passwd:x", "package.module:Attribute"),
        ("", "package.module:Attribute"),
    ],
)
def test_load_says_what_is_missing(name, says):
    assert says in refusal(load, name)


def test_a_shipped_environment_is_made_by_its_name():
    assert "textworld_express" in environments()
    assert isinstance(load_environment("textworld_express")(), Environment)


def test_an_unknown_environment_lists_the_known_ones():
    known = ", ".join(f"{name}:{DOORS[name]}" if name in DOORS else name for name in environments())
    assert f"known: {known}; or package.module:Attribute" in refusal(load_environment, "zork")
    assert "cannot be called" in refusal(load_environment, "agentevolve.records:SOLVED")


def test_a_users_own_environment_is_loaded_from_its_module():
    make = load_environment("agentevolve.environments.textworld_express:TextWorldExpress")
    assert isinstance(make(), Environment)


def test_a_missing_package_is_named_with_its_install_command(tmp_path):
    (tmp_path / "lonely.py").write_text("import some_absent_package\n")
    code = "from agentevolve.load import load_environment; load_environment('lonely:make')"
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert "AgentevolveError" in ran.stderr
    assert "pip install some-absent-package" in ran.stderr


def test_the_shipped_task_sets_are_named_as_their_files_and_have_all_splits():
    sets = task_sets()
    assert {"coin", "twc", "mapreader", "cooking"} <= set(sets)
    for name, task_set in sets.items():
        assert task_set.name == name
        assert set(task_set.splits) == {"train", "val", "test"}
        assert load_task_set(name) == task_set


def test_a_users_file_anywhere_becomes_tasks(tmp_path):
    task_set = load_task_set(written(tmp_path, GOOD))
    tasks = tasks_of(task_set, "val", limit=2, start=1)
    assert [task.id for task in tasks] == ["mine/val/10001", "mine/val/10002"]
    assert [task.seed for task in tasks] == [10001, 10002]
    assert tasks[0].data == {"game": "coin", "params": {"numLocations": 3}, "limit": 9}
    assert tasks[0].env == "textworld_express"
    assert tasks[0].split == "val"


def test_a_limit_past_the_end_is_clipped(tmp_path):
    task_set = load_task_set(written(tmp_path, GOOD))
    assert len(tasks_of(task_set, "val", limit=10**9)) == 5
    assert len(tasks_of(task_set, "train")) == 10
    assert tasks_of(task_set, "train", limit=0) == []


@pytest.mark.parametrize("limit", [-1, 1.5, "3", True])
def test_a_limit_that_is_no_count_is_refused(tmp_path, limit):
    task_set = load_task_set(written(tmp_path, GOOD))
    assert "limit" in refusal(tasks_of, task_set, "train", limit)
    if limit is not True:
        assert "start" in refusal(tasks_of, task_set, "train", 1, limit)


def test_an_unknown_split_lists_the_known_ones(tmp_path):
    assert "known: train, val" in refusal(tasks_of, load_task_set(written(tmp_path, GOOD)), "test")


def test_unknown_names_and_unreadable_paths():
    assert "coin" in refusal(load_task_set, "no-such-set")
    assert "No such file" in refusal(load_task_set, "no/such.yaml")
    assert "coin" in refusal(load_task_set, "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("- a\n- b\n", "a list"),
        ("just words", "a str"),
        (b"name: \xff\xfe", "not UTF-8"),
        ("name: [", "not YAML"),
        ("a: 2024-13-45", "not YAML"),
        ("[" * 5000, "line 1: nested deeper than 30"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
        (GOOD + "colour: red\n", "unknown key colour; known: name, about, env"),
        (GOOD.replace("licence: MIT\n", ""), "licence is missing"),
        (GOOD.replace("10000, 10005", "9, 12"), "splits train [0, 10] and val [9, 12] share seeds"),
        (GOOD.replace("[0, 10]", "[10, 0]"), "splits.train: [10, 0] is not"),
        (GOOD.replace("[0, 10]", "[0, 10.5]"), "splits.train.seeds"),
        (GOOD.replace("[0, 10]", "[-5, 10]"), "splits.train"),
        (GOOD.replace("val:", "dev:"), "splits.dev"),
        (GOOD.replace("{seeds: [0, 10]}", "{}"), "splits.train.seeds is missing"),
        (GOOD.replace("env: textworld_express", "env: zork"), "known: alfworld, babyai, "),
        (GOOD.replace("game: coin", "game: cooking"), "known: cookingworld, twc, coin"),
        (GOOD.replace("numLocations", "rooms"), "known: numLocations"),
        (GOOD.replace("numLocations: 3", "numLocations: 99"), "from 1 to 11"),
        (GOOD.replace("numLocations: 3", "numLocations: yes"), "from 1 to 11"),
        (GOOD.replace("limit: 9", "limit: 0"), "settings.limit"),
        (GOOD.replace("limit: 9", "hide: inventory"), "settings.hide"),
        (GOOD.replace("limit: 9", "limits: 9"), "known: game, params, limit, hide"),
        (GOOD.replace("{numLocations: 3}", "[1]"), "settings.params"),
    ],
)
def test_a_wrong_file_is_named_with_its_fault(tmp_path, text, says):
    path = written(tmp_path, text)
    message = refusal(load_task_set, path)
    assert message.startswith(str(path))
    assert says in message
