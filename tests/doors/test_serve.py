"""A policy behind OpenAI's chat route, called by clients that are not ours; what it is asked becomes attempts to learn from."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from worlds import Metered, make_tasks, new_run, use_model, walker

from agentevolve.act.prompting import conversation
from agentevolve.act.rollout import rollout
from agentevolve.doors import serve
from agentevolve.doors.talks import Talks
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy, Recall
from agentevolve.protocols import ModelError
from agentevolve.records import Message
from agentevolve.refine import best, demos
from agentevolve.run.folder import Run, read_run
from agentevolve.update import remember

KEY = "the key"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


class House:
    """A served run: where it is, and what the model was shown."""

    def __init__(self, run: Run, model: ScriptedModel, url: str) -> None:
        self.run, self.model, self.url = run, model, url

    def post(self, route: str, body: object, **headers: str) -> httpx.Response:
        sent = {"Authorization": f"Bearer {KEY}"} | {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(self.url + route, json=body, headers=sent, trust_env=False)

    def ask(self, *said: str, task: str = "") -> httpx.Response:
        roles = ["user", "assistant"] * len(said)
        messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
        return self.post("/chat/completions", {"model": "any", "messages": messages}, X_Agentevolve_Task=task)

    def lived(self) -> dict[str, object]:
        return read_run(self.run.folder).trajectories


@contextmanager
def served(tmp_path, script, policy: Policy | None = None, prepare=lambda run: None) -> Iterator[House]:
    run = new_run(tmp_path / "served", workers=2)
    prepare(run)
    policy, model = policy or Policy(model="random"), ScriptedModel(script)
    use_model(run, Metered(run, model), policy)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    app = serve.application(Talks(policy, run, "worlds:Corridor"), KEY, [f"127.0.0.1:{port}"])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.02)
    try:
        yield House(run, model, f"http://127.0.0.1:{port}/v1")
    finally:
        server.should_exit = True
        thread.join()
        run.close()


def echo(messages, choices) -> str:
    return f"{len(messages)}: {messages[-1].content}"


def test_a_conversation_is_one_attempt_with_its_reward_turn_by_turn(tmp_path):
    with served(tmp_path, echo) as house:
        first = house.ask("where to?", task="t1")
        said = first.json()["choices"][0]["message"]["content"]
        assert (first.status_code, said) == (200, "1: where to?")
        assert first.json()["usage"] == {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
        second = house.ask("where to?", said, "you see a lamp", task="t1")
        assert second.json()["choices"][0]["message"]["content"] == "3: you see a lamp"
        assert second.headers["X-Agentevolve-Conversation"] == first.headers["X-Agentevolve-Conversation"] == "served/t1/0"
        assert house.lived() == {}
        assert house.post("/reward", {"task": "t1", "reward": 1}).json() == {"rewarded": 1}
        (one,) = house.lived().values()
        assert (one.id, one.phase, one.reward, one.task.split) == ("1/acquire/served/t1/0", "1/acquire", 1.0, "train")
        assert (one.system, one.prompt) == ("", "where to?")
        assert [turn.action for turn in one.turns] == ["1: where to?", "3: you see a lamp"]
        assert [turn.observation for turn in one.turns] == ["you see a lamp", ""]
        assert one.usage.tokens == 20
        before, after = conversation(one, keep_context=False)
        shown = house.model.calls[-1][0]
        assert [*before, *after[:-1]] == list(shown)  # a student is shown what was answered
        assert house.post("/reward", {"task": "t1", "reward": 1}).status_code == 404


def test_conversations_of_one_task_are_told_apart_and_one_without_a_reward_teaches_nothing(tmp_path):
    with served(tmp_path, echo) as house:
        ids = [house.ask("hello", task="t").headers["X-Agentevolve-Conversation"] for _ in range(3)]
        assert ids == ["served/t/0", "served/t/1", "served/t/2"]
        assert house.post("/reward", {"conversation": ids[1], "reward": 0.5}).json() == {"rewarded": 1}
        assert [one.reward for one in house.lived().values()] == [0.5]
    lived = house.lived()
    assert {one.phase for id, one in lived.items() if id != "1/acquire/served/t/1"} == {"served"}
    assert len(lived) == 3 and best(list(lived.values())) == []
    assert [one.id for one in read_run(house.run.folder).acquired()] == ["1/acquire/served/t/1"]


def test_what_a_run_remembers_is_recalled_at_the_start_and_stays(tmp_path):
    policy = Policy(model="random", recall=Recall(nearest={"demo": 1}))
    remembering = []

    def prepare(run):
        won = rollout(Policy(model="oracle"), make_tasks(2, length=2), run, phase="1/acquire")
        remembering.append(remember(policy, demos(won, 1), run))

    run = new_run(tmp_path / "taught")
    prepare(run)
    run.close()
    policy = remembering[0]

    def recalling(messages, choices):
        return walker(messages, choices) if any("was solved" in one.content for one in messages) else "wait"

    with served(tmp_path, recalling, policy) as house:
        first = house.ask("Corridor one: the lamp is left, you stand at 0.", task="lamp")
        said = first.json()["choices"][0]["message"]["content"]
        assert said == "left"  # it waits without a game that was won
        house.ask("Corridor one: the lamp is left, you stand at 0.", said, "Corridor one: the lamp is left, you stand at -1.")
        opened, later = house.model.calls[0][0], house.model.calls[1][0]
        assert later[: len(opened)] == opened and len(later) == len(opened) + 2
        house.post("/reward", {"task": "lamp", "reward": 1})
        (one,) = house.lived().values()
        assert one.recalled and one.demos and conversation(one, keep_context=True)[0] == list(opened)


def test_the_openai_client_and_litellm_reach_it(tmp_path):
    import litellm
    import openai

    with served(
        tmp_path, lambda messages, choices: '{"name": "look", "arguments": {}}' if "call" in messages[-1].content else "ok"
    ) as house:
        client = openai.OpenAI(base_url=house.url, api_key=KEY)
        assert [model.id for model in client.models.list()] == ["agentevolve"]
        asked = [{"role": "developer", "content": "Play."}, {"role": "user", "content": [{"type": "text", "text": "call it"}]}]
        made = client.chat.completions.create(model="agentevolve", messages=asked, tools=[TOOL], temperature=0.5)
        (call,) = made.choices[0].message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("look", {})
        assert made.choices[0].finish_reason == "tool_calls"
        back = [*asked, made.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "a lamp"}]
        assert client.chat.completions.create(model="agentevolve", messages=back, tools=[TOOL]).choices[0].message.content == "ok"
        assert len(house.run.trajectories) == 0 and len(house.model.calls) == 2
        pieces = list(client.chat.completions.create(model="agentevolve", messages=asked, stream=True))
        assert "".join(one.choices[0].delta.content or "" for one in pieces if one.choices)[:8] == '{"name":'
        assert pieces[-1].usage.total_tokens == 10
        told = litellm.completion(
            model="openai/agentevolve", api_base=house.url, api_key=KEY, messages=[{"role": "user", "content": "hi"}]
        )
        assert told.choices[0].message.content == "ok"
    turns = [len(one.turns) for one in house.lived().values()]
    assert sorted(turns) == [1, 1, 2]


def test_an_answer_ends_before_a_stop_and_the_conversation_goes_on(tmp_path):
    with served(tmp_path, lambda messages, choices: "yes\nuser: no") as house:
        asked = {"messages": [{"role": "user", "content": "?"}], "stop": "\nuser"}
        assert house.post("/chat/completions", asked).json()["choices"][0]["message"]["content"] == "yes"
        house.ask("?", "yes", "sure?")
        assert len(house.model.calls[1][0]) == 3
    (one,) = house.lived().values()
    assert len(one.turns) == 2


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        ({"messages": "hi"}, 400, "messages: a list of objects is wanted"),
        ({"messages": []}, 400, "messages: the last one has to be the user's"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, 400, "messages: the last one has to be the user's"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, 400, "the role 'wizard' is not known; known: system, developer"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "parts of text alone are read"),
        ({"messages": [{"role": "assistant", "tool_calls": [1]}, {"role": "user"}]}, 400, "tool_calls that nobody can read"),
        ({"messages": [{"role": "user", "content": "a"}], "n": 2}, 400, "n: only 1 is answered"),
        ([1], 400, "the request is not a JSON object"),
        ({"messages": [{"role": "user", "content": "a" * 4_000_001}]}, 413, "the request is larger than 4,000,000 bytes"),
    ],
)
def test_a_bad_request_is_one_line_and_journals_nothing(tmp_path, body, status, why):
    with served(tmp_path, echo) as house:
        answer = house.post("/chat/completions", body)
        assert answer.status_code == status and why in answer.json()["error"]["message"]
        assert house.ask("still there?").status_code == 200
        for bad in ({"task": "t"}, {"task": "t", "reward": 2}, {"task": "t", "reward": True}, {"reward": 1}):
            assert house.post("/reward", bad).status_code == 400
    assert [one.phase for one in house.lived().values()] == ["served"]


def test_without_the_key_or_by_another_name_nobody_is_answered(tmp_path):
    with served(tmp_path, echo) as house:
        assert house.post("/chat/completions", {}, Authorization="Bearer wrong").status_code == 401
        assert httpx.get(f"{house.url}/models", trust_env=False).status_code == 401
        assert house.post("/chat/completions", {}, Host="evil.example").status_code == 403
        assert (
            httpx.post(f"{house.url}/chat/completions", content=b"{", headers={"Authorization": f"Bearer {KEY}"}).status_code
            == 400
        )
        assert house.model.calls == []


def test_what_the_model_cannot_do_is_an_error_and_the_conversation_can_be_tried_again(tmp_path):
    answers = iter([ModelError("no luck", 500), "fine", ModelError("none again", 500), "finer"])

    def script(messages, choices):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with served(tmp_path, script) as house:
        assert house.ask("hi").status_code == 502
        assert house.ask("hi").json()["choices"][0]["message"]["content"] == "fine"
        assert house.ask("hi", "fine", "and now?").status_code == 502
        assert house.ask("hi", "fine", "and now?").json()["choices"][0]["message"]["content"] == "finer"
    (one,) = house.lived().values()
    assert [turn.action for turn in one.turns] == ["fine", "finer"]


def test_what_is_held_out_is_answered_and_measured_and_never_learnt_from(tmp_path):
    with served(tmp_path, lambda messages, choices: choices[-1]) as house:
        body = {"messages": [{"role": "user", "content": "?"}], "structured_outputs": {"choice": ["a", "b"]}}
        named = {"X_Agentevolve_Task": "t", "X_Agentevolve_Split": "val"}
        assert house.post("/chat/completions", body, **named).json()["choices"][0]["message"]["content"] == "b"
        house.post("/reward", {"task": "t", "reward": 1})
        for wrong, why in (
            ({"X_Agentevolve_Split": "dev"}, "'dev' is not known; known: train, val, test"),
            ({}, "a list of texts"),
        ):
            bad = body if wrong else body | {"structured_outputs": {"choice": [1]}}
            assert why in house.post("/chat/completions", bad, **wrong).json()["error"]["message"]
    (one,) = house.lived().values()
    assert (one.phase, one.task.split, one.reward, one.end) == ("served", "val", 1.0, "terminated")


def test_messages_of_an_example_stay_before_the_task(tmp_path):
    with served(tmp_path, echo) as house:
        asked = [
            {"role": "system", "content": "Rules."},
            {"role": "user", "content": "1+1"},
            {"role": "assistant", "content": "2"},
        ]
        house.post("/chat/completions", {"messages": [*asked, {"role": "user", "content": "2+2"}]})
        assert [one.content for one in house.model.calls[0][0]] == ["Rules.", "1+1", "2", "2+2"]
    (one,) = house.lived().values()
    assert (one.system, one.prompt) == ("Rules.", "2+2")
    assert one.demos == (Message(role="user", content="1+1"), Message(role="assistant", content="2"))
