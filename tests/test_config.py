"""A config: every way to get it wrong is one line that names the file, the key and what is known."""

import pytest

from agentevolve.config import Config, read_config, write_config
from agentevolve.protocols import AgentevolveError


def complaint(path, *changes) -> str:
    with pytest.raises(AgentevolveError) as caught:
        read_config(path, changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_text("tasks: coin\ntrain: {tasks: 5}\n")
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"- tasks\n", "this is a list, not a mapping; known keys: tasks, model"),
        (b"", "this is empty, not a mapping; known keys: tasks, model"),
        (b"tasks", "this is a str, not a mapping; known keys: tasks, model"),
        (b"tasks: \xff\xfe", "not UTF-8"),
        (b"tasks: [coin", "not YAML"),
        (b"tasks: 2024-13-45", "not YAML: month must be in 1..12"),
        (b"[" * 4000, "line 1: nested deeper than 30"),
        (b"{}", "tasks is missing"),
        (b"tasks: 5", "tasks: Input should be a valid string, not 5"),
        (b"tasks: coin\nmodle: x", "unknown key modle; known: tasks, model, api_base"),
        (b"tasks: coin\n1: x", "1"),
        (b"tasks: coin\ntrain: {task: 1}", "unknown key train.task; known: tasks"),
        (b"tasks: coin\ngate: {rul: 1}", "unknown key gate.rul; known: rule, margin"),
        (
            b"tasks: coin\nrecall: {n: 1}",
            "unknown key recall.n; known: difference, words, credit, recency, whole, own, nearest, tokens, as_turns, when, ",
        ),
        (b"tasks: coin\nrounds: many", "rounds: Input should be a valid integer"),
        (b"tasks: coin\nrounds: 1.5", "rounds: Input should be a valid integer"),
        (b"tasks: coin\nrounds: 0", "rounds: Input should be greater than 0, not 0"),
        (b"tasks: coin\ntrain: 3", "train: "),
        (b"tasks: coin\nsettings: 3", "settings: "),
        (b"tasks: coin\nrecall: {nearest: {dem: 1}}", "recall.nearest.dem"),
        (b"tasks: coin\nval: {samples: -1}", "val.samples: Input should be greater than 0, not -1"),
        (b"tasks: coin\nval: {tasks: -1}", "val.tasks: Input should be greater than or equal to 0, not -1"),
        (b"tasks: coin\narms: [base, bass]", "arms.1: Input should be 'random', 'oracle', 'base'"),
        (b"tasks: coin\nseeds: []", "seeds: "),
        (b"tasks: coin\nmax_usd: -1", "max_usd: Input should be greater than 0"),
        (b"tasks: coin\ntemperature: .nan", "temperature: "),
    ],
)
def test_a_bad_file_is_named_with_its_key(tmp_path, text, said):
    path = tmp_path / "bad.yaml"
    path.write_bytes(text)
    complained = complaint(path)
    assert complained.startswith(f"{path}: ")
    assert said in complained


def test_a_missing_file_or_a_folder_is_named(tmp_path):
    assert complaint(tmp_path / "none.yaml") == f"{tmp_path / 'none.yaml'}: cannot be read: No such file or directory"
    assert complaint(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("rounds", "'rounds' is not of the form key=value"),
        ("rounds=[", "'rounds=[': the value is not YAML"),
        ("rounds=2024-13-45", "the value is not YAML"),
        ("rounds=-1", "rounds: Input should be greater than 0, not -1"),
        ("round=1", "unknown key round; known: tasks, model"),
        ("=1", "unknown key "),
        ("tasks.x=1", "'tasks.x=1': tasks is not a group of settings"),
        ("train.x=1", "unknown key train.x; known: tasks"),
        ("train.tasks.x=1", "tasks is not a group of settings"),
        ("test.tasks=many", "test.tasks: Input should be a valid integer"),
    ],
)
def test_a_bad_change_is_one_line(good, change, said):
    assert said in complaint(good, change)


def test_changes_are_made_in_order_and_leave_the_rest(good):
    config = read_config(good, ["settings.samples=3", "rounds=2", "rounds=4", "seeds=[1, 2]", "settings.lora.learning_rate=1e-3"])
    assert (config.train.tasks, config.settings["samples"], config.rounds, config.seeds) == (5, 3, 4, [1, 2])
    assert config.val == Config(tasks="coin").val


def test_a_resolved_config_reads_back_as_itself(good, tmp_path):
    config = read_config(
        good, ["settings.epsilon=[1.0, 0.25]", "max_usd=0.5", "arms=[base, shuffled]", "recall.nearest={demo: 2}"]
    )
    path = tmp_path / "deep" / "resolved.yaml"
    write_config(config, path)
    assert read_config(path) == config
    write_config(read_config(path), tmp_path / "again.yaml")
    assert path.read_bytes() == (tmp_path / "again.yaml").read_bytes()
    for name in Config.model_fields:
        assert f"{name}:" in path.read_text()
