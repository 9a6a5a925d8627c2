"""Worlds behind OpenEnv servers: the package's own server plays them on loopback, and our side is tried on servers that are none.

The package wants other versions than ours (constraints.txt) and much besides, so the server runs where OPENENV_PYTHON says
(pip install openenv-core==0.3.0, or openenv==0.10.0, in an environment of its own; that one's python), else in this one.
"""

import http.server
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import websockets.sync.server

from agentevolve.act.rollout import rollout
from agentevolve.environments.support.openenv import Form, checked_address, form_of
from agentevolve.load import load_environment, load_task_set, ready, tasks_of
from agentevolve.models.stand_ins import ScriptedModel, at_random
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Task

SERVER = Path(__file__).with_name("openenv_worlds.py")
PYTHON = os.environ.get("OPENENV_PYTHON", sys.executable)
TASKS = """\
name: way
about: Go where the world says.
env: openenv:{url}
settings: {{show: [text], limit: 4, notes: Go there.}}
splits:
  train: {{seeds: [0, 8]}}
  val: {{seeds: [10000, 10004]}}
licence: MIT
"""


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    find = "import importlib.util as u, sys; sys.exit(not u.find_spec('openenv'))"
    if subprocess.run([PYTHON, "-c", find], check=False).returncode:
        pytest.skip("openenv is not installed, and OPENENV_PYTHON names no python that has it")
    with (tmp_path_factory.mktemp("log") / "server").open("w") as log:
        server = subprocess.Popen([PYTHON, str(SERVER)], stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        yield json.loads(server.stdout.readline())
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def task(url: str, seed: int = 0, **data) -> Task:
    return Task(id=f"w/train/{seed}", env=f"openenv:{url}", split="train", seed=seed, data=data)


def entered(one: Task):
    env = load_environment(one.env)()
    return env, *env.reset(one)


slow = pytest.mark.slow  # the package takes long to import


@slow
def test_a_text_is_the_action_where_that_is_all_that_is_wanted(urls):
    env, seen, info = entered(task(urls["word"], 3, notes="Say it."))
    assert (seen, info) == ("text: Go right. Seed 3.\nleft: 3", {"score": 0.0, "raw": 0.0, "notes": "Say it."})
    step = env.step("wrong")
    assert (step.observation, step.reward, step.terminated) == ("text: not there\nleft: 2", 0.0, False)
    step = env.step("right")
    assert (step.reward, step.terminated, step.truncated, step.info) == (0.9, True, False, {"score": 0.9, "raw": 0.9})
    with pytest.raises(RuntimeError, match="reset first"):
        env.step("right")
    with pytest.raises(AgentevolveError, match="an OpenEnv server tells no solution"):
        env.oracle(task(urls["word"]))
    env.close()


@slow
def test_named_values_are_the_admissible_actions_and_a_limit_cuts_off(urls):
    env, seen, info = entered(task(urls["way"], show=["text"], limit=2, scale=[-0.2, 1]))
    assert (seen, info["actions"]) == ("Go left. Seed 0.", ["left", "right", "wait"])
    assert env.step("fly").observation == "That is not an action. The actions are: left, right, wait."
    assert at_random(env, info["actions"], (), random.Random(0)) in info["actions"]
    last = env.step("wait")
    assert (last.truncated, last.info["score"], last.info["raw"]) == (True, 0.0, -0.1)


@slow
def test_an_action_of_several_fields_is_a_call(urls):
    env, _, info = entered(task(urls["move"]))
    (tool,) = info["tools"]
    parameters = tool["function"]["parameters"]
    assert (tool["function"]["name"], tool["function"]["description"]) == ("act", "Walk.")
    assert (sorted(parameters["properties"]), parameters["required"]) == (["steps", "to", "why"], ["to", "steps"])
    assert env.step("left").observation == "Error: one call is understood here, of one of the tools: act"
    assert env.step('{"name": "act", "arguments": {"to": "up", "steps": 1}}').observation == "Error: Invalid message"
    assert env.step('{"name": "act", "arguments": {"to": "left", "steps": 3}}').info["score"] == 1.0


@slow
def test_the_tools_of_a_world_are_called(urls):
    env, seen, info = entered(task(urls["tools"], limit=3))
    (tool,) = info["tools"]
    assert tool["function"]["name"] == "add" and set(tool["function"]["parameters"]["properties"]) == {"a", "b"}
    assert seen
    assert "4" in env.step('{"name": "add", "arguments": {"a": 3}}').observation
    assert env.step('{"name": "add", "arguments": {"a": "x"}}').observation
    assert env.step('{"name": "add", "arguments": {"a": 2, "b": 3}}').info["score"] == 1.0


@slow
def test_what_the_world_raises_is_an_observation_and_at_the_reset_a_loss(urls):
    env, *_ = entered(task(urls["word"], show=["text"]))
    assert env.step("explode").observation == "error: Error: the ceiling came down".partition(": ")[2]
    assert env.step("left").terminated
    with pytest.raises(RuntimeError, match="reset: the ceiling came down"):
        env.reset(task(urls["word"], reset={"hint": "break"}))
    assert "softly" in env.reset(task(urls["word"], reset={"hint": "softly"}))[0]
    with pytest.raises(RuntimeError, match="step: "):
        env.step("huge")
    env.close()


@slow
def test_malformed_actions_are_answered(urls):
    for url in urls.values():
        env, *_ = entered(task(url, limit=40))
        for action in (
            "",
            "\x00\x1b[2J",
            "\ud800 half",
            "[" * 5_000,
            '{"name": 5}',
            '{"name": "act", "arguments": {"to": NaN}}',
            "日本",
        ):
            assert env.step(action).observation
        env.close()


@slow
def test_a_server_of_one_session_takes_one_attempt_after_the_other_and_says_so_to_more(urls):
    for seed in range(4):
        env, *_ = entered(task(urls["single"], seed))
        env.close()
    env, *_ = entered(task(urls["single"]))
    with pytest.raises(AgentevolveError, match="give no more --workers than it has sessions"):
        entered(task(urls["single"]))
    env.close()


@slow
def test_a_run_plays_and_learns_there_by_the_command_line(urls, ask, tmp_path):
    from worlds import new_run, use_model

    (tmp_path / "way.yaml").write_text(TASKS.format(url=urls["way"]))
    code, _, err = ask("run", "way.yaml", "--model", "random", "--split", "val", "--out", "r", "--quiet")
    assert (code, err) == (0, "run: r\n")
    task_set = load_task_set(tmp_path / "way.yaml")
    ready(task_set)
    run = new_run(tmp_path / "scripted", workers=2)
    goes = ScriptedModel(lambda messages, choices: "right" if "right" in messages[-1].content.split("Actions")[0] else "left")
    policy = use_model(run, goes, Policy(model="random"))
    lived = rollout(policy, tasks_of(task_set, "train"), run, phase="1/acquire")
    run.close()
    assert [one.reward for one in lived] == [1.0] * 8


# ---- what is no server of OpenEnv

WRONG = {
    "404": (404, b"{}"),
    "html": (200, b"<html>"),
    "list": (200, b"[]"),
    "older": (200, b'{"action": {"properties": []}}'),
    "deep": (200, b'{"action": ' * 90_000),
    "endless": (200, b" " * 6_000_000),
}


@pytest.fixture(scope="module")
def stranger():
    """A server of something else: what it says is in its path."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, text = WRONG[self.path.split("/")[1]]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def refused(call, *given) -> str:
    with pytest.raises(AgentevolveError) as caught:
        call(*given)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.mark.parametrize("what", WRONG)
def test_another_server_is_one_line(stranger, what):
    assert "is no OpenEnv server of a version that is known" in refused(form_of, f"{stranger}/{what}")


def test_a_server_that_does_not_answer_is_one_line_of_the_command(ask, tmp_path):
    (tmp_path / "way.yaml").write_text(TASKS.format(url="http://127.0.0.1:9"))
    code, _, err = ask("run", "way.yaml", "--model", "random")
    assert code == 2 and "task set 'way': openenv:http://127.0.0.1:9 does not answer: " in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "url", ["ftp://a", "127.0.0.1:8000", "http://", "http://me:secret@a", "http://a?k=v", "http://a b", "http://[", ""]
)
def test_what_is_no_address_is_one_line_that_tells_no_secret(url, ask, tmp_path):
    (tmp_path / "way.yaml").write_text(TASKS.format(url=url) if url else TASKS.format(url=url).replace("openenv:", "'openenv:'"))
    code, _, err = ask("tasks", "way.yaml")
    assert code == 2 and err.count("\n") == 1 and "secret" not in err
    assert "an address such as http://127.0.0.1:8000 is wanted" in err or "does not say which: openenv:URL" in err


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"limit": 0}, "settings.limit: 0"),
        ({"scale": [1, 0]}, "is not [low, high]"),
        ({"scale": 1}, "settings.scale: 1 is not a list"),
        ({"reset": {"seed": 5}}, "the seed is the task's"),
        ({"show": [1]}, "names of the world's own"),
        ({"wait": 1}, "unknown key 'wait'; known: reset, notes, show, limit, scale"),
    ],
)
def test_unusable_settings_are_one_line(data, why):
    env = load_environment("openenv:http://127.0.0.1:9")()
    assert why in refused(env.reset, task("http://127.0.0.1:9", **data))


def test_a_world_that_speaks_another_language_loses_the_attempt(stranger):
    said = iter(['{"type": "state", "data": {}}', "no JSON", '{"type": "observation", "data": {"observation": 5}}',
                 '{"type": "observation", "data": {"observation": {}, "reward": NaN}}',
                 '{"type": "error", "data": {"code": "FACTORY_ERROR", "message": "no\\nroom"}}'])  # fmt: skip

    def handle(line):
        line.recv()
        line.send(next(said))

    from agentevolve.environments.support.openenv import Session

    with websockets.sync.server.serve(handle, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        for _ in range(4):
            with pytest.raises(RuntimeError, match=r"^openenv:http://127.0.0.1:\d+: reset: "):
                Session(url).reset({})
        assert "reset: no room" in refused(Session(url).reset, {})
        server.shutdown()
    assert "takes no session" in refused(Session(stranger + "/404").reset, {})


def test_an_address_ends_without_a_slash_and_a_form_refuses_what_it_cannot_send():
    assert checked_address("https://a.example/world/") == "https://a.example/world"
    assert Form("word").payload("\ud800") == {"word": "?"}
