"""A policy behind OpenAI's chat route, called by clients that are not ours; what it is asked becomes attempts to learn from."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from served import KEY, served
from worlds import make_tasks, new_run, walker

from agentevolve.act.prompting import conversation
from agentevolve.act.rollout import rollout
from agentevolve.policy import Policy, Recall
from agentevolve.protocols import ModelError
from agentevolve.records import Message, Usage
from agentevolve.refine import best, demos
from agentevolve.run.folder import read_run
from agentevolve.update import remember

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


ASKED = {"messages": [{"role": "user", "content": "a"}]}


def echo(messages, choices) -> str:
    return f"{len(messages)}: {messages[-1].content}"


def script_of(answers):
    """A script that gives, or raises, one of these after the other."""
    left = iter(answers)

    def script(messages, choices):
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return script


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
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "a content is text, or parts of text alone"),
        ({"messages": [{"role": "assistant", "tool_calls": [1]}, {"role": "user"}]}, 400, "tool_calls that nobody can read"),
        ({"messages": [{"role": "user", "content": 5}]}, 400, "a content is text, or parts of text alone"),
        (ASKED | {"n": 2}, 400, "n: only 1 is answered"),
        (ASKED | {"response_format": {"type": "json_object"}}, 400, 'response_format: only {"type": "text"} is answered'),
        (ASKED | {"tool_choice": "none"}, 400, 'tool_choice: only "auto" or "required" is answered'),
        (ASKED | {"temperature": "hot"}, 400, "temperature: a number from 0 to 2 is wanted"),
        (ASKED | {"temperature": True}, 400, "temperature: a number from 0 to 2 is wanted"),
        (ASKED | {"temperature": float("nan")}, 400, "temperature: a number from 0 to 2 is wanted"),
        (ASKED | {"seed": 1.5}, 400, "seed: a whole number from -9223372036854775808 to 18446744073709551615 is wanted"),
        (ASKED | {"max_tokens": 0}, 400, "max_tokens: a whole number from 1 to 2147483647 is wanted"),
        (ASKED | {"max_completion_tokens": "9"}, 400, "max_completion_tokens: a whole number from 1 to 2147483647 is wanted"),
        (ASKED | {"stop": 5}, 400, "stop: a text, or a list of texts is wanted"),
        (ASKED | {"stop": ["a", 5]}, 400, "stop: a text, or a list of texts is wanted"),
        (ASKED | {"tools": {"a": 1}}, 400, "tools: a list of objects is wanted"),
        (ASKED | {"tools": [{"type": "function"}]}, 400, "tools: each has to be a function with a name"),
        (ASKED | {"tools": [{"function": {"name": "f", "parameters": 5}}]}, 400, "the parameters of 'f' are not a schema"),
        ([1], 400, "the request is not a JSON object"),
        ({"messages": [{"role": "user", "content": "a" * 4_000_001}]}, 413, "the request is larger than 4,000,000 bytes"),
    ],
)
def test_a_bad_request_is_one_line_and_journals_nothing(tmp_path, body, status, why):
    with served(tmp_path, echo) as house:
        answer = house.post("/chat/completions", body)
        error = answer.json()["error"]
        assert answer.status_code == status and why in error["message"] and set(error) == {"message", "type", "param", "code"}
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
    script = script_of([ModelError("no luck", 500), "fine", ModelError("none again", 500), "finer"])
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


def test_what_failed_answers_cost_is_journalled_with_the_conversation_or_beside_it(tmp_path):
    paid = Usage(calls=1, prompt_tokens=40, completion_tokens=2)
    lost = ModelError("cut off", 200, paid)
    script = script_of([lost, "fine", lost, "finer"])
    with served(tmp_path, script) as house:
        assert house.ask("hi").status_code == 502
        assert read_run(house.run.folder).spent().tokens == 42  # at once: nobody has to come back for it
        house.ask("hi")
        assert house.ask("hi", "fine", "and?").status_code == 502
        house.ask("hi", "fine", "and?")
    (one,) = house.lived().values()
    assert (one.failed, one.usage.tokens) == (paid, 20 + 42)
    assert read_run(house.run.folder).spent().tokens == 20 + 42 + 42


def test_conversations_in_which_the_same_was_said_both_go_on(tmp_path):
    with served(tmp_path, echo) as house:
        for _ in range(2):
            house.ask("hello", task="t")
        for _ in range(2):
            house.ask("hello", "1: hello", "again", task="t")
    assert [[turn.action for turn in one.turns] for one in house.lived().values()] == [["1: hello", "3: again"]] * 2


def test_a_reward_that_comes_while_an_answer_is_made_is_kept_and_so_is_what_that_costs(tmp_path):
    asked, rewarded = threading.Event(), threading.Event()

    def slow(messages, choices):
        if len(messages) > 1:
            asked.set()
            rewarded.wait(30)
        return "so"

    with served(tmp_path, slow) as house, ThreadPoolExecutor() as pool:
        house.ask("hi", task="t")
        late = pool.submit(house.ask, "hi", "so", "and?", task="t")
        assert asked.wait(30)
        assert house.post("/reward", {"task": "t", "reward": 1}).json() == {"rewarded": 1}
        rewarded.set()
        assert late.result().status_code == 200
        (one,) = house.lived().values()
        assert (len(one.turns), one.usage.tokens, read_run(house.run.folder).spent().tokens) == (1, 10, 20)


def test_a_server_that_starts_again_gives_no_conversation_a_name_that_was_had(tmp_path):
    with served(tmp_path, echo) as house:
        house.ask("one", task="t")
        house.ask("two", task="t")
        house.post("/reward", {"conversation": "served/t/1", "reward": 1})
        journal = house.run.folder / "journal.jsonl"
        kept = journal.read_text()
    journal.write_text(kept)  # as after a kill: the first conversation was never journalled
    with served(tmp_path, echo) as house:
        assert house.ask("three", task="t").headers["X-Agentevolve-Conversation"] == "served/t/2"


def test_many_ask_at_once_and_each_gets_its_own_answer(tmp_path):
    with served(tmp_path, echo) as house, ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda number: house.ask(f"number {number}", task=f"t{number}"), range(96)))
        said = [one.json()["choices"][0]["message"]["content"] for one in answers]
        assert said == [f"1: number {number}" for number in range(96)]
    assert len(house.lived()) == 96


def test_what_is_not_there_is_said_in_the_same_form(tmp_path):
    with served(tmp_path, echo) as house:
        assert house.get("/models/agentevolve").json()["id"] == "agentevolve"
        for answer, status, why in (
            (house.get("/models/gpt-5"), 404, "there is no model 'gpt-5'; known: agentevolve"),
            (house.get("/nothing"), 404, "GET /v1/nothing: Not Found"),
            (house.get("/chat/completions"), 405, "GET /v1/chat/completions: Method Not Allowed"),
        ):
            assert (answer.status_code, answer.json()["error"]["message"]) == (status, why)
