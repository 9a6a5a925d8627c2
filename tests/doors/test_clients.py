"""The clients that most harnesses are built on, openai's and LiteLLM, on the served address: they get what they ask for."""

import asyncio
import json
import subprocess
import sys

import openai
import pytest
from served import KEY, served, settings

TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}
CALL = '{"name": "look", "arguments": {"at": "the door"}}'


def script(messages, choices) -> str:
    return CALL if "call" in messages[-1].content else f"{len(messages)}: {messages[-1].content}"


@pytest.fixture
def house(tmp_path):
    with served(tmp_path, script) as one:
        yield one


@pytest.fixture
def client(house):
    return openai.OpenAI(base_url=house.url, api_key=KEY, max_retries=0)


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def test_openais_client_calls_tools_and_goes_on(house, client):
    assert [model.id for model in client.models.list()] == ["agentevolve"]
    assert client.models.retrieve("agentevolve").owned_by == "agentevolve"
    asked = [{"role": "developer", "content": "Play."}, {"role": "user", "content": [{"type": "text", "text": "call it"}]}]
    made = client.chat.completions.create(model="agentevolve", messages=asked, tools=[TOOL], temperature=0.5, seed=2**40)
    (call,) = made.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("look", {"at": "the door"})
    assert made.choices[0].finish_reason == "tool_calls"
    back = [*asked, made.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "a lamp"}]
    told = client.chat.completions.create(model="agentevolve", messages=back, tools=[TOOL])
    assert (told.choices[0].message.content, told.choices[0].finish_reason) == ("4: a lamp", "stop")
    assert len(house.run.trajectories) == 0 and len(house.model.calls) == 2


def test_openais_client_streams_and_counts_where_it_asks_to(client):
    asked = {"model": "agentevolve", "messages": user("hi"), "stream": True}
    plain = list(client.chat.completions.create(**asked))
    assert all(len(one.choices) == 1 for one in plain)  # many read the first choice of whatever comes
    assert "".join(one.choices[0].delta.content or "" for one in plain) == "1: hi"
    assert (plain[0].choices[0].delta.role, plain[-1].choices[0].finish_reason) == ("assistant", "stop")
    counted = list(client.chat.completions.create(**asked, stream_options={"include_usage": True}))
    assert counted[-1].usage.total_tokens == 10 and counted[-1].choices == []
    with client.chat.completions.stream(model="agentevolve", messages=user("call it"), tools=[TOOL]) as stream:
        stream.until_done()
        (call,) = stream.get_final_completion().choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("look", {"at": "the door"})


def test_openais_client_is_told_what_it_may_have(house, client):
    cut = client.chat.completions.create(model="agentevolve", messages=user("hi"), max_completion_tokens=1)
    assert cut.choices[0].finish_reason == "length"  # the stand-in counts one token of every answer
    stopped = client.chat.completions.create(model="agentevolve", messages=user("a b c"), stop=[" b", "?"])
    assert stopped.choices[0].message.content == "1: a"
    with pytest.raises(openai.BadRequestError, match="n: only 1 is answered"):
        client.chat.completions.create(model="agentevolve", messages=user("hi"), n=2)
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-5'"):
        client.models.retrieve("gpt-5")
    with pytest.raises(openai.AuthenticationError) as refused:
        openai.OpenAI(base_url=house.url, api_key="sk-none", max_retries=0).models.list()
    assert (refused.value.code, refused.value.type) == ("invalid_api_key", "invalid_request_error")


def test_openais_client_asks_many_at_once(house):
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=house.url, api_key=KEY, max_retries=0) as client:
            made = [client.chat.completions.create(model="agentevolve", messages=user(f"no. {n}")) for n in range(64)]
            return [one.choices[0].message.content for one in await asyncio.gather(*made)]

    assert asyncio.run(ask()) == [f"1: no. {n}" for n in range(64)]


LITE = """
import json, litellm, sys
model = {"model": "openai/agentevolve", "api_base": sys.argv[1], "api_key": sys.argv[2]}
user = [{"role": "user", "content": "hi"}]
said = litellm.completion(**model, messages=user)
stream = litellm.completion(**model, messages=user, stream=True, stream_options={"include_usage": True})
pieces = litellm.stream_chunk_builder(list(stream), messages=user)
try:
    litellm.completion(**model, messages=user, n=2, num_retries=0)
except litellm.BadRequestError as error:
    refused = str(error)
told = lambda one: [one.choices[0].message.content, one.choices[0].finish_reason, one.usage.total_tokens]
print(json.dumps([told(said), told(pieces), refused]))
"""


def test_litellm_reaches_it_in_a_process_of_its_own(house):
    done = subprocess.run(
        [sys.executable, "-c", LITE, house.url, KEY], capture_output=True, text=True, env=settings(), timeout=120, check=True
    )
    said, streamed, refused = json.loads(done.stdout.splitlines()[-1])
    assert said == streamed == ["1: hi", "stop", 10] and "n: only 1 is answered" in refused
