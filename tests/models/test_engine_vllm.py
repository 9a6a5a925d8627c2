"""The vLLM engine against a server that keeps vLLM's rules: who is asked, what is loaded, and what is refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from vllm_stand_in import StandIn
from worlds import task_file

from agentevolve.config import Config
from agentevolve.local import adapter, catalog
from agentevolve.local.adapter import LoraSettings, read_adapter
from agentevolve.loop.evolve import check, evolve
from agentevolve.models.engines import vllm
from agentevolve.models.lite import open_model
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Message

ASK = [Message(role="system", content="You play."), Message(role="user", content="Where?")]
ACTIONS = ["go north", "take", "wait"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    return tiny.folder(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """Two adapters: one answers "take", the other "wait"."""
    place, identity = tmp_path_factory.mktemp("trained"), catalog.resolve_weights(str(folder)).identity
    for said in ACTIONS[1:]:
        settings = LoraSettings(rank=4, epochs=30, learning_rate=2e-2)
        tiny.train(folder, [tiny.example("Where?", said)], place / said, settings, seed=0, base=identity)
    return place


@pytest.fixture
def server(folder):
    with StandIn(folder) as running:
        yield running


def opened(server, folder, adapted=None):
    return open_model(f"vllm/{folder}", api_base=server.url, adapter=adapted / adapter.GGUF if adapted else None)


def test_the_base_and_each_adapter_answer_by_their_own_names(server, folder, trained):
    base = opened(server, folder)
    replies = [base.complete(ASK, choices=ACTIONS, seed=n) for n in range(2)]
    assert all(one.text in ACTIONS and one.asked == "structured_outputs" for one in replies)
    assert base.count("abc") == 3
    for said in ("take", "wait", "take"):
        model = opened(server, folder, trained / said)
        assert [model.complete(ASK, choices=ACTIONS, seed=n).text for n in range(3)] == [said] * 3
        assert list(server.loaded) == [f"agentevolve-{read_adapter(trained / said).identity[:32]}"]
        model.close()
        model.close()
        assert server.loaded == {}
    names = server.answered_by("/v1/chat/completions")
    assert names[:2] == [str(folder)] * 2 and len(set(names)) == 3


def test_an_adapter_that_is_loaded_already_is_used_as_it_is(server, folder, trained):
    one, other = (opened(server, folder, trained / "take") for _ in range(2))
    assert one.complete(ASK, choices=ACTIONS).text == other.complete(ASK, choices=ACTIONS).text == "take"
    assert len(server.answered_by("/v1/load_lora_adapter")) == 1


def test_the_trap_of_a_name_that_comes_to_mean_other_weights_is_there_and_is_not_sprung(server, folder, trained):
    """The stand-in answers for a name that is loaded anew with its old weights, as vLLM's cache does; ours are never the same."""
    import httpx

    for said in ACTIONS[1:]:
        asked = {"lora_name": "mine", "lora_path": str(trained / said)}
        assert httpx.post(f"{server.url}/load_lora_adapter", json=asked).status_code == 200
        assert httpx.post(f"{server.url}/load_lora_adapter", json=asked).status_code == 400
        body = {"model": "mine", "messages": [{"role": "user", "content": "Where?"}], "structured_outputs": {"choice": ACTIONS}}
        told = httpx.post(f"{server.url}/chat/completions", json=body).json()["choices"][0]["message"]["content"]
        assert told == "take"
        httpx.post(f"{server.url}/unload_lora_adapter", json=asked)
    model = opened(server, folder, trained / "wait")
    assert model.complete(ASK, choices=ACTIONS).text == "wait"


def test_a_server_that_answers_with_other_weights_stops_before_the_first_attempt(server, folder, trained):
    server.wrong = True
    model = opened(server, folder, trained / "take")
    with pytest.raises(AgentevolveError, match="the server answers with other weights than were trained"):
        model.complete(ASK, choices=ACTIONS)
    assert server.answered_by("/v1/chat/completions") == [] and server.loaded == {}


def test_an_evicted_adapter_is_never_answered_for_by_the_base(server, folder, trained):
    model = opened(server, folder, trained / "take")
    assert model.complete(ASK, choices=ACTIONS).text == "take"
    server.loaded.clear()
    with pytest.raises(AgentevolveError, match="the backend knows no such model"):
        model.complete(ASK, choices=ACTIONS)
    model.close()
    assert model.complete(ASK, choices=ACTIONS).text == "take"  # what goes on loads it again


def test_what_the_server_cannot_do_is_one_line_that_says_how(folder, trained, server):
    with StandIn(folder, loads=False) as closed:
        with pytest.raises(AgentevolveError, match="loads no adapters while it runs; start it with: VLLM_ALLOW_RUNTIME_LORA"):
            vllm.check_loads(closed.url)
        with pytest.raises(AgentevolveError, match=r"404: .*a server that loads adapters is started with"):
            opened(closed, folder, trained / "take").complete(ASK)
    with StandIn(folder, rank=2) as narrow, pytest.raises(AgentevolveError, match="LoRA rank is greater than max_lora_rank 2"):
        opened(narrow, folder, trained / "take").complete(ASK)
    with StandIn(folder, key="secret") as locked, pytest.raises(AgentevolveError, match="answers 401"):
        opened(locked, folder).complete(ASK)
    vllm.check_loads(server.url)
    other = tiny.folder(trained / "other")
    with pytest.raises(AgentevolveError, match=f"serves {folder}, not {other}"):
        opened(server, other).complete(ASK)
    with pytest.raises(AgentevolveError, match="the vLLM server cannot be reached"):
        open_model(f"vllm/{folder}", api_base="http://127.0.0.1:9/v1").complete(ASK)


def test_weights_that_are_nowhere_are_named_before_anything_is_asked(tmp_path):
    task_file(tmp_path)
    program = [sys.executable, "-c", "from agentevolve.cli.main import main; main()"]
    hub = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
    words = ["run", "corridor.yaml", "--model", "vllm/org/name", "--out", "r"]
    env = os.environ | hub | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*program, *words], cwd=tmp_path, env=env, capture_output=True, text=True)
    said = "not on this machine, and the hub (http://127.0.0.1:9) cannot be reached; the path of a folder always works"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: org/name: {said}\n")
    assert not (tmp_path / "r").exists()
    with pytest.raises(AgentevolveError, match="unknown weights 'nothing'; known: the path of a transformers folder, or an id"):
        open_model("vllm/nothing")


def evolving(tmp_path, folder, url) -> Config:
    return Config.model_validate(
        {
            "tasks": str(task_file(tmp_path, length=2)),
            "model": f"vllm/{folder}",
            "api_base": url,
            "workers": 2,
            "threads": 1,
            "train": {"tasks": 6},
            "settings": {
                "samples": 4,
                "epsilon": [1.0],
                "reflections": 0,
                "lora": {"rank": 4, "epochs": 15, "learning_rate": 2e-2, "batch_size": 2},
            },
            "val": {"tasks": 6},
            "arms": ["base", "distilled"],
        }
    )


def test_an_evolution_acts_learns_and_is_measured_on_the_server(server, folder, tmp_path):
    config = evolving(tmp_path, folder, server.url)
    (run,) = evolve(config, tmp_path / "run", quiet=True)
    made = read_adapter(tmp_path / "run" / "adapters" / "round-1")
    name = f"agentevolve-{made.identity[:32]}"
    acted = server.answered_by("/v1/chat/completions")
    assert set(acted) == {str(folder), name} and acted == sorted(acted, key=lambda one: one == name)  # one after the other
    arms = {arm: [run.trajectories[id] for id in ids] for arm, ids in run.evaluations()["1/val"].items()}
    assert {arm: {one.policy.adapter for one in of} for arm, of in arms.items()} == {"base": {None}, "distilled": {"round-1"}}
    assert server.loaded == {} and server.answered_by("/v1/unload_lora_adapter") == [name]
    assert made.base == catalog.resolve_weights(str(folder)).identity


def test_with_asynchronous_rounds_no_adapter_comes_or_goes_under_a_request(server, folder, tmp_path):
    """vLLM has answered requests in flight with another adapter once one was added: there are none, though two phases act."""
    server.pause = 0.3  # a chat lasts longer than what it takes to train
    config = evolving(tmp_path, folder, server.url)
    task_file(tmp_path, length=2, limit=4)
    lora = {"rank": 4, "epochs": 1, "learning_rate": 2e-2, "batch_size": 8}
    settings = config.settings | {"epsilon": [1.0, 0.3], "lora": lora}
    more = {"asynchronous": True, "rounds": 3, "settings": settings, "workers": {"count": 3}, "gate": {"rule": "none"}}
    config = Config.model_validate(config.model_dump() | more)
    check(config)
    (run,) = evolve(config, tmp_path / "run", quiet=True)
    assert {one.end for one in run.attempts().values()} <= {"terminated", "truncated"}
    names = {None: str(folder)}
    for number in (1, 2, 3):
        made = read_adapter(tmp_path / "run" / "adapters" / f"round-{number}")
        names[f"round-{number}"] = f"agentevolve-{made.identity[:32]}"
    acting = [{one.policy.adapter for one in run.attempts().values() if one.phase == f"{number}/acquire"} for number in (1, 2, 3)]
    assert acting == [{None}, {None}, {"round-1"}]
    asked = server.answered_by("/v1/chat/completions")
    assert set(asked) == set(names.values())
    # the base is measured before the first adapter: what it answers after that, it answers ahead
    assert names[None] in asked[asked.index(names["round-1"]) :]
    assert server.changes and set(server.changes) == {0}
    assert server.loaded == {} and len(server.answered_by("/v1/load_lora_adapter")) >= 3


def test_an_adapter_is_loaded_and_proven_on_every_server_and_one_that_is_away_is_left_out(server, folder, tmp_path, capsys):
    with StandIn(folder) as other:
        config = evolving(tmp_path, folder, f"{server.url}, http://127.0.0.1:9/v1, {other.url}")
        with pytest.raises(AgentevolveError, match=r"127\.0\.0\.1:9.* cannot be reached"):
            check(config)  # before anything is paid every address must answer
        (run,) = evolve(evolving(tmp_path, folder, f"{server.url},{other.url}"), tmp_path / "run", quiet=True)
        name = f"agentevolve-{read_adapter(tmp_path / 'run' / 'adapters' / 'round-1').identity[:32]}"
        for one in (server, other):
            assert set(one.answered_by("/v1/chat/completions")) == {str(folder), name}
            assert one.loaded == {} and one.answered_by("/v1/unload_lora_adapter") == [name]
        assert {one.end for one in run.attempts().values()} <= {"terminated", "truncated"}
        policy = {"adapter": tmp_path / "run" / "adapters" / "round-1" / adapter.GGUF}
        model = open_model(f"vllm/{folder}", api_base=f"http://127.0.0.1:9/v1,{other.url}", **policy)
        assert model.complete(ASK, choices=ACTIONS).text in ACTIONS
        assert "left out: http://127.0.0.1:9/v1" in capsys.readouterr().err
        model.close()


def test_a_server_that_loads_no_adapters_is_refused_before_the_first_attempt(folder, tmp_path):
    with StandIn(folder, loads=False) as closed:
        with pytest.raises(AgentevolveError, match="this vLLM server loads no adapters while it runs"):
            check(evolving(tmp_path, folder, closed.url))
        still = evolving(tmp_path, folder, closed.url)
        check(still.model_copy(update={"settings": still.settings | {"rows": 0}}))  # in context it may learn
    assert closed.answered_by("/v1/chat/completions") == []


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A program called `vllm` on the path, which is the stand-in."""
    monkeypatch.setenv("AGENTEVOLVE_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "bin" / "vllm"
    place.parent.mkdir()
    stand_in = Path(__file__).parents[1] / "vllm_stand_in.py"

    def write(line: str) -> None:
        place.write_text(f"#!/bin/sh\n{line}\n")
        place.chmod(0o755)

    write(f'exec {sys.executable} {stand_in} "$@"')
    monkeypatch.setenv("PATH", f"{place.parent}:/usr/bin:/bin")
    yield write
    vllm.stop()


def test_a_child_is_started_once_keeps_its_base_and_is_ended_for_training(program, folder, trained):
    base = open_model(f"vllm/{folder}")
    assert base.complete(ASK, choices=ACTIONS).text in ACTIONS
    (running,) = vllm._CHILDREN.values()
    learnt = open_model(f"vllm/{folder}", adapter=trained / "wait" / adapter.GGUF)
    assert learnt.complete(ASK, choices=ACTIONS).text == "wait"
    assert list(vllm._CHILDREN.values()) == [running]
    words = Path(f"/proc/{running.pid}/cmdline").read_bytes() if sys.platform == "linux" else b""
    assert learnt._ready()._key.encode() not in words
    base.close()
    learnt.close()
    vllm.stop()
    assert running.poll() is not None
    assert base.complete(ASK, choices=ACTIONS).text in ACTIONS  # and started again when it is asked


def test_a_child_that_does_not_start_says_why(program, folder):
    program('echo "ValueError: no GPU here"; exit 3')
    with pytest.raises(AgentevolveError, match=r"vLLM ended with code 3: ValueError: no GPU here \(.*vllm-\d+\.log has more\)"):
        open_model(f"vllm/{folder}").complete(ASK)


def test_without_vllm_it_is_said_how_to_come_by_it(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AgentevolveError, match="vLLM is not installed"):
        open_model(f"vllm/{folder}").complete(ASK)
    shutil.rmtree(tmp_path)
