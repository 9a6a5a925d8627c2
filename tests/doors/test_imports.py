"""Attempts that were made elsewhere become a run's, and can be learnt from; what is none is said in one line."""

import json
from pathlib import Path

import kin
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from lives import HOSTILE, SECRET, lived, lives

from agentevolve.act.prompting import conversation
from agentevolve.cli.policy import kept
from agentevolve.doors.exports import Wanted, export
from agentevolve.doors.imports import FORMS, take_in
from agentevolve.doors.imports.chats import lived as lived_elsewhere
from agentevolve.local.adapter import read_adapter
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Trajectory
from agentevolve.refine import best_worst
from agentevolve.run.folder import read_run
from agentevolve.update import examples


def said(role: str, content: object, **more: object) -> dict:
    return {"role": role, "content": content, **more}


ASKED = [said("system", "Play."), said("user", "Where?")]
WON = [said("assistant", "look"), said("user", "A door."), said("assistant", "open")]
CALLING = {"name": "open_door", "arguments": {"door": "red"}}
SCHEMA = {"type": "function", "function": {"name": "open_door", "parameters": {"type": "object", "properties": {}}}}


def given(place: Path, *rows: object) -> Path:
    path = place / "given.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def taken(place: Path, *rows: object, form: str = "trl") -> list[Trajectory]:
    take_in([given(place, *rows)], form, place / "r")
    return list(read_run(place / "r").trajectories.values())


def gist(one: Trajectory) -> tuple:
    return one.system, one.prompt, [(turn.action, turn.observation) for turn in one.turns], one.reward


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [*ASKED, *WON]},
        {"prompt": ASKED, "completion": WON, "label": True, "other": 1},
        {"messages": [said("developer", "Play."), *ASKED[1:], *WON], "prompt": None, "reward": 1},
        {"messages": [*ASKED[:1], said("user", [{"type": "text", "text": "Where?"}]), *WON]},
    ],
)
def test_every_form_of_a_row_is_the_same_attempt(tmp_path, row):
    [one] = taken(tmp_path, row)
    assert gist(one) == ("Play.", "Where?", [("look", "A door."), ("open", "")], 1.0)
    assert one.task.split == "train" and one.task.env == "imported" and one.phase == "import"
    about = one.task.data["imported"]
    assert (about["file"], about["line"], about["as"]) == ("given.jsonl", 1, "trl") and len(about["sha256"]) == 64
    prompt, completion = conversation(one, keep_context=False)
    assert [message.content for message in (*prompt, *completion)] == ["Play.", "Where?", "look", "A door.", "open"]


def test_plain_rows_are_asked_under_the_rules_of_the_house(tmp_path):
    [one] = taken(tmp_path, {"prompt": "2 + 2?", "completion": "4", "label": False})
    assert gist(one)[1:] == ("2 + 2?", [("4", "")], 0.0) and "next action" in one.system


def test_a_pair_is_two_attempts_at_one_task(tmp_path):
    bad = [said("assistant", "sleep")]
    better, worse = taken(tmp_path, {"prompt": ASKED, "chosen": WON, "rejected": bad})
    assert (better.reward, worse.reward, better.task.id) == (1.0, 0.0, worse.task.id)
    assert [(pair.better.id, pair.worse.id) for pair in best_worst([better, worse])] == [(better.id, worse.id)]


def test_calls_of_tools_become_actions_and_the_tools_are_listed(tmp_path):
    call = said("assistant", None, tool_calls=[{"type": "function", "id": "1", "function": CALLING}])
    written = said("assistant", "", tool_calls=[{"function": CALLING | {"arguments": json.dumps(CALLING["arguments"])}}])
    answer = said("tool", "It opens.", tool_call_id="1")
    rows = [
        {"messages": [*ASKED, one, answer], "tools": tools} for one, tools in ((call, [SCHEMA]), (written, json.dumps([SCHEMA])))
    ]
    [one] = taken(tmp_path, *rows)
    assert json.loads(one.turns[0].action) == CALLING and one.turns[0].observation == "It opens."
    system = conversation(one, keep_context=False)[0][0].content
    assert "open_door" in system and "Play." in system


def test_rows_a_turn_are_one_attempt(tmp_path):
    rows = [{"prompt": [*ASKED, *WON[:place]], "completion": WON[place : place + 1]} for place in (0, 2)]
    [one] = taken(tmp_path, *rows)
    assert [turn.action for turn in one.turns] == ["look", "open"]


@pytest.mark.parametrize("form", ["trl", "atif"])
def test_what_we_export_comes_back_as_the_rows_that_we_train_on(tmp_path, form):
    out = tmp_path / "out"
    export(lived(tmp_path / "r0"), out, form, Wanted(splits=("train",), solved=True))
    take_in(sorted(out.iterdir()), form, tmp_path / "r")
    found = {_text(one) for one in kept([tmp_path / "r"], 9, None)}
    wanted = {_text(one) for one in lives() if one.solved and one.task.split == "train"}
    assert len(found) == 4
    assert {text.replace("\\ud83d", "\ud83d").replace("[secret]", SECRET) for text in found} == wanted


def _text(one: Trajectory) -> str:
    [row] = examples([one])
    return "\n".join(f"{message.role}: {message.content}" for message in (*row.prompt, *row.completion))


def test_distill_learns_from_what_was_taken_in(tmp_path, ask):
    base = kin.folder(tmp_path / "base", "qwen2")
    kin.gguf_of(base, base / "model.gguf", "qwen2")
    given(tmp_path, {"messages": [*ASKED, *WON]}, {"prompt": "2 + 2?", "completion": "4"})
    code, out, _ = ask("import", "given.jsonl", "--as", "trl", "--out", "r")
    assert (code, out) == (0, "r: 2 attempts added, 2 of them solved, 0 known already\n")
    words = ("distill", "r", "--model", f"local/{base}", "--out", "a", "--epochs", "1", "--quiet")
    assert ask(*words)[0] == 0
    assert set(read_adapter(tmp_path / "a").sources) == set(read_run(tmp_path / "r").trajectories)


def test_taking_in_twice_adds_nothing_and_files_are_journalled(tmp_path):
    path = given(tmp_path, {"messages": [*ASKED, *WON]})
    assert take_in([path], "trl", tmp_path / "r") == (1, 1, 0)
    assert take_in([path], "trl", tmp_path / "r") == (0, 0, 1)
    [fact] = [fact for name, fact in read_run(tmp_path / "r").facts.items() if name.startswith("imported ")]
    assert (fact["file"], fact["as"], fact["attempts"]) == ("given.jsonl", "trl", 1)
    assert str(tmp_path) not in (tmp_path / "r" / "journal.jsonl").read_text()


def test_hostile_text_is_text_and_secrets_are_hidden(tmp_path):
    [one] = taken(tmp_path, {"prompt": HOSTILE, "completion": f"{HOSTILE} {SECRET}"})
    assert one.prompt == HOSTILE and one.turns[0].action == f"{HOSTILE} [secret]"
    assert all("<|im_end|>" not in message.content for part in conversation(one, keep_context=False) for message in part)


BAD = [
    ("{", "given.jsonl:2: not JSON: Expecting property name"),
    ("[1]", "given.jsonl:2: a list, not an object"),
    ("[" * 100_000, "given.jsonl:2: not JSON"),
    ('{"messages": 3}', "given.jsonl:2: messages: Input should be a valid list, not 3"),
    ('{"messages": [{"role": "robot", "content": ""}]}', "given.jsonl:2: messages.0.role: Input should be 'system', 'developer'"),
    ('{"messages": [{"role": "user", "content": [{"type": "image"}]}]}', "messages.0.content.0.type: Input should be 'text'"),
    ('{"messages": [{"role": "user", "content": "a"}]}', "given.jsonl:2: no agent says anything in it"),
    ('{"messages": [{"role": "assistant", "content": "a"}]}', "given.jsonl:2: an agent speaks first"),
    ('{"text": "a"}', "given.jsonl:2: no messages, no prompt with a completion"),
    (
        '{"prompt": "a", "completion": "b", "reward": NaN}',
        "given.jsonl:2: reward: Input should be less than or equal to 1, not nan",
    ),
    ('{"prompt": "a", "completion": "b", "tools": [{}]}', "given.jsonl:2: tools.0.function is missing"),
    ('{"prompt": "a", "completion": [{"role": "assistant", "tool_calls": [{"function": {"name": 1}}]}]}', "function.name"),
]


@pytest.mark.parametrize(("line", "told"), BAD)
def test_a_bad_row_is_named_by_file_line_and_field_and_nothing_is_taken_in(ask, tmp_path, line, told):
    given(tmp_path, {"messages": [*ASKED, *WON]}).open("a").write(line)
    code, out, err = ask("import", "given.jsonl", "--as", "trl", "--out", "r")
    assert (code, out) == (2, "") and told in err and err.count("\n") == 1 and len(err) < 1_000
    assert not (tmp_path / "r").exists()


TRAJECTORY = {
    "schema_version": "ATIF-v1.4",
    "agent": {"name": "terminus", "version": "2", "model_name": "openai/x"},
    "session_id": "s",
    "steps": [
        {"step_id": 1, "source": "user", "message": "Where?"},
        {"step_id": 2, "source": "agent", "message": "old", "is_copied_context": True},
        {
            "step_id": 3,
            "source": "agent",
            "message": "I open it.",
            "tool_calls": [{"tool_call_id": "c", "function_name": "open_door", "arguments": {"door": "red"}}],
            "observation": {"results": [{"source_call_id": "c", "content": [{"type": "text", "text": "It opens."}]}]},
        },
    ],
}


def test_a_trajectory_of_another_agent_is_an_attempt(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(TRAJECTORY, indent=1))
    take_in([path], "atif", tmp_path / "r")
    [one] = read_run(tmp_path / "r").trajectories.values()
    [turn] = one.turns
    assert (json.loads(turn.action), turn.thinking, turn.observation) == (CALLING, "I open it.", "It opens.")
    assert one.policy.model == "openai/x" and one.solved and "line" not in one.task.data["imported"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema_version": "ATIF-v2.0"}, "t.json: schema_version: String should match pattern"),
        ({"steps": []}, "t.json: steps: List should have at least 1 item"),
        ({"steps": [{"source": "robot", "message": ""}]}, "t.json: steps.0.source: Input should be 'system', 'user' or 'agent'"),
        ({"steps": TRAJECTORY["steps"][:2]}, "t.json: no agent says anything in it"),
        ({"extra": {"reward": 7}}, "t.json: extra.reward: Input should be less than or equal to 1"),
        (
            {"extra": {"agentevolve": {"task": {"split": "test"}}}},
            "t.json: extra.agentevolve.task.split: Input should be 'train'",
        ),
        ({"agent": {"name": "x", "tool_definitions": [{"a": 1}]}}, "t.json: agent.tool_definitions.0: not the schema"),
    ],
)
def test_a_bad_trajectory_is_named_by_file_and_field(ask, tmp_path, change, told):
    (tmp_path / "t.json").write_text(json.dumps(TRAJECTORY | change))
    code, out, err = ask("import", "t.json", "--as", "atif", "--out", "r")
    assert (code, out) == (2, "") and told in err and err.count("\n") == 1
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["given.jsonl", "--as", "csv"], "--as: 'csv' is not known; known: trl, atif"),
        (["none.jsonl", "--as", "trl"], "none.jsonl: cannot be read: No such file or directory"),
        ([".", "--as", "trl"], "cannot be read: Is a directory"),
        (["/dev/null", "--as", "trl"], "/dev/null: there is no attempt in it"),
    ],
)
def test_what_cannot_be_taken_in_is_said_in_one_line(ask, tmp_path, words, told):
    given(tmp_path, {"messages": [*ASKED, *WON]})
    code, out, err = ask("import", *words, "--out", "r")
    assert (code, out) == (2, "") and told in err and err.count("\n") == 1


def test_a_run_of_our_own_takes_nothing_in(ask, tmp_path):
    lived(tmp_path / "r")
    given(tmp_path, {"messages": [*ASKED, *WON]})
    code, _, err = ask("import", "given.jsonl", "--as", "trl", "--out", "r")
    assert code == 2 and "holds a run of another import; name a new folder with --out" in err


TEXTS = st.text() | st.sampled_from([HOSTILE, "user", "assistant", "system", "agent", "ATIF-v1.8", "text", ""])
NAMES = (
    "messages prompt completion chosen rejected label reward tools role content tool_calls function name arguments"
    " schema_version agent steps source message observation results extra"
)
KEYS = st.sampled_from(NAMES.split())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=30,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": TEXTS | st.none()},
        optional={"tool_calls": st.lists(st.just({"function": CALLING}), max_size=2), "reasoning_content": TEXTS},
    ),
    max_size=6,
)
CHATS = st.fixed_dictionaries({"messages": MESSAGES}) | st.fixed_dictionaries({"prompt": MESSAGES, "completion": MESSAGES})


@settings(max_examples=300, deadline=None)
@drawn(value=VALUES | CHATS, form=st.sampled_from(list(FORMS)))
def test_whatever_is_given_is_an_attempt_or_one_line(value, form):
    try:
        chats = list(FORMS[form](json.dumps(value).encode(), Path("given")))
    except AgentevolveError as error:
        assert str(error).startswith("given") and "\n" not in str(error)
        return
    for one in map(lambda chat: lived_elsewhere(chat, {}), chats):
        assert one.task.split == "train" and one.turns and examples([one], solved=False)
