"""Spans of attempts by OpenTelemetry's own exporter into a receiver: names, parents, tokens; and what is not told."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest
from faulty import Server, backend_words, walk
from lives import CALL, HOSTILE, SECRET, TOOLS
from receiver import Receiver
from worlds import learner, make_tasks, new_run, task_file, use_model

from agentevolve.act.rollout import rollout
from agentevolve.doors import traces
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy, Recall
from agentevolve.records import Entry, Task
from agentevolve.refine import demos
from agentevolve.run.folder import read_run
from agentevolve.run.spans import listen, span
from agentevolve.update import remember

HALF = "\ud83d"
CLIENT, INTERNAL = 3, 1
ERROR = 2


@pytest.fixture
def receiver(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    with Receiver() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
        yield made
        traces.stop()


@pytest.fixture
def ran(receiver, ask, tmp_path):
    """A run by the command line with a served model; what was received."""
    task_file(tmp_path, length=2)

    def run(*words, **faults):
        with Server(walk, **faults) as server:
            code, _, err = ask("run", "corridor.yaml", "--limit", "3", "--out", "r", "--quiet", *backend_words(server), *words)
        traces.stop()
        assert (code, err) == (0, "run: r\n")
        return receiver

    return run


def test_an_attempt_is_a_trace_of_its_own_with_the_conventions_names(ran, tmp_path):
    got = ran()
    made = read_run(tmp_path / "r").trajectories
    assert got.paths == {"/v1/traces"}
    agents = got.named("invoke_agent")
    assert {one.attributes["gen_ai.conversation.id"] for one in agents} == set(made)
    assert len({one.trace for one in agents}) == 3 and not any(one.parent for one in agents)
    for agent in agents:
        one = made[agent.attributes["gen_ai.conversation.id"]]
        below = sorted((span for span in got.spans if span.parent == agent.id), key=lambda span: span.start)
        assert [span.name for span in below] == ["chat openai/test", "execute_tool step"] * len(one.turns)
        assert all(span.trace == agent.trace and agent.start <= span.start <= span.end <= agent.end for span in below)
        assert (agent.name, agent.kind) == ("invoke_agent agentevolve", INTERNAL)
        told = agent.attributes
        assert (told["gen_ai.agent.name"], told["gen_ai.request.model"]) == ("agentevolve", "openai/test")
        assert (told["agentevolve.task.id"], told["agentevolve.task.split"]) == (one.task.id, "val")
        assert (told["agentevolve.reward"], told["agentevolve.solved"], told["agentevolve.turns"]) == (1.0, True, 2)
        assert agent.resource["service.name"] == "agentevolve"
    assert len(got.spans) == 3 * 5


def test_a_request_tells_its_tokens_and_its_provider(ran, tmp_path):
    got = ran()
    spent = read_run(tmp_path / "r").spent()
    chats = got.named("chat")
    assert {one.kind for one in chats} == {CLIENT}
    told = [one.attributes for one in chats]
    assert sum(one["gen_ai.usage.input_tokens"] for one in told) == spent.prompt_tokens
    assert sum(one["gen_ai.usage.output_tokens"] for one in told) == spent.completion_tokens
    first = told[0]
    assert (first["gen_ai.provider.name"], first["gen_ai.request.model"], first["server.address"]) == (
        "openai",
        "openai/test",
        "127.0.0.1",
    )
    assert first["gen_ai.response.finish_reasons"] == ["stop"] and first["gen_ai.response.id"] == "chatcmpl-1"
    assert first["gen_ai.request.temperature"] == 0.7 and first["gen_ai.request.seed"] > 0


def test_each_try_is_a_request_and_says_why_it_failed(ran):
    got = ran(faults=lambda asked: "500" if asked.number == 0 else "")
    failed = [one for one in got.named("chat") if one.status == ERROR]
    assert [one.attributes["error.type"] for one in failed] == ["500"]
    assert len(got.named("chat")) == 7 and not [one for one in got.named("invoke_agent") if one.status == ERROR]


def test_nothing_that_was_said_is_told_unless_it_is_asked_for(ran):
    got = ran()
    assert "the lamp is" not in str([one.attributes for one in got.spans])


def test_content_is_told_in_the_conventions_form_when_asked(ran, monkeypatch):
    monkeypatch.setenv(traces.CONTENT, "true")
    got = ran()
    told = got.named("chat")[0].attributes
    [asked] = json.loads(told["gen_ai.input.messages"])
    assert asked["role"] == "user" and asked["parts"][0]["type"] == "text" and "Corridor" in asked["parts"][0]["content"]
    assert "next action" in json.loads(told["gen_ai.system_instructions"])[0]["content"]
    [said] = json.loads(told["gen_ai.output.messages"])
    assert said["parts"][0]["content"] in ("left", "right") and said["finish_reason"] == "stop"
    tool = got.named("execute_tool")[0].attributes
    assert tool["gen_ai.tool.call.arguments"] in ("left", "right") and "Corridor" in tool["gen_ai.tool.call.result"]


def test_memory_is_told_as_it_is_searched_and_filled(receiver, tmp_path):
    traces.start()
    run = new_run(tmp_path / "r", workers=1)
    won = rollout(Policy(model="oracle"), make_tasks(2, length=2), run, phase="1/acquire")
    policy = remember(Policy(model="random", recall=Recall(nearest={"demo": 1})), demos(won, 1), run)
    use_model(run, ScriptedModel(learner), policy)
    [one] = rollout(policy, make_tasks(1, split="val", length=2), run, phase="1/val/memory", measuring=True)
    run.close()
    traces.stop()
    [filled] = receiver.named("create_memory")
    assert filled.name == "create_memory r/memory" and filled.attributes["gen_ai.memory.record.count"] == 2
    [looked] = receiver.named("search_memory")
    agent = receiver.named("invoke_agent")[-1]
    assert (looked.parent, looked.trace, looked.name) == (agent.id, agent.trace, "search_memory r/memory")
    assert looked.attributes["gen_ai.memory.store.id"] == "r/memory"
    assert looked.attributes["gen_ai.memory.record.id"] == one.recalled[0]
    assert looked.attributes["gen_ai.memory.record.count"] == 1 and "gen_ai.memory.query.text" not in looked.attributes
    assert agent.attributes["agentevolve.recalled"] == list(one.recalled)
    assert str(tmp_path) not in str(receiver.spans)


def test_a_lost_attempt_is_an_error_with_its_type(receiver, tmp_path):
    traces.start()
    run = new_run(tmp_path / "r", workers=1)
    rollout(Policy(model="oracle"), make_tasks(2, env="Broken"), run, phase="1/acquire")
    run.close()
    traces.stop()
    states = {one.attributes["agentevolve.task.id"]: one for one in receiver.named("invoke_agent")}
    assert states["corridor/train/0"].status != ERROR
    lost = states["corridor/train/1"]
    assert (lost.status, lost.attributes["error.type"], lost.attributes["agentevolve.end"]) == (ERROR, "OSError", "error")


def test_hostile_text_and_secrets_get_there_as_text_or_not_at_all(receiver):
    traces.start(content=True)
    entry = Entry(id=f"i {HOSTILE}", kind="insight", key="k", text=f"{HOSTILE} {SECRET}", env="e")
    with span("create_memory", memory=f"r{HOSTILE}/memory", entries=[entry]):
        pass
    with span("execute_tool", action=CALL, tools=TOOLS, env="e") as told:
        told.set(step=None)
    traces.stop()
    [got], [tool] = receiver.named("create_memory"), receiver.named("execute_tool")
    [record] = json.loads(got.attributes["gen_ai.memory.records"])
    assert record["content"] == HOSTILE.replace(HALF, "\\ud83d") + " [secret]"
    assert tool.name == "execute_tool open_door"
    assert json.loads(tool.attributes["gen_ai.tool.call.arguments"]) == {"door": "red"}


def test_a_listener_is_told_once_and_no_more_after_the_stop(receiver):
    traces.start()
    traces.start()
    with span("execute_tool", action="x", tools=(), env="e"):
        pass
    traces.stop()
    with span("execute_tool", action="x", tools=(), env="e"):
        pass
    traces.stop()
    assert len(receiver.spans) == 1


OFF = """
import sys
from agentevolve.doors import traces
from agentevolve.cli import main
traces.start_when_asked()
assert not any(name.startswith("opentelemetry") for name in sys.modules), "imported"
from agentevolve.run.spans import span
with span("execute_tool", action="x", tools=(), env="e"):
    pass
print(any(name.startswith("opentelemetry") for name in sys.modules))
"""


@pytest.mark.parametrize(
    ("settings", "on"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}, True),
    ],
)
def test_nothing_of_opentelemetry_is_imported_before_a_span_is_asked_for(settings, on):
    settings = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | settings
    done = subprocess.run([sys.executable, "-c", OFF], env=settings, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == (f"{on}\n", 0), done.stderr


def test_a_run_does_not_suffer_from_a_receiver_that_is_not_there(ask, tmp_path):
    task_file(tmp_path, length=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, not listening: every connection is refused
        settings = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free.getsockname()[1]}"}
        settings["PYTHONPATH"] = os.pathsep.join(sys.path)
        words = ["run", "corridor.yaml", "--model", "oracle", "--limit", "2", "--out", "r", "--quiet"]
        code = "from agentevolve.cli.main import main; main()"
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code, *words], env=settings, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0 and time.monotonic() - began < 60
    assert len(read_run(tmp_path / "r").trajectories) == 2
    told, complaint = done.stderr.splitlines()
    assert told == "run: r" and "refused" in complaint


def test_without_the_packages_it_is_said_once_and_the_run_goes_on(receiver, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    traces.start_when_asked()
    for _ in range(2):
        with span("execute_tool", action="x", tools=(), env="e"):
            pass
    listen(None)
    said = 'no traces: traces need the extra "traces": pip install "agentevolve[traces]"\n'
    assert capsys.readouterr().err == said


def test_what_cannot_be_described_or_started_ends_nothing(receiver, monkeypatch, capsys):
    traces.start()
    with span("execute_tool", action=3, tools=TOOLS, env="e"):
        pass
    traces.stop()
    [got] = receiver.spans
    assert (got.name, got.attributes["agentevolve.undescribed"][:9]) == ("execute_tool", "TypeError")
    monkeypatch.setattr(traces, "start", lambda: int("no number"))
    traces.start_when_asked()
    for _ in range(2):
        with span("execute_tool", action="x", tools=(), env="e"):
            pass
    assert capsys.readouterr().err.count("no traces: invalid literal") == 1


def test_what_listens_hears_of_tasks_with_hostile_ids(receiver, tmp_path):
    traces.start()
    run = new_run(tmp_path / "r", workers=1)
    task = Task(id=f"corridor/{HOSTILE.replace(HALF, '')}", env="worlds:Corridor", split="train", data={"length": 1})
    rollout(Policy(model="oracle"), [task], run, phase="1/acquire")
    run.close()
    traces.stop()
    assert receiver.named("invoke_agent")[0].attributes["agentevolve.task.id"] == task.id
