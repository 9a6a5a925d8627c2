"""Secrets are hidden in what reaches the disk; everything else is left as it is."""

import json

import pytest
from worlds import task_file

from agentevolve.config import read_config, write_config
from agentevolve.loop.evolve import evolve
from agentevolve.policy import Policy
from agentevolve.redact import HIDDEN, redact, redacted, secret
from agentevolve.run.folder import Run
from agentevolve.run.journal import Journal

KEY = 'ZxQ81-key.of/an"odd\\kind'


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("SOME_VENDOR_API_KEY", KEY)
    monkeypatch.setenv("ANOTHER_PASSWORD", "short")
    monkeypatch.setenv("A_TOKEN", "trajectory")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"401: {KEY} is not known", f"401: {HIDDEN} is not known"),
        ("https://me:pa55w0rd@host:80/v1", f"https://me:{HIDDEN}@host:80/v1"),
        ("at http://:pa55w0rd@host/ and http://a:b@c", f"at http://:{HIDDEN}@host/ and http://a:{HIDDEN}@c"),
        ("Authorization: Bearer abcdefgh.ijkl-mnop", f"Authorization: Bearer {HIDDEN}"),
        ("{'authorization': 'Basic dXNlcjpwYXNz'}", f"{{'authorization': 'Basic {HIDDEN}'}}"),
        ('"Authorization":"Bearer abcdefgh.ijkl"', f'"Authorization":"Bearer {HIDDEN}"'),
        ("sent Bearer eyJhbGciOiJIUzI1NiJ9.e30", f"sent Bearer {HIDDEN}"),
        ("?api_key=0123456789&x=1", f"?api_key={HIDDEN}&x=1"),
        ("api-key: 0123456789", f"api-key: {HIDDEN}"),
        ('{"apiKey": "0123456789"}', f'{{"apiKey": "{HIDDEN}"}}'),
        ("Incorrect API key provided: sk-proj-abcd1234efgh5678.", f"Incorrect API key provided: {HIDDEN}."),
    ],
)
def test_a_secret_is_hidden(text, kept):
    assert redact(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "", "Corridor two: the lamp is left.", "the key is under the mat; take key", "a bearer of international bad news came",
        "authorization of basic understanding", "http://host:80/v1 and user@host", "sk-learn-and-something-else",
        "the risk-0123456789abcdefgh",
        "short", "trajectory", "see https://a.b/c:d@e", "a\nb\t\\ \ud800 道",
    ],
)  # fmt: skip
def test_other_text_is_left_as_it_is(text):
    assert redact(text) == text


def test_a_value_is_hidden_whatever_it_is_in():
    secret("given by an option")
    value = {"kind": "trajectory", "key": "where the lamp is", "api_key": "not-known-before", "max_tokens": 5, "n": None}
    value |= {"turns": [{"observation": f"{KEY}!"}, ["given by an option"]], KEY: 1.5}
    assert redacted(value) == {
        "kind": "trajectory", "key": "where the lamp is", "api_key": HIDDEN, "max_tokens": 5, "n": None,
        "turns": [{"observation": f"{HIDDEN}!"}, [HIDDEN]], HIDDEN: 1.5,
    }  # fmt: skip


def test_a_long_text_without_secrets_costs_little():
    for text in (
        "a.b-c://" * 100_000,
        "authorization " * 50_000,
        "sk-" * 300_000,
        "bearer " * 100_000,
        "api_key" + " " * 500_000,
    ):
        assert len(redact(text)) >= 7


def test_a_journal_never_holds_a_secret_and_every_line_is_json(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    said = f"RuntimeError: {KEY}\\{KEY}\n{json.dumps(KEY)} Authorization: Bearer abcdefghij\\n"
    journal.append({"kind": "fact", "name": "a", "data": said}, {"kind": "fact", "name": "b", "data": [said]})
    text = journal.path.read_text()
    assert KEY not in text and json.dumps(KEY)[1:-1] not in text and "abcdefghij" not in text
    assert [line["name"] for line in journal.read()] == ["a", "b"]


def test_a_password_in_an_address_is_hidden_and_the_same_run_goes_on(tmp_path):
    policy = Policy(model="random", api_base="http://me:pa55w0rd%21@127.0.0.1:9/v1")
    for _ in range(2):
        run = Run(tmp_path / "r", quiet=True)
        run.settle("policy", policy.model_dump(mode="json"))
        run.once("said", lambda: "401 for pa55w0rd! and pa55w0rd%21")
        run.close()
    assert "pa55w0rd" not in (tmp_path / "r" / "journal.jsonl").read_text()


def test_a_password_in_a_config_is_hidden_and_the_same_config_goes_on(tmp_path):
    (tmp_path / "evolve.yaml").write_text(
        f"tasks: {task_file(tmp_path, length=2)}\nmodel: random\napi_base: http://me:pa55w0rd@127.0.0.1:9/v1\n"
        "train: {tasks: 2}\nsettings: {samples: 1, reflections: 0, rows: 0}\nval: {tasks: 2}\narms: [base]\n"
    )
    config = read_config(tmp_path / "evolve.yaml")
    write_config(config, tmp_path / "again.yaml")
    assert f"http://me:{HIDDEN}@127.0.0.1:9/v1" in (tmp_path / "again.yaml").read_text()
    for resume in (False, True):
        evolve(config, tmp_path / "r", resume=resume, quiet=True)
    assert "pa55w0rd" not in "".join(path.read_text() for path in (tmp_path / "r").glob("*.*"))
