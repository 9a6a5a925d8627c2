"""Whatever a backend answers instead of a reply: what it means, how it is asked then, what it cost."""

import email.utils
import time
from types import SimpleNamespace

import pytest

from agentevolve.models.manner import Manner
from agentevolve.models.trouble import trouble
from agentevolve.models.usage import CHARACTERS, SLACK, counted, estimated, known_price, size
from agentevolve.policy import Price
from agentevolve.records import Usage


class Refusal(Exception):
    """An error as LiteLLM raises it."""

    def __init__(self, status: int | None, text: str, **headers: str) -> None:
        super().__init__(text)
        if status is not None:
            self.status_code = status
        self.response = SimpleNamespace(headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (401, "bad key", "mend"),
        (402, "Insufficient credits", "mend"),
        (429, "You exceeded your current quota, please check your plan (insufficient_quota)", "mend"),
        (400, "Your credit balance is too low to access the API", "mend"),
        (403, "Billing hard limit: insufficient balance", "mend"),
        (404, "no such model", "mend"),
        (403, "Your input was flagged by moderation", "lasting"),
        (403, "blocked by our content policy", "lasting"),
        (403, "forbidden", "forbidden"),
        (400, "maximum context length is 4096 tokens", "lasting"),
        (400, "Bad Request", "lasting"),
        (413, "too large", "lasting"),
        (422, "unprocessable", "lasting"),
        (408, "timeout", "passing"),
        (409, "conflict", "passing"),
        (425, "too early", "passing"),
        (429, "slow down", "passing"),
        (500, "oops", "passing"),
        (502, "<html>", "passing"),
        (503, "overloaded", "passing"),
        (529, "overloaded", "passing"),
        (200, "Unable to get json response", "passing"),
        (None, "no whole answer within 2 s", "passing"),
    ],
)
def test_what_a_refusal_means(status, text, kind):
    found = trouble("openai/own", Refusal(status, text), [])
    assert (found.kind, found.status) == (kind, status or 0)
    assert "openai/own" in found.text


def test_a_missing_key_is_named_where_a_backend_says_nothing_of_it():
    found = trouble("openai/own", Refusal(500, "connection error"), ["OPENAI_API_KEY"])
    assert (found.kind, "OPENAI_API_KEY is not set" in found.text) == ("mend", True)


def test_the_status_of_an_error_is_found_where_litellm_stumbles_over_it():
    stumble = AttributeError("'NoneType' object has no attribute 'choices'")
    stumble.__context__ = Refusal(422, "unprocessable")
    assert trouble("openai/own", stumble, []).kind == "lasting"


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("soon", None), ("", None)],
)
def test_a_backend_says_how_long_to_wait(said, seconds):
    assert trouble("m", Refusal(429, "slow down", retry_after=said), []).wait == seconds


def test_a_backend_says_until_when_to_wait():
    found = trouble("m", Refusal(429, "slow down", retry_after=email.utils.formatdate(4e9)), []).wait
    assert found == pytest.approx(4e9 - time.time(), abs=3_600)


@pytest.mark.parametrize(
    "text",
    ["Invalid response object Traceback", "Empty or invalid response from LLM endpoint", "Exception - error - Unterminated"],
)
def test_an_answer_that_nobody_can_read_was_given(text):
    assert trouble("m", Refusal(500, text), []).answered
    assert not trouble("m", Refusal(500, "Internal Server Error"), []).answered


CALL = {
    "model": "m",
    "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}],
    "temperature": 0.5,
    "seed": 3,
    "max_tokens": 9,
    "response_format": {"type": "json_schema"},
    "parallel_tool_calls": False,
    "reasoning_effort": "low",
    "extra_body": {"structured_outputs": {"choice": ["a"]}, "id_slot": 1},
}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("Unsupported value: 'temperature' does not support 0.5. Only the default (1) value is supported.", "temperature"),
        ("temperature is not supported", "temperature"),
        ("Unrecognized request argument supplied: seed", "seed"),
        ("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.", "max_tokens"),
        ("response_format is not supported", "response_format"),
        ("Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model", "response_format"),
        ("This model does not support structured outputs", "response_format"),
        ("parallel_tool_calls: Extra inputs are not permitted", "parallel_tool_calls"),
        ("Unknown parameter: reasoning_effort", "reasoning_effort"),
        ("structured_outputs: extra fields not permitted", "structured_outputs"),
        ("System role not supported", "system"),
        ("The reasoning_content in the thinking mode must be passed back to the API.", "reasoning_content"),
        ("maximum context length is 4096 tokens; max_tokens is not supported beyond", None),
        ("temperature too hot", None),
        ("Bad Request", None),
        ("the image is not supported", None),
    ],
)  # fmt: skip
def test_a_refused_parameter_is_done_without_from_then_on_and_told_once(text, what):
    told = []
    manner = Manner(tell=lambda what, why: told.append((what, why)))
    assert manner.learn(CALL, 400, text) is (what is not None)
    assert manner.learn(CALL, 400, text) is (what is not None)  # by another worker, who had sent the same
    assert told == ([(what, text)] if what else [])
    assert not manner.learn(CALL, 500, text)
    fitted = manner.fitted(CALL)
    if what == "max_tokens":
        assert (fitted["max_completion_tokens"], "max_tokens" in fitted) == (9, False)
    elif what == "structured_outputs":
        assert fitted["extra_body"] == {"id_slot": 1}
    elif what in CALL:
        assert fitted == {name: value for name, value in CALL.items() if name != what}
    else:
        assert fitted == CALL
    assert what is None or manner.has(what)


def test_what_goes_through_only_without_its_schema_is_believed_the_second_time():
    told = []
    manner = Manner(tell=lambda *said: told.append(said))
    manner.doubt("response_format", "why")
    assert not manner.has("response_format") and not told
    manner.doubt("response_format", "why")
    assert manner.has("response_format") and manner.said == " without response_format"
    assert len(told) == 1


def said(prompt: object, completion: object, cached: object = 0) -> SimpleNamespace:
    return SimpleNamespace(
        prompt_tokens=prompt, completion_tokens=completion, prompt_tokens_details=SimpleNamespace(cached_tokens=cached)
    )


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (said(30, 5), (30, 0, 5, 0)),
        (said(30, 5, 20), (30, 20, 5, 0)),
        (said(30, 5, 99), (30, 30, 5, 0)),
        (said(30, 5, None), (30, 0, 5, 0)),
        (said(30, 0), (30, 0, 0, 0)),
        *[(odd, (10, 0, 2, 12)) for odd in (None, said(0, 0), said(-30, 5), said(30, -5), said("30", 5), said(30.0, 5))],
        *[(odd, (10, 0, 2, 12)) for odd in (said(10**9, 5), said(30, 10**9), said(40 + SLACK + 1, 5))],
    ],
)  # fmt: skip
def test_a_count_is_believed_where_it_can_be(usage, tokens):
    found = counted(usage, 40, "go north")
    assert (found.prompt_tokens, found.cached_tokens, found.completion_tokens, found.estimated) == tokens
    assert found.calls == 1


def test_an_estimate_is_marked_and_grows_with_what_was_sent():
    sent = size([{"role": "user", "content": "x" * 400}, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}])
    assert estimated(sent).tokens == estimated(sent).estimated >= 400 / CHARACTERS
    assert size([], [{"name": "go"}]) > 0


def test_cached_tokens_have_a_price_of_their_own():
    usage = Usage(prompt_tokens=1_000_000, cached_tokens=600_000, completion_tokens=100_000)
    assert Price(input=2, output=10).of(usage) == pytest.approx(3.0)
    assert Price(input=2, output=10, cached=0.5).of(usage) == pytest.approx(0.8 + 0.3 + 1.0)
    entry = {"input_cost_per_token": 2e-6, "output_cost_per_token": 1e-5, "cache_read_input_token_cost": 5e-7}
    assert known_price(entry).of(usage) == pytest.approx(2.1)
    assert known_price({"input_cost_per_token": 0, "output_cost_per_token": None}) is None
