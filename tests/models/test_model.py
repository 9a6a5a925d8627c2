"""One call for every backend: the real local model, the same server reached from outside, and small servers that misbehave."""

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from agentevolve.local import catalog
from agentevolve.models.engines.llama_cpp import serve
from agentevolve.models.lite import STRIKES, LiteModel, open_model
from agentevolve.models.manner import Manner
from agentevolve.models.stand_ins import RandomModel, ScriptedModel
from agentevolve.models.tools import read
from agentevolve.policy import ModelOptions, Price
from agentevolve.protocols import AgentevolveError, BudgetExceeded, ModelError
from agentevolve.records import Message
from agentevolve.redact import redact
from agentevolve.run.budget import Budget

ASK = [Message(role="system", content="You play a game."), Message(role="user", content="Do you take the apple or go north?")]
ACTIONS = ["take apple", "go north", "open door"]
HOSTILE = ['say "hi"', "back\\slash", "two\nlines", "tab\tand\rreturn", "größe 北 😀", '"] | root', "\\n", "bell\x07\u2028"]


@pytest.fixture(scope="module")
def local(smollm2):
    model = open_model("local/smollm2-135m", slots=2, threads=1)
    yield model
    model.close()


@pytest.fixture(scope="module")
def apart(smollm2):
    engine = serve(smollm2, slots=2, threads=1, context=2048)
    yield engine
    engine.close()


class Backend:
    """An OpenAI-like server on loopback: it gives its answers in turn, the last one for ever, and keeps what it was asked."""

    def __init__(self, *answers: tuple[int, str], wait: float = 0.0) -> None:
        backend, self.asked = self, []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                turn = len(backend.asked)
                backend.asked.append((self.path, dict(self.headers), body))
                time.sleep(wait)
                status, text = answers[min(turn, len(answers) - 1)]
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def answer(content, prompt=30, completion=5, cached=0) -> tuple[int, str]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    details = {"cached_tokens": cached}
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice] if content != "none" else []}
    return 200, json.dumps(body | {"usage": usage | {"prompt_tokens_details": details}})


def test_the_local_model_always_answers_with_a_choice(local):
    for seed in range(6):
        assert local.complete(ASK, choices=ACTIONS, temperature=2.0, seed=seed).text in ACTIONS


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_choice_with_awkward_characters_comes_back_unchanged(local, hostile):
    assert local.complete(ASK, choices=[hostile], max_tokens=1).text == hostile


def test_the_control_tokens_of_a_model_are_broken_up_in_every_message():
    with Backend(answer("go")) as backend:
        model = LiteModel("openai/m", api_bases=[backend.url], special=lambda: ["[stop]", "<|im_end|>"])
        model.complete([Message(role=role, content="see [stop][stop]") for role in ("system", "user", "assistant", "user")])
    assert [message["content"] for message in backend.asked[0][2]["messages"]] == ["see [ stop][ stop]"] * 4


def test_the_local_model_is_never_shown_a_control_token_of_its_own(local):
    tokens = catalog.special_tokens(catalog.resolve("smollm2-135m"))
    counts = [
        local.complete([Message(role="user", content=f"You see {token}")], choices=["go"]).usage.prompt_tokens for token in tokens
    ]
    assert len(tokens) == 17
    assert min(counts) > local.complete([Message(role="user", content="You see")], choices=["go"]).usage.prompt_tokens + 1


def test_the_local_model_s_usage_is_counted_and_its_cache_used(local):
    first = local.complete(ASK, choices=ACTIONS).usage
    again = local.complete(ASK, choices=ACTIONS).usage
    assert (first.calls, first.usd) == (1, 0.0)
    assert 20 < first.prompt_tokens == again.prompt_tokens
    assert 0 < first.completion_tokens < 16
    assert first.seconds > 0
    assert again.cached_tokens >= again.prompt_tokens - 1


def test_the_same_seed_gives_the_same_free_text(local):
    said = [local.complete(ASK, temperature=1.5, max_tokens=12, seed=seed).text for seed in (1, 1, 2)]
    assert said[0] == said[1] != said[2]


def test_threads_share_the_local_model(local):
    found = []

    def play(name):
        question = [Message(role="user", content=f"{name} stands in the kitchen and looks at the oven. What now?")]
        found.extend(local.complete(question, choices=ACTIONS).usage for _ in range(2))

    threads = [threading.Thread(target=play, args=(name,)) for name in ("Ann", "Bob", "Cem")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6


def test_a_closed_local_model_starts_again(smollm2):
    model = open_model("local/smollm2-135m", slots=1, threads=1)
    model.close()
    for _ in range(2):
        assert model.complete(ASK, choices=["go north"]).text == "go north"
        model.close()
        model.close()


def test_an_openai_like_server_is_held_to_the_choices(apart, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", apart.key)
    model = open_model("openai/smollm2", api_base=apart.url)
    for seed in range(4):
        reply = model.complete(ASK, choices=ACTIONS, temperature=1.0, seed=seed)
        assert reply.text in ACTIONS
    assert reply.usage.prompt_tokens > 20
    assert reply.usage.completion_tokens > 0


def test_an_anthropic_like_server_answers_too(apart, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", apart.key)
    model = open_model("anthropic/smollm2", api_base=apart.url.removesuffix("/v1"))
    reply = model.complete(ASK, max_tokens=8)
    assert reply.text
    assert reply.usage.prompt_tokens > 20
    assert 0 < reply.usage.completion_tokens <= 16
    assert model.complete(ASK, choices=ACTIONS).text


def test_a_prompt_longer_than_the_context_is_a_lost_attempt(apart, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", apart.key)
    model = open_model("openai/smollm2", api_base=apart.url)
    with pytest.raises(ModelError, match="context"):
        model.complete([Message(role="user", content="north " * 3000)], choices=ACTIONS)


def test_a_schema_holds_the_choices_and_usage_comes_from_the_backend():
    with Backend(answer('{"action": "go north"}', prompt=70, completion=9, cached=64)) as backend:
        reply = open_model("openai/own", api_base=backend.url).complete(ASK, choices=ACTIONS, temperature=0.5, seed=7)
    assert reply.text == "go north"
    used = reply.usage
    assert (used.calls, used.prompt_tokens, used.cached_tokens, used.completion_tokens, used.usd) == (1, 70, 64, 9, 0.0)
    path, headers, body = backend.asked[0]
    assert path == "/v1/chat/completions"
    assert body["response_format"]["json_schema"]["schema"]["properties"]["action"]["enum"] == ACTIONS
    assert (body["temperature"], body["seed"]) == (0.5, 7)
    assert body["messages"] == [message.model_dump() for message in ASK]
    assert {name.lower() for name in headers} >= {"authorization"}


TOOL = {
    "type": "function",
    "function": {
        "name": "go",
        "description": "Walk there.",
        "parameters": {
            "type": "object",
            "properties": {"where": {"type": "string", "enum": ["north", "south"]}},
            "required": ["where"],
            "additionalProperties": False,
        },
    },
}
CALLED = '{"name": "go", "arguments": {"where": "north"}}'


def called(name: str, arguments: str) -> tuple[int, str]:
    """A backend's own form of a tool call."""
    status, text = answer(None)
    body = json.loads(text)
    call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
    body["choices"][0]["message"]["tool_calls"] = [call]
    return status, json.dumps(body)


def test_a_model_that_takes_tools_is_given_them_and_its_calls_are_the_action():
    with Backend(called("go", '{"where": "north"}')) as backend:
        model = open_model("openai/gpt-4o-mini", api_base=backend.url)
        assert model.native_tools
        told = [*ASK, Message(role="assistant", content=CALLED), Message(role="user", content="You are north.")]
        assert model.complete(told, tools=[TOOL]).text == CALLED
    ((_, _, body),) = backend.asked
    assert body["tools"] == [TOOL]
    assert "response_format" not in body and not any(key.startswith("_") for key in body)
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "tool"]
    assert body["messages"][2]["tool_calls"][0]["function"]["name"] == "go"


def test_a_model_that_takes_no_tools_is_held_to_the_json_of_a_call():
    with Backend(answer(CALLED)) as backend:
        model = open_model("openai/unheard-of", api_base=backend.url)
        assert not model.native_tools
        assert model.complete(ASK, tools=[TOOL]).text == CALLED
    body = backend.asked[0][2]
    assert "tools" not in body
    shape = body["response_format"]["json_schema"]["schema"]["anyOf"][0]["properties"]
    assert shape == {"name": {"const": "go"}, "arguments": TOOL["function"]["parameters"]}


def test_the_local_model_is_held_to_a_call(local):
    for seed in range(3):
        (call,) = read(local.complete(ASK, tools=[TOOL], temperature=1.5, seed=seed).text)
        assert call.name == "go" and call.arguments["where"] in ("north", "south")


def test_vllm_is_held_by_its_structured_outputs():
    with Backend(answer("go north")) as backend:
        assert open_model("hosted_vllm/m", api_base=backend.url).complete(ASK, choices=ACTIONS).text == "go north"
    assert backend.asked[0][2]["structured_outputs"] == {"choice": ACTIONS}
    assert "response_format" not in backend.asked[0][2]


def test_a_backend_that_refuses_the_schema_is_asked_for_plain_text_from_then_on():
    refusal = 400, '{"error": {"message": "response_format is not supported"}}'
    with Backend(refusal, answer("I will `go north`.")) as backend:
        model = open_model("openai/own", api_base=backend.url)
        assert [model.complete(ASK, choices=ACTIONS).text for _ in range(2)] == ["go north", "go north"]
    assert ["response_format" in body for _, _, body in backend.asked] == [True, False, False]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("go north", "go north"),
        ('  "Go North."\n', "go north"),
        ("`take apple`", "take apple"),
        ('{"action": "open door"}', "open door"),
        ("My action: take apple, because I am hungry", "take apple"),
        ("eat the apple pie", "eat the apple pie"),
        ("take apple pie now", "take apple pie"),
        ("first go north, then open door", "first go north, then open door"),
        ("hmm\ngoing northwards", "hmm"),
        ('["go north"]', "go north"),
        ('{"action": 5}', "5"),
    ],
)
def test_plain_text_means_a_choice_only_when_it_names_just_one(said, meant):
    with Backend(answer(said)) as backend:
        model = open_model("openai/own", api_base=backend.url)
        assert model.complete(ASK, choices=[*ACTIONS, "take apple pie"]).text == meant


@pytest.mark.parametrize(
    "trouble", [(500, "{}"), (503, "busy"), (429, '{"error": {"message": "slow down"}}'), (200, "{not json")]
)
def test_a_passing_failure_is_tried_again(trouble):
    with Backend(trouble, answer("hello")) as backend:
        assert open_model("openai/own", api_base=backend.url).complete(ASK).text == "hello"
    assert len(backend.asked) == 2


def test_a_lasting_failure_is_a_lost_attempt():
    with Backend((500, "{}")) as backend, pytest.raises(ModelError, match="openai/own"):
        open_model("openai/own", api_base=backend.url).complete(ASK)
    assert 2 < len(backend.asked) < 6


@pytest.mark.parametrize("empty", ["none", None, ""])
def test_an_answer_without_text_is_a_lost_attempt(empty):
    budget = Budget()
    with Backend(answer(empty)) as backend, pytest.raises(ModelError, match="no text"):
        open_model("openai/own", api_base=backend.url, budget=budget).complete(ASK)
    assert budget.spent.tokens == 35 * len(backend.asked) == 35 * 3  # asked for again, and each answer paid for


def test_a_backend_that_hangs_is_a_lost_attempt():
    with Backend(answer("late"), wait=1.0) as backend, pytest.raises(ModelError):
        open_model("openai/own", api_base=backend.url, options=ModelOptions(timeout=0.1)).complete(ASK)
    assert len(backend.asked) > 1


def test_a_bad_request_is_not_tried_again():
    with Backend((400, '{"error": {"message": "temperature too hot"}}')) as backend, pytest.raises(ModelError, match="too hot"):
        open_model("openai/own", api_base=backend.url).complete(ASK)
    assert len(backend.asked) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_the_user_s_to_mend_and_is_never_shown(status, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret-key")
    refusal = status, '{"error": {"message": "wrong key very-secret-key"}}'
    with Backend(refusal) as backend, pytest.raises(AgentevolveError, match=r"openai/own.*key") as raised:
        open_model("openai/own", api_base=backend.url).complete(ASK)
    assert "very-secret-key" not in str(raised.value)
    assert len(backend.asked) == 1
    assert backend.asked[0][1]["Authorization"] == "Bearer very-secret-key"


def test_an_echoed_key_is_cut_out_of_an_error(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret-key")
    with Backend((400, '{"error": {"message": "no: very-secret-key"}}')) as backend, pytest.raises(ModelError) as raised:
        open_model("openai/own", api_base=backend.url).complete(ASK)
    assert "very-secret-key" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "key"), [("openai/gpt-5-mini", "OPENAI_API_KEY"), ("anthropic/claude-haiku-4-5", "ANTHROPIC_API_KEY")]
)
def test_a_missing_key_is_named(name, key, monkeypatch):
    monkeypatch.delenv(key, raising=False)
    with pytest.raises(AgentevolveError, match=f"{key} is not set"):
        open_model(name).complete(ASK)


CALLS = """
import sys
reached = []
sys.addaudithook(lambda event, args: reached.append(args[0]) if event == "socket.getaddrinfo" else None)
from agentevolve.models.lite import open_model
from agentevolve.records import Message
for name in ("openai/own", "anthropic/claude-haiku-4-5"):
    open_model(name, api_base=sys.argv[1]).complete([Message(role="user", content="hi")], choices=["go north"])
print({host if isinstance(host, str) else host.decode() for host in reached})
"""


def test_nothing_but_the_backend_is_reached_and_nothing_is_printed():
    body = {"type": "message", "role": "assistant", "id": "1", "model": "m", "stop_reason": "end_turn"}
    message = body | {"content": [{"type": "text", "text": "go north"}], "usage": {"input_tokens": 9, "output_tokens": 3}}
    with Backend(answer("go north"), (200, json.dumps(message))) as backend:
        run = [sys.executable, "-c", CALLS, backend.url]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("{'127.0.0.1'}\n", "")
    assert len(backend.asked) == 2


def test_a_model_that_the_backend_does_not_know_is_the_user_s_to_mend():
    with Backend((404, '{"error": {"message": "no such model"}}')) as backend, pytest.raises(AgentevolveError, match="404"):
        open_model("openai/own", api_base=backend.url).complete(ASK)


@pytest.mark.parametrize("name", ["opnai/gpt-5-mini", "local/smollm3", "local/", "smollm2-135m", ""])
def test_an_unknown_name_is_refused_before_anything_starts(name):
    with pytest.raises(AgentevolveError, match="smollm2-135m"):
        open_model(name)


@pytest.mark.parametrize("name", ["random", "openai/gpt-5-mini"])
def test_an_adapter_needs_a_local_model(name, tmp_path):
    with pytest.raises(AgentevolveError, match="adapter"):
        open_model(name, adapter=tmp_path / "adapter.gguf")


def test_the_token_limit_stops_before_the_call():
    budget = Budget(max_tokens=150)
    with Backend(answer("hello", prompt=60, completion=20)) as backend:
        model = open_model("openai/own", api_base=backend.url, budget=budget)
        model.complete(ASK, max_tokens=64)
        with pytest.raises(BudgetExceeded, match="150 tokens"):
            model.complete(ASK, max_tokens=64)
    assert len(backend.asked) == 1
    assert budget.spent.tokens == 80


def test_the_dollar_limit_counts_the_known_price():
    budget = Budget(max_usd=0.01)
    with Backend(answer("hello", prompt=1000, completion=1000)) as backend:
        model = open_model("openai/gpt-4o", api_base=backend.url, budget=budget)
        reply = model.complete(ASK, max_tokens=100)
        assert reply.usage.usd == budget.spent.usd > 0.005
        with pytest.raises(BudgetExceeded, match=r"\$0\.01"):
            model.complete(ASK, max_tokens=100)
    assert len(backend.asked) == 1


def test_a_failed_call_gives_its_reservation_back():
    budget = Budget(max_tokens=150)
    with Backend((400, "{}"), answer("hello")) as backend:
        model = open_model("openai/own", api_base=backend.url, budget=budget)
        with pytest.raises(ModelError):
            model.complete(ASK, max_tokens=64)
        assert model.complete(ASK, max_tokens=64).text == "hello"


def test_random_is_uniform_and_repeatable():
    model = open_model("random")
    drawn = [model.complete(ASK, choices=ACTIONS, seed=seed).text for seed in range(300)]
    assert drawn == [RandomModel().complete(ASK, choices=ACTIONS, seed=seed).text for seed in range(300)]
    assert all(70 < drawn.count(action) < 130 for action in ACTIONS)
    with pytest.raises(AgentevolveError):
        model.complete(ASK)


def test_the_scripted_model_follows_its_script_and_keeps_its_calls():
    model = ScriptedModel(["one", "two words"])
    assert model.complete(ASK, choices=ACTIONS).text == "one"
    second = model.complete(ASK[1:])
    assert (second.text, second.usage.tokens) == ("two words", 0)
    assert model.calls == [(tuple(ASK), tuple(ACTIONS)), (tuple(ASK[1:]), ())]
    with pytest.raises(ModelError, match="script"):
        model.complete(ASK)
    assert ScriptedModel(lambda messages, choices: choices[-1]).complete(ASK, choices=ACTIONS).text == "open door"


def refusal(text: str) -> tuple[int, str]:
    return 400, json.dumps({"error": {"message": text}})


def test_a_backend_without_a_system_role_gets_it_in_the_first_message():
    with Backend(refusal("System role not supported"), answer("hello")) as backend:
        model = open_model("openai/own", api_base=backend.url)
        assert [model.complete(ASK).text for _ in range(2)] == ["hello", "hello"]
    first, *others = [body["messages"] for _, _, body in backend.asked]
    assert [message["role"] for message in first] == ["system", "user"]
    assert others == [[{"role": "user", "content": f"{ASK[0].content}\n{ASK[1].content}"}]] * 2


def test_the_reply_limit_has_another_name_where_the_backend_says_so():
    with Backend(refusal("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."), answer("hi")) as backend:
        assert open_model("openai/own", api_base=backend.url).complete(ASK, max_tokens=77).text == "hi"
    bodies = [body for _, _, body in backend.asked]
    assert [(body.get("max_tokens"), body.get("max_completion_tokens")) for body in bodies] == [(77, None), (None, 77)]


def test_thinking_is_sent_back_where_it_is_demanded_and_nowhere_else():
    told = [
        *ASK,
        Message(role="assistant", content=CALLED, thinking="north it is"),
        Message(role="user", content="You are north."),
    ]
    with Backend(refusal("Missing `reasoning_content` field in the assistant message"), called("go", "{}")) as backend:
        model = open_model("openai/gpt-4o-mini", api_base=backend.url)
        assert model.complete(told, tools=[TOOL]).text
    sent = [[message.get("reasoning_content") for message in body["messages"]] for _, _, body in backend.asked]
    assert sent[:2] == [[None] * 4, [None, None, "north it is", None]]


def test_a_schema_that_is_refused_once_by_accident_is_asked_for_again():
    with Backend((400, "{}"), answer('{"action": "go north"}')) as backend:
        model = open_model("openai/own", api_base=backend.url)
        replies = [model.complete(ASK, choices=ACTIONS) for _ in range(2)]
    assert [reply.asked for reply in replies] == ["response_format"] * 2
    assert all("response_format" in body for _, _, body in backend.asked)


def test_a_schema_that_only_fails_is_given_up_at_the_second_call_and_each_reply_says_how_it_was_asked():
    told = []
    with Backend((400, "{}"), (400, "{}"), answer("go north"), (400, "{}"), (400, "{}"), answer("go north")) as backend:
        model = open_model("openai/own", api_base=backend.url, manner=Manner(tell=lambda *said: told.append(said[0])))
        replies = [model.complete(ASK, choices=ACTIONS) for _ in range(3)]
    assert [reply.asked for reply in replies] == ["free text", *["free text without response_format"] * 2]
    assert told == ["response_format"]
    assert ["response_format" in body for _, _, body in backend.asked] == [True, True, False] * 2 + [False]


def test_options_reach_the_backend_and_its_headers_are_secrets():
    options = ModelOptions(reasoning_effort="low", headers={"X-API-Key": "abcdefgh12"}, body={"top_k": 5})
    with Backend(answer("hello")) as backend:
        open_model("openai/own", api_base=backend.url, options=options).complete(ASK)
    ((_, headers, body),) = backend.asked
    assert (body["reasoning_effort"], body["top_k"]) == ("low", 5)
    assert {name.lower(): value for name, value in headers.items()}["x-api-key"] == "abcdefgh12"
    assert "abcdefgh12" not in redact("the server said abcdefgh12")


def test_a_streamed_answer_is_the_same_and_counted(apart, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", apart.key)
    plain, streamed = (
        open_model("openai/smollm2", api_base=apart.url, options=ModelOptions(stream=stream)).complete(ASK, max_tokens=9, seed=1)
        for stream in (False, True)
    )
    assert streamed.text == plain.text
    assert (streamed.usage.prompt_tokens, streamed.usage.completion_tokens, streamed.usage.estimated) == (
        plain.usage.prompt_tokens,
        plain.usage.completion_tokens,
        0,
    )


@pytest.mark.parametrize(("name", "prices", "known"), [
    ("openai/own", {}, False), ("openai/own", {"openai/own": Price(input=1, output=2)}, True), ("openai/gpt-4o", {}, True),
    ("openai/own", {"openai/other": Price(input=1, output=2)}, False),
])  # fmt: skip
def test_a_limit_in_dollars_needs_a_price(name, prices, known):
    if known:
        open_model(name, budget=Budget(max_usd=1.0), prices=prices)
        return
    with pytest.raises(AgentevolveError, match=r"max_usd: no price of openai/own is known.*prices:"):
        open_model(name, budget=Budget(max_usd=1.0), prices=prices)


def test_a_given_price_is_what_is_booked():
    budget = Budget(max_usd=1.0)
    with Backend(answer("hello", prompt=1000, completion=100, cached=600)) as backend:
        prices = {"openai/own": Price(input=2, output=10, cached=1)}
        reply = open_model("openai/own", api_base=backend.url, budget=budget, prices=prices).complete(ASK)
    assert reply.usage.usd == budget.spent.usd == pytest.approx((400 * 2 + 600 * 1 + 100 * 10) / 1e6)


def test_a_backend_that_is_away_ends_the_run_instead_of_scoring_zeros():
    with Backend((400, '{"error": {"message": "no"}}')) as backend:
        model = open_model("openai/own", api_base=backend.url)
        for _ in range(STRIKES - 1):
            with pytest.raises(ModelError):
                model.complete(ASK)
        with pytest.raises(AgentevolveError, match=rf"{STRIKES} calls in a row came to nothing.*no"):
            model.complete(ASK)


def test_one_forbidden_prompt_is_one_lost_attempt_and_a_key_that_never_worked_is_the_user_s_to_mend():
    forbidden = 403, '{"error": {"message": "forbidden"}}'
    with Backend(answer("hello"), forbidden, answer("hello")) as backend:
        model = open_model("openai/own", api_base=backend.url)
        assert model.complete(ASK).text
        with pytest.raises(ModelError):
            model.complete(ASK)
        assert model.complete(ASK).text
    with Backend((403, '{"error": {"message": "flagged by moderation"}}'), answer("hello")) as backend:
        model = open_model("openai/own", api_base=backend.url)
        with pytest.raises(ModelError):
            model.complete(ASK)
        assert model.complete(ASK).text
