"""The misbehaving server itself: each of its faults really happens, and is counted."""

import http.client
import json
import urllib.parse

import pytest
from faulty import KEY, MISCOUNTED, REFUSALS, TWISTED, Server, learn, walk

SEEN = {"role": "user", "content": "Corridor one: the lamp is right, you stand at 0.\nActions: left, right, wait"}
ASKED = {"model": "test", "messages": [{"role": "system", "content": "You play."}, SEEN], "temperature": 0.5}
PROMPT = 16  # words


def post(server: Server, timeout: float = 10.0, **more) -> tuple[int, dict[str, str], str]:
    """Status, headers and text of one request's answer."""
    place = urllib.parse.urlsplit(server.url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=timeout)
    try:
        connection.request("POST", f"{place.path}/chat/completions", json.dumps(ASKED | more))
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read().decode()
    finally:
        connection.close()


def answered(server: Server, **more) -> tuple[str, str, dict[str, int] | None]:
    """Text, end and usage of one answer."""
    status, _, text = post(server, **more)
    body = json.loads(text)
    assert status == 200
    return body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"], body.get("usage")


def always(fault: str) -> Server:
    return Server(walk, {fault: 1.0})


def test_without_faults_it_answers_and_counts():
    with Server(walk) as server:
        assert answered(server) == ("right", "stop", {"prompt_tokens": 16, "completion_tokens": 1, "total_tokens": 17})
        assert [one[:4] for one in server.served] == [(200, "", PROMPT, 1)]
        assert (server.reported(), server.unreported(), server.count("")) == (PROMPT + 1, 0, 1)


def test_an_answer_that_is_held_to_an_action_has_its_form():
    with Server(walk) as server:
        form = {"type": "json_schema", "json_schema": {"name": "action"}}
        assert json.loads(answered(server, response_format=form)[0]) == {"action": "right"}


@pytest.mark.parametrize("fault", REFUSALS)
def test_a_refusal_has_its_status_and_costs_nothing(fault):
    with always(fault) as server:
        status, headers, text = post(server)
        assert (status, json.loads(text)["error"]["code"]) == REFUSALS[fault][:2]
        assert headers.get("Retry-After") == ("1" if fault == "429 retry-after" else None)
        assert [one[:4] for one in server.served] == [(status, fault, 0, 0)]


def test_a_parameter_is_refused_only_where_it_is_there():
    with always("refused seed") as server:
        status, _, text = post(server, seed=1)
        assert (status, json.loads(text)["error"]["param"]) == (400, "seed")
        assert answered(server)[0] == "right"
        assert [one.fault for one in server.served] == ["refused seed", ""]


SAID = {
    "empty": ("", "stop"),
    "cut off": ("ri", "length"),
    "thinking": ("<think>\nLeft or right? I could wait.\n</think>\n\nright", "stop"),
    "huge": ("word" * 1_250_000, "stop"),
    "key": (f"right {KEY}", "stop"),
}


@pytest.mark.parametrize("fault", TWISTED)
def test_a_twisted_answer_is_paid_for(fault):
    with always(fault) as server:
        text, end, usage = answered(server)
        assert (text, end) == SAID[fault]
        assert usage["prompt_tokens"] == PROMPT and usage["completion_tokens"] == len(text.split())
        assert server.reported() == server.tokens(fault) == usage["total_tokens"]


@pytest.mark.parametrize(("fault", "told"), [*zip(MISCOUNTED, (None, -PROMPT - 1, 10**12 + PROMPT + 1), strict=True)])
def test_a_usage_that_is_wrong_or_missing_is_known_to_the_server_alone(fault, told):
    with always(fault) as server:
        text, _, usage = answered(server)
        assert (text, usage and usage["total_tokens"]) == ("right", told)
        assert (server.reported(), server.unreported()) == (0, PROMPT + 1)


def test_what_nobody_can_read_is_no_json_and_costs_all_the_same():
    for fault, kind in (("broken", "application/json"), ("html", "text/html")):
        with always(fault) as server:
            status, headers, text = post(server)
            assert (status, headers["Content-Type"]) == (200, kind)
            with pytest.raises(ValueError):
                json.loads(text)
            assert [one[:4] for one in server.served] == [(200, fault, PROMPT, 1)]
            assert (server.reported(), server.unread()) == (0, PROMPT + 1)


@pytest.mark.parametrize(("fault", "raised"), [("hang", TimeoutError), ("reset", ConnectionResetError)])
def test_an_answer_may_not_come(fault, raised):
    with always(fault) as server:
        with pytest.raises(raised):
            post(server, timeout=0.3)
        assert [one[:4] for one in server.served] == [(0, fault, PROMPT, 0)]
        assert (server.reported(), server.unread()) == (0, PROMPT)


def test_a_slow_answer_keeps_a_reader_waiting_that_looks_at_pauses_only():
    with always("drip") as server:
        place = urllib.parse.urlsplit(server.url)
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=3.0)
        connection.request("POST", f"{place.path}/chat/completions", json.dumps(ASKED))
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.read(2) == b"  "  # a second apart: no pause is longer than the time-out
        connection.close()
        assert [one.fault for one in server.served] == ["drip"]


def test_a_stream_says_the_same_and_can_break_off():
    with Server(walk) as server:
        _, headers, text = post(server, stream=True)
        events = [line.removeprefix("data: ") for line in text.splitlines() if line]
        parts = [json.loads(event) for event in events[:-1]]
        assert headers["Content-Type"] == "text/event-stream" and events[-1] == "[DONE]"
        assert "".join(part["choices"][0]["delta"].get("content", "") for part in parts) == "right"
        assert parts[-1]["usage"]["total_tokens"] == PROMPT + 1
        server.faults = {"broken": 1.0}
        assert "[DONE]" not in post(server, stream=True)[2]


def test_faults_are_drawn_by_share_and_the_same_every_time():
    def drawn() -> list[str]:
        with Server(walk, {"429": 0.25, "empty": 0.25}, seed=3) as server:
            for number in range(200):
                post(server, messages=[SEEN | {"content": f"{SEEN['content']} {number % 100}"}])
            return [one.fault for one in server.served]

    first = drawn()
    assert drawn() == first
    assert first[:100] != first[100:]  # what is asked again meets its own luck
    assert 30 < first.count("429") < 70 and 30 < first.count("empty") < 70


def test_faults_may_be_chosen_and_mended_while_it_runs():
    with Server(walk, lambda asked: "500" if asked.again == 0 else "") as server:
        assert [post(server)[0] for _ in range(2)] == [500, 200]
        server.faults = {"402": 1.0}
        assert post(server)[0] == 402


def test_a_learner_needs_to_recall():
    won = {"role": "user", "content": "An earlier game that was won:\n…\nCorridor two: the lamp is left, you stand at 0."}
    assert learn([won]) == "left"
    without = [learn([SEEN | {"content": f"Corridor {n}: the lamp is left, you stand at 0."}]) for n in range(60)]
    assert 8 < without.count("wait") < 35 and without.count("left") == 60 - without.count("wait")
