"""What a backend does to its callers, beside the real commands: no outcome changes, and every token is in the books, once."""

import json
import sys
from pathlib import Path

import pytest
from faulty import (
    ANSWERED,
    FIVE_PERCENT,
    KEY,
    LIMIT,
    MISCOUNTED,
    SETUP,
    WORKERS,
    Asked,
    Server,
    again,
    backend_words,
    learn,
    makings,
    outcomes,
    prepared,
    recalls,
    runs,
    settled,
    walk,
)
from worlds import task_file

from agentevolve.cli.main import main
from agentevolve.models.lite import open_model
from agentevolve.records import Message

HASTY = {"timeout": 0.5, "tries": 2}  # for what never passes
TASKS = 6


@pytest.fixture(scope="module", autouse=True)
def warm():
    """What is slow at the first call of a process is through before anything is timed."""
    with Server(walk) as server:
        open_model("openai/test", api_base=server.url).complete([Message(role="user", content="the lamp is left")])


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    """Run one command line in an empty folder; its exit code, stdout and stderr."""
    capsys.readouterr()

    def asked(*words: str, place: Path = tmp_path) -> tuple[int, str, str]:
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "argv", ["agentevolve", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return asked


def stopped(answer: tuple[int, str, str]) -> str:
    """The one line with which a run has stopped."""
    code, _, err = answer
    assert code not in (0, 1), err
    assert err.count("\n") == 1 and err.endswith("\n"), err
    return err


# --- a little of everything ---


@pytest.mark.parametrize("command", ["run", "evolve", "compare"])
def test_with_five_percent_of_every_fault_it_ends_as_without(ask, tmp_path, command):
    with Server(learn) as calm, Server(learn, FIVE_PERCENT, seed=2) as server:
        for name, asked in (("calm", calm), ("spoilt", server)):
            words = prepared(tmp_path / name, asked)[command]
            code, _, err = ask(*words, place=tmp_path / name)
            assert code == 0, err
            settled(tmp_path / name, asked)
        expected = outcomes(tmp_path / "calm")
        assert {outcome[3] for outcome in expected.values()} == {"terminated", "truncated"}  # some fail, some do not
        assert outcomes(tmp_path / "spoilt") == expected
        assert {one.fault for one in server.served} == {"", *FIVE_PERCENT}
        # what was answered is asked again for these alone: lost ones, and those of before a parameter was refused for all
        remade = sum(makings(tmp_path / "spoilt").values()) - len(expected)
        assert 0 <= server.count(*ANSWERED) - len(calm.served) <= remade * LIMIT


# --- each of them: once, for ever, until it is mended ---

CARRIED = (
    "thinking",
    "key",
    *MISCOUNTED,
    *(f"refused {name}" for name in ("temperature", "seed", "max_tokens", "response_format")),
)
PASSING = ("429", "429 retry-after", "500", "hang", "reset", "drip", "empty", "cut off", "huge", "broken", "html")
USERS = ("401", "402", "quota")  # the user's to mend: asking again is no use


def words(server: Server, folder: Path, tasks: int = TASKS, **options: float) -> tuple[str, ...]:
    """A small run that asks this server, and that walks straight to the lamp in every task if it is answered."""
    task_file(folder, length=2, limit=4)
    small = ("--limit", str(tasks), "--workers", str(WORKERS), "--out", "out", "--quiet", "--json")
    return ("run", "corridor.yaml", *backend_words(server, **options), *small)


def all_solved(folder: Path, tasks: int = TASKS) -> bool:
    rewards = [outcome[4] for outcome in outcomes(folder).values()]
    return rewards == [1.0] * tasks


@pytest.mark.parametrize("fault", [*CARRIED, *PASSING])
def test_a_fault_that_is_there_once_changes_nothing(ask, tmp_path, fault):
    with Server(walk, lambda asked: fault if asked.number == 0 else "") as server:
        assert ask(*words(server, tmp_path))[0] == 0
        assert all_solved(tmp_path)
        assert server.count(fault) == 1
        # those that were under way when a parameter was refused for all are made again, so that all are asked alike
        more = 2 * WORKERS if fault in ("refused temperature", "refused response_format") else 0
        assert 2 * TASKS <= server.count(*ANSWERED, "key") <= 2 * TASKS + more
        settled(tmp_path, server)


@pytest.mark.parametrize("fault", CARRIED)
def test_a_fault_that_can_be_lived_with_may_stay(ask, tmp_path, fault):
    with Server(walk, {fault: 1.0}) as server:
        assert ask(*words(server, tmp_path))[0] == 0
        assert all_solved(tmp_path)
        assert server.count(*ANSWERED, "key") == 2 * TASKS
        if fault.startswith("refused"):
            assert 1 <= server.count(fault) <= WORKERS  # learnt once, not at every call
        settled(tmp_path, server)


@pytest.mark.parametrize("fault", [fault for fault in (*PASSING, "403") if fault != "drip"])
def test_a_backend_that_fails_for_ever_stops_the_run_and_the_same_command_goes_on(ask, tmp_path, fault):
    with Server(walk, {fault: 1.0}) as server:
        asked = words(server, tmp_path, **HASTY | ({"timeout": 20.0} if fault == "huge" else {}))
        assert "openai/test" in stopped(ask(*asked))
        assert set(one.fault for one in server.served) == {fault}
        settled(tmp_path, server)
        server.faults = {}
        assert ask(*asked)[0] == 0
        assert all_solved(tmp_path)
        settled(tmp_path, server)


@pytest.mark.parametrize("fault", USERS)
@pytest.mark.parametrize("at", [0, 5])
def test_what_is_the_user_s_to_mend_is_asked_once_and_the_same_command_goes_on(ask, tmp_path, fault, at):
    with Server(walk, lambda asked: fault if asked.number >= at else "") as server:
        asked = words(server, tmp_path, 30)
        assert "openai/test" in stopped(ask(*asked))
        assert 1 <= server.count(fault) <= 2 * WORKERS  # those under way, and what began before they were answered
        server.faults = {}
        assert ask(*asked)[0] == 0
        assert all_solved(tmp_path, 30)
        settled(tmp_path, server)


def test_a_server_that_is_away_stops_the_run(ask, tmp_path):
    with Server(walk) as server:
        asked = words(server, tmp_path, **HASTY)
    assert "openai/test" in stopped(ask(*asked))
    assert server.served == []


def test_a_moderated_prompt_costs_its_own_attempt_and_is_made_again_later(ask, tmp_path):
    with Server(walk, lambda asked: "moderation" if "Corridor two" in asked.text else "") as server:
        asked = words(server, tmp_path)
        assert ask(*asked)[0] == 0
        lost = {id: outcome[3] for (_, id), outcome in outcomes(tmp_path).items() if outcome[4] != 1.0}
        assert lost == {"run/corridor/val/101/0": "error"}
        server.faults = {}
        assert ask(*asked)[0] == 0
        assert all_solved(tmp_path)
        settled(tmp_path, server)


def test_a_limit_binds_where_no_usage_is_reported(ask, tmp_path):
    with Server(walk, {"no usage": 1.0}) as server:
        asked = words(server, tmp_path, 40)
        assert ask(*asked, "--max-tokens", "6000")[0] == 3
        (run,) = runs(tmp_path)
        assert 1_000 < run.spent().tokens <= 6_000
        assert run.spent().estimated == run.spent().tokens
        assert 0 < server.unreported() < 6_000


def test_a_key_that_the_backend_echoes_is_written_nowhere(ask, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Server(walk, {"key": 1.0}) as server:
        asked = words(server, tmp_path)
        path = tmp_path / "corridor.yaml"
        path.write_text(path.read_text().replace("worlds:Corridor", "worlds:Free"))  # whatever is said there is an action
        code, out, err = ask(*asked)
    written = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert (code, server.count("key")) == (0, 4 * TASKS)
    assert [path for path, data in written.items() if KEY.encode() in data] == []
    assert KEY not in out + err


# --- an outage while it is measured ---

MEASURED = """\
train: {tasks: 4}
val: {tasks: 8}
arms: [base, memory]
settings: {samples: 3, epsilon: [1.0], reflections: 0, rows: 0}
"""


def from_a_moment_on(asked: Asked) -> str:
    return "500" if asked.number >= 5 and not recalls(asked.text) else ""


def one_task_in_eight(asked: Asked) -> str:
    return "500" if "Corridor two" in asked.text and not recalls(asked.text) else ""


def table(out: str) -> dict[str, list[dict[str, object]]]:
    """What was printed as JSON, without what it cost."""
    return {name: [{**one, "usage": None} for one in reports] for name, reports in json.loads(out).items()}


@pytest.mark.parametrize("outage", [from_a_moment_on, one_task_in_eight])
def test_an_arm_that_an_outage_has_hit_promotes_nobody_and_is_measured_again(ask, tmp_path, outage):
    task_file(tmp_path, length=2, limit=4)
    with Server(walk) as server:
        setup = SETUP.format(url=server.url, options=json.dumps({"timeout": 2, "tries": 2, "pause": 0.01}), workers=WORKERS)
        (tmp_path / "evolve.yaml").write_text(setup + MEASURED)
        asked = ("evolve", "evolve.yaml", "--quiet", "--json", "--out")
        code, expected, _ = ask(*asked, "calm")
        assert code == 0
        server.faults = outage
        stopped(ask(*asked, "hit"))
        (run,) = runs(tmp_path / "hit")
        assert "error" in {one.end for one in run.attempts().values()}
        assert not [name for name in run.facts if name.startswith("gate ")]
        server.faults = {}
        code, found, _ = ask(*again((*asked, "hit")))
        assert (code, table(found)) == (0, table(expected))
        assert outcomes(tmp_path / "hit") == outcomes(tmp_path / "calm")
