"""What is wrong on purpose or by accident: one line each, in OpenAI's form of an error, while others are served."""

import http.client
import json
import socket
import time
from contextlib import closing

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import KEY, served

CLIENT = httpx.Client(headers={"Authorization": f"Bearer {KEY}"}, trust_env=False, timeout=60)
ASKED = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()


def said(messages, choices) -> str:
    return "ok"


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with served(tmp_path_factory.mktemp("hostile"), said, patience=1.0) as one:
        yield one


def raw(house, *parts: bytes, pause: float = 0.0) -> tuple[int, dict]:
    """The answer's status and body to the very bytes that are sent, with a pause after each of the parts."""
    with closing(socket.create_connection(("127.0.0.1", house.port), 30)) as line:
        try:
            for part in parts:
                line.sendall(part)
                time.sleep(pause)
        except OSError:  # it has answered, and listens no more
            pass
        answer = http.client.HTTPResponse(line)
        answer.begin()
        return answer.status, json.loads(answer.read())


def head(house, length: int | None, *more: str, key: str = KEY, host: str = "") -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", f"Host: {host or f'127.0.0.1:{house.port}'}", f"Authorization: Bearer {key}"]
    lines += [f"Content-Length: {length}" if length is not None else "Transfer-Encoding: chunked", *more, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def served_still(house) -> None:
    assert house.ask("still there?").json()["choices"][0]["message"]["content"] == "ok"


def message(answer: dict) -> str:
    assert set(answer["error"]) == {"message", "type", "param", "code"} and "\n" not in answer["error"]["message"]
    return answer["error"]["message"]


def test_a_hundred_megabytes_are_refused_without_being_kept(house):
    sent = CLIENT.post(f"{house.url}/chat/completions", content=b"a" * 100_000_000)
    assert (sent.status_code, message(sent.json())) == (413, "the request is larger than 4,000,000 bytes")
    assert sent.json()["error"]["code"] == "request_too_large"
    served_still(house)


def test_neither_a_key_nor_a_length_lets_more_in(house):
    wrong = httpx.post(f"{house.url}/chat/completions", content=b"a" * 50_000_000, headers={"Authorization": "Bearer no"})
    assert wrong.status_code == 413
    parts = [b"%x\r\n%b\r\n" % (1_000_000, b"a" * 1_000_000)] * 5 + [b"0\r\n\r\n"]
    assert raw(house, head(house, None), *parts)[0] == 413
    status, answer = raw(house, head(house, len(ASKED), key="wrong"), ASKED)
    assert (status, message(answer)) == (401, "the key is not the one that agentevolve serve has printed")
    status, answer = raw(house, head(house, len(ASKED), host="evil.example"), ASKED)
    assert (status, message(answer)) == (403, "this host is not served")
    served_still(house)


@pytest.mark.parametrize(
    ("parts", "pause"),
    [((b'{"mess', b"ages"), 0.3), ((ASKED[:5],), 0.0), (tuple(bytes([byte]) for byte in ASKED[:20]), 0.1), ((), 0.0)],
)
def test_a_body_that_never_ends_is_given_up_and_others_are_served_meanwhile(house, parts, pause):
    with closing(socket.create_connection(("127.0.0.1", house.port), 30)) as waiting:
        waiting.sendall(head(house, len(ASKED)))
        served_still(house)
        status, answer = raw(house, head(house, len(ASKED)), *parts, pause=pause)
        assert (status, message(answer)) == (408, "the request did not end within 1 seconds")
        assert answer["error"]["code"] == "request_timeout"
    served_still(house)


def test_a_head_that_never_ends_is_given_up_and_one_that_was_answered_may_wait(house):
    status, answer = raw(house, head(house, len(ASKED))[:30])
    assert (status, message(answer)) == (408, "the request did not begin within 1 seconds")
    with httpx.Client(headers={"Authorization": f"Bearer {KEY}"}, trust_env=False) as kept:
        for _ in range(2):
            assert kept.post(f"{house.url}/chat/completions", content=ASKED).status_code == 200
            time.sleep(1.2)


def test_clients_that_hang_up_anywhere_leave_nothing_behind(house):
    before = len(house.model.calls)
    whole = head(house, len(ASKED)) + ASKED[:-1]
    for length in range(0, len(whole), 7):
        with closing(socket.create_connection(("127.0.0.1", house.port), 30)) as line:
            line.sendall(whole[:length])
    served_still(house)
    assert len(house.model.calls) == before + 1


@pytest.mark.parametrize("size", [65_000, 400_000, 50_000_000])
def test_the_largest_head_and_a_larger_one(house, size):
    filler = size - len(head(house, len(ASKED), "X-Much: "))
    status, answer = raw(house, head(house, len(ASKED), f"X-Much: {'a' * filler}"), ASKED)
    if size < 65_536:
        assert status == 200
    else:
        assert (status, "headers have at most 65,536 bytes" in message(answer)) == (400, True)
    served_still(house)


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01\x00", b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", bytes(100_000)])
def test_what_is_no_http_is_one_line(house, sent):
    status, answer = raw(house, sent, b"\r\n\r\n")
    assert status in (400, 404) and message(answer)
    served_still(house)


def test_a_name_of_a_task_is_short(house):
    status, answer = raw(house, head(house, len(ASKED), f"X-Agentevolve-Task: {'a' * 201}"), ASKED)
    assert (status, message(answer)) == (400, "X-Agentevolve-Task: a name of at most 200 characters is wanted")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.text(max_size=10), parts, max_size=4),
    max_leaves=10,
)
called = st.dictionaries(st.sampled_from(["name", "arguments"]), anything)
spoken = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["system", "user", "assistant", "tool"]) | anything,
        "content": st.text(st.characters(), max_size=40) | anything,
        "tool_calls": st.lists(st.fixed_dictionaries({"function": called})) | anything,
    },
)
NAMES = ["n", "seed", "stop", "stream", "tools", "logprobs", "max_tokens", "temperature", "tool_choice", "stream_options"]
NAMES += ["response_format", "structured_outputs", "max_completion_tokens", "reward", "task", "conversation", "model"]
bodies = st.fixed_dictionaries(
    {}, optional={"messages": st.lists(spoken, max_size=4) | anything, **{name: anything for name in NAMES}}
)
fuzzed = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def answered(house, route: str, content: bytes) -> None:
    answer = CLIENT.post(f"{house.url}/{route}", content=content)
    assert answer.status_code in (200, 400, 404), answer.text
    if answer.status_code != 200:
        message(answer.json())


@fuzzed
@given(bodies, st.sampled_from(["chat/completions", "reward"]))
def test_whatever_json_is_sent_is_answered_or_refused(house, body, route):
    answered(house, route, json.dumps(body).encode())


@fuzzed
@given(st.binary(max_size=200) | st.text().map(lambda text: text.encode("utf-8", "replace")))
def test_whatever_bytes_are_sent_are_refused(house, content):
    answered(house, "chat/completions", content)


def test_nesting_as_deep_as_it_fits_is_refused(house):
    answered(house, "chat/completions", b"[" * 3_000_000)
    deep = b'{"a":' * 5_000 + b"1" + b"}" * 5_000
    answered(house, "chat/completions", b'{"messages": [{"role": "user", "content": "a"}], "tools": [' + deep + b"]}")
    calls = b'{"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '
    answered(house, "chat/completions", calls + json.dumps("[" * 100_000).encode() + b"}}]}, {}]}")
    served_still(house)
