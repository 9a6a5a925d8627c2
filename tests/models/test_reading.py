"""What a model said, in the forms that backends, chat templates and habits give it: one table for each kind."""

import json
from types import SimpleNamespace

import pytest

from agentevolve.models.reading import FAILURES, LARGEST, LARGEST_THINKING, Read, read_reply
from agentevolve.models.tools import Call, read, written

ACTIONS = ["go north", "take lamp", "open door", "open door slowly", "look"]
GO = written([Call("go", {"where": "north"})])
JSON = '{"where": "north"}'


def tool(name: str, **properties) -> dict:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


TOOLS = [tool("go", where={"type": "string"}, steps={"type": "integer"}), tool("look")]


def said(text) -> dict:
    return {"role": "assistant", "content": text}


def native(*calls, **fields) -> dict:
    made = [{"id": "c", "type": "function", "function": {"name": name, "arguments": text}} for name, text in calls]
    return said(None) | {"tool_calls": made} | fields


# text | thinking
THINKING = {
    "none": ("go", "", "go"),
    "paired": ("<think>hm</think>\n\ngo", "hm", "go"),
    "paired, empty": ("<think>\n\n</think>\n\ngo", "", "go"),
    "thinking": ("<thinking>hm</thinking>go", "hm", "go"),
    "reasoning": ("<reasoning>hm</reasoning>go", "hm", "go"),
    "thought": ("<thought>hm</thought>go", "hm", "go"),
    "capitals": ("<Think>hm</THINK>go", "hm", "go"),
    "seed": ("<seed:think>hm</seed:think>go", "hm", "go"),
    "kimi": ("◁think▷hm◁/think▷go", "hm", "go"),
    "magistral": ("[THINK]hm[/THINK]go", "hm", "go"),
    "command": ("<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>go<|END_RESPONSE|>", "hm", "go"),
    "gemma": ("<|channel>thought\nhm<channel|>go", "hm", "go"),
    "granite": ("Here is my thought process: hm Here is my response: go", "hm", " go"),
    "harmony": ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>go<|return|>", "hm", "go"),
    "harmony, its final part alone": ("<|channel|>final <|constrain|>json<|message|>go", "", "go"),
    "harmony, its marks lost": ("analysis hm assistantfinalgo", "analysis hm", "go"),
    "only the closing tag": ("hm\nhm </think>\ngo", "hm\nhm", "go"),
    "nested": ("<think>a<think>b</think>c</think>go", "a\nb\nc", "go"),
    "opened twice, closed once": ("<think>a<think>b</think>go", "a\nb", "go"),
    "closed twice": ("<think>a</think>b</think>go", "a\nb", "go"),
    "repeated": ("<think>a</think><think>b</think>go", "a\nb", "go"),
    "between two texts": ("one<think>hm</think>two", "hm", "one\ntwo"),
    "after the text": ("go\n<think>hm</think>", "hm", "go"),
    "opened after the text, never closed": ("go\n<think>hm", "hm", "go"),
    "an indented program": ("<think>hm</think>\n \n    return 1\n", "hm", "    return 1"),
    "parts": ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "go"}], "hm", "go"),
    "parts of parts": (
        [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "go"}],
        "hm",
        "go",
    ),
    "parts that are objects": (
        [SimpleNamespace(type="reasoning", text="hm"), SimpleNamespace(type="text", text="go")],
        "hm",
        "go",
    ),
    "parts of odd kinds": ([7, None, {"type": "image_url"}, "go", {"type": "text", "text": " on"}], "", "go on"),
    "parts and tags": ([{"type": "text", "text": "<think>hm</think>"}, {"type": "output_text", "text": "go"}], "hm", "go"),
}


@pytest.mark.parametrize("case", THINKING)
def test_thinking_is_no_part_of_what_was_said(case):
    content, thinking, text = THINKING[case]
    for message in (said(content), SimpleNamespace(content=content, tool_calls=None)):
        found = read_reply(message)
        assert (found.text, found.thinking.strip(), found.failure) == (text, thinking, "")


FIELDS = {
    "reasoning_content": {"reasoning_content": "hm"},
    "reasoning": {"reasoning": "hm"},
    "blocks": {"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}]},
    "the same twice": {"reasoning_content": "hm", "thinking_blocks": [{"type": "thinking", "thinking": "hm"}]},
    "odd": {"reasoning_content": 5, "reasoning": [{"type": "reasoning.text", "text": "hm"}]},
}


@pytest.mark.parametrize("case", FIELDS)
def test_thinking_comes_in_fields_too(case):
    assert read_reply(said("go") | FIELDS[case]) == Read("go", "hm", "")
    assert read_reply(native(("go", JSON), **FIELDS[case]), tools=TOOLS) == Read(GO, "hm", "")
    assert read_reply(said("") | FIELDS[case]) == Read("", "hm", "empty")
    assert read_reply(said(None) | FIELDS[case], finish="length") == Read("", "hm", "thinking")


CALLS = {
    "bare": f'{{"name": "go", "arguments": {JSON}}}',
    "fenced": f'```json\n{{"name": "go", "arguments": {JSON}}}\n```',
    "fenced without a language": f'```\n{{"name": "go", "arguments": {JSON}}}\n```',
    "hermes": f'<tool_call>\n{{"name": "go", "arguments": {JSON}}}\n</tool_call>',
    "hermes, never closed": f'<tool_call>{{"name": "go", "arguments": {JSON}}}',
    "mistral": f'[TOOL_CALLS] [{{"name": "go", "arguments": {JSON}}}]',
    "mistral, by name": f"[TOOL_CALLS]go[ARGS]{JSON}",
    "llama": f'<|python_tag|>{{"name": "go", "parameters": {JSON}}}',
    "function": f"<function=go>{JSON}</function>",
    "function in words": f"I go. <function=go>{JSON}</function> Well.",
    "function with tags": "<tool_call>\n<function=go>\n<parameter=where>\nnorth\n</parameter>\n</function>\n</tool_call>",
    "invoke": '<invoke name="go"><parameter name="where">north</parameter></invoke>',
    "glm": "<tool_call>go\n<arg_key>where</arg_key>\n<arg_value>north</arg_value>\n</tool_call>",
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.go:0<|tool_call_argument_begin|>"
    f"{JSON}<|tool_call_end|><|tool_calls_section_end|>",
    "deepseek": f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>go\n```json\n{JSON}\n```<｜tool▁call▁end｜>",
    "deepseek 3.1": f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>go<｜tool▁sep｜>{JSON}<｜tool▁call▁end｜>",
    "harmony": "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
    f"<|channel|>commentary to=functions.go <|constrain|>json<|message|>{JSON}<|call|>",
    "harmony, named first": f"<|start|>assistant to=functions.go<|channel|>commentary json<|message|>{JSON}<|call|>",
    "words around": f'I will go there: {{"name": "go", "arguments": {JSON}}}. That is all.',
    "words with braces around": f'The set {{1, 2}} and {{"a", "b"}}: {{"name": "go", "arguments": {JSON}}} {{}}',
    "after thinking": f'<think>{{"name": "look", "arguments": {{}}}}?</think>{{"name": "go", "arguments": {JSON}}}',
    "parameters": f'{{"name": "go", "parameters": {JSON}}}',
    "arguments as text": json.dumps({"name": "go", "arguments": JSON}),
    "in a function": f'{{"function": {{"name": "go", "arguments": {JSON}}}}}',
    "openai's form": json.dumps({"id": "1", "type": "function", "function": {"name": "go", "arguments": JSON}}),
    "the function's name alone": f'{{"function": "go", "arguments": {JSON}}}',
    "tool_calls": json.dumps({"tool_calls": [{"function": {"name": "go", "arguments": JSON}}]}),
    "a list": f'[{{"name": "go", "arguments": {JSON}}}]',
    "an invented result and a further call": f'<tool_call>{{"name": "go", "arguments": {JSON}}}</tool_call>\n'
    '<tool_response>{"ok": true}</tool_response>\n<tool_call>{"name": "look", "arguments": {}}</tool_call>',
    "an invented observation": f'{{"name": "go", "arguments": {JSON}}}\nObservation: a yard\n{{"name": "look"}}',
}


@pytest.mark.parametrize("case", CALLS)
def test_a_call_is_read_from_text(case):
    assert read_reply(said(CALLS[case]), tools=TOOLS)._replace(thinking="") == Read(GO, "", "")


MANY = {
    "none but a name": ('{"name": "look"}', [Call("look", {})]),
    "a name in words": ('Well: {"name": "look"}', [Call("look", {})]),
    "empty arguments": ('{"name": "look", "arguments": null}', [Call("look", {})]),
    "odd arguments": ('{"name": "look", "arguments": "now"}', [Call("look", "now")]),
    "a function without arguments": ("<function=look></function>", [Call("look", {})]),
    "a name in tags": ("<tool_call>look</tool_call>", [Call("look", {})]),
    "no tool of these": ('<tool_call>{"name": "fly"}</tool_call>', [Call("fly", {})]),
    "a list of two": ('[{"name": "go"}, {"name": "look"}]', [Call("go", {}), Call("look", {})]),
    "two in tags": (
        '<tool_call>{"name": "go"}</tool_call>\n<tool_call>{"name": "look"}</tool_call>',
        [Call("go", {}), Call("look", {})],
    ),
    "two by name": ('[TOOL_CALLS]go[ARGS]{"steps": 2}[TOOL_CALLS]look[ARGS]{}', [Call("go", {"steps": 2}), Call("look", {})]),
    "types by the schema": (
        "<function=go><parameter=where>5</parameter><parameter=steps>5</parameter></function>",
        [Call("go", {"where": "5", "steps": 5})],
    ),
    "a line feed in a string": ('{"name": "go", "arguments": {"where": "a\nb"}}', [Call("go", {"where": "a\nb"})]),
    "half a surrogate": ('{"name": "go", "arguments": {"where": "\\ud83d"}}', [Call("go", {"where": "\ufffd"})]),
    "a call within the arguments": (
        '{"name": "go", "arguments": {"name": "look", "arguments": {}}}',
        [Call("go", {"name": "look", "arguments": {}})],
    ),
}


@pytest.mark.parametrize("case", MANY)
def test_calls_keep_their_names_arguments_and_number(case):
    text, calls = MANY[case]
    assert read(read_reply(said(text), tools=TOOLS).text) == calls


SPEECH = [
    "Hello.",
    "I would go {north} if I could.",
    'The record is {"name": "Bob", "age": 3}, as you see.',
    'In the record {"name": Bob} something is missing.',
    '{"where": "north"}',
    '{"name": 5}',
    '[{"name": "go"}, 7]',
    "if (x) { return [1, 2]; }",
    "7",
]


@pytest.mark.parametrize("text", SPEECH)
def test_what_is_no_call_is_something_said(text):
    assert read_reply(said(text), tools=TOOLS) == Read(text, "", "")


def test_without_tools_a_call_in_text_is_text():
    for text in (CALLS["hermes"], CALLS["words around"]):
        assert read_reply(said(text)) == Read(text, "", "")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (JSON, {"where": "north"}),
        ({"where": "north"}, {"where": "north"}),
        ("", {}),
        (None, {}),
        ('{"half', '{"half'),
        ("[" * 100_000, "too long"),
    ],
)
def test_a_backend_s_own_calls_keep_what_the_model_wrote(arguments, meant):
    found = read_reply(native(("go", arguments), content="I go."), tools=TOOLS)
    assert found == (Read("", "", meant) if meant == "too long" else Read(written([Call("go", meant)]), "", ""))


# what was said | the choice that it means, or "" where none can be made out
CHOSEN = {
    "exact": ("take lamp", "take lamp"),
    "case, quotes and full stop": ('  "Take Lamp."\n', "take lamp"),
    "curly quotes": ("“take lamp”", "take lamp"),
    "markdown": ("**take lamp**", "take lamp"),
    "underscores": ("_take lamp_", "take lamp"),
    "backticks in words": ("I will `take lamp`.", "take lamp"),
    "spaces": ("take\u00a0  lamp", "take lamp"),
    "fenced": ("```\ntake lamp\n```", "take lamp"),
    "json": ('{"action": "take lamp"}', "take lamp"),
    "json, another case": ('{"action": "Take Lamp."}', "take lamp"),
    "json, fenced": ('```json\n{"action": "take lamp"}\n```', "take lamp"),
    "json, words around": ('I go north? No: {"thought": "look", "action": "take lamp"} it is.', "take lamp"),
    "json, repeated": ('{"action": "take lamp"}\nObservation: taken\n{"action": "go north"}', "take lamp"),
    "json, never closed": ('{"action": "take lamp', "take lamp"),
    "json, another key": ('{"Action": "take lamp"}', "take lamp"),
    "a list of one": ('["take lamp"]', "take lamp"),
    "numbered": ("1. take lamp", "take lamp"),
    "dashed": ("- take lamp", "take lamp"),
    "prompted": ("> take lamp", "take lamp"),
    "a plan": ("1. take lamp\n2. go north", "take lamp"),
    "Action": ("Action: take lamp", "take lamp"),
    "ACTION": ("ACTION: take lamp", "take lamp"),
    "Next action": ("Next action: take lamp", "take lamp"),
    "My action": ("My action: take lamp, because I can't go north", "take lamp"),
    "bold label": ("**Action:** take lamp", "take lamp"),
    "bold word": ("**Action**: take lamp", "take lamp"),
    "numbered label": ("Action 1: take lamp\nAction 2: go north", "take lamp"),
    "label above": ("Action:\ntake lamp", "take lamp"),
    "I choose": ("I choose: take lamp", "take lamp"),
    "is": ("The best action is to take lamp.", "take lamp"),
    "tags": ("<action>take lamp</action>", "take lamp"),
    "boxed": ("\\boxed{take lamp}", "take lamp"),
    "end of turn": ("take lamp<|im_end|>\n<|im_start|>user\ngo north", "take lamp"),
    "react": ("Thought: the lamp is dark\nAction: take lamp\nObservation: taken\nAction: go north", "take lamp"),
    "react in a line": ("Thought: I go north later. Action: take lamp Observation: taken. Action: go north", "take lamp"),
    "invented observations": ("take lamp\nYou take it.\n> go north\nA yard.\n> look", "take lamp"),
    "invented conversation": ("take lamp\n\nUser: Taken. You can look.\n\nAssistant: go north", "take lamp"),
    "a line beats prose": ("I could go north or look.\ntake lamp", "take lamp"),
    "a label beats an offered list": ("The options are:\n- go north\n- look\n\nAction: take lamp", "take lamp"),
    "prose after an offered list": ("Actions: go north, look\n\nI will take lamp.", "take lamp"),
    "no action comes first": ("Action: fly\nAction: take lamp", "take lamp"),
    "one mention": ("I think I should take lamp now", "take lamp"),
    "a denial and a choice": ("I will not go north but take lamp", "take lamp"),
    "instead of": ("I take lamp; instead of that I could not look", "take lamp"),
    "the longest": ("I open door slowly", "open door slowly"),
    "the shorter": ("I open door, slow as I am", "open door"),
    "after thinking": ("<think>go north? look?</think>take lamp", "take lamp"),
    "control characters": ("take lamp\x00\x1b", "take lamp"),
    "denied": ("I will not take lamp", ""),
    "denied afterwards": ("To take lamp is impossible", ""),
    "denied before a comma": ("Do not, under any circumstances, take lamp", ""),
    "don’t": ("Don’t take lamp", ""),
    "rather": ("I wait rather than take lamp", ""),
    "a question": ("Shall I take lamp?", ""),
    "two in a sentence": ("first take lamp, then go north", ""),
    "two sentences": ("I could go north. I could take lamp.", ""),
    "two after a label": ("Action: take lamp and go north", ""),
    "a label denies": ("The action is not take lamp", ""),
    "a thought alone": ("Thought: I should take lamp", ""),
    "an observation alone": ("Observation: you can take lamp", ""),
    "another action, thought of a choice": ("Thought: I must go north\nAction: fly", ""),
    "json of no choice": ('I could take lamp: {"action": "fly"}', ""),
    "a part of a word": ("retake lampshade", ""),
    "an index": ("2", ""),
    "an index in words": ("Action: 2", ""),
    "no choice": ("dance", ""),
}


@pytest.mark.parametrize("case", CHOSEN)
def test_a_choice_is_what_was_meant_or_what_was_said(case):
    text, meant = CHOSEN[case]
    found = read_reply(said(text), choices=ACTIONS)
    assert found.failure == "" and found.text not in set(ACTIONS) - {meant}
    assert found.text == meant or (not meant and found.text)


def test_what_means_no_choice_comes_back_as_its_first_line():
    assert read_reply(said("\n hmm \ngoing northwards"), choices=ACTIONS).text == "hmm"
    assert read_reply(said('{"action": 5}'), choices=ACTIONS).text == "5"


@pytest.mark.parametrize(
    ("choices", "text", "meant"),
    [
        (["1", "2"], "2", "2"),
        (["1", "2"], "I have 2 of them", "2"),
        (["A", "B"], "The answer is A.", "A"),
        (["A", "B"], "A lamp is there", "A lamp is there"),
        (["Go", "go"], "go", "go"),
        (["Go", "go"], "GO", "GO"),
        (["say: wait. go north", "go north"], "I say: wait. go north", "say: wait. go north"),
        (["two\nlines"], '{"action": "two\\nlines"}', "two\nlines"),
        (["tab\tand\rreturn"], "tab\tand\rreturn", "tab\tand\rreturn"),
        (["...", "go"], "...", "..."),
        (["...", "go"], "***", "***"),
    ],
)
def test_awkward_choices(choices, text, meant):
    assert read_reply(said(text), choices=choices).text == meant


CHOOSE, CALL = {"choices": ACTIONS}, {"tools": TOOLS}
UNREAD = {
    "no message": (None, {}, "empty"),
    "no text": (said(None), {}, "empty"),
    "blank": (said(" \n"), CHOOSE, "empty"),
    "no parts": (said([]), CALL, "empty"),
    "an empty action": (said('{"action": ""}'), CHOOSE, "empty"),
    "thought and said nothing": (said("<think>hm</think>"), {}, "empty"),
    "cut in a thought": (said("<think>I go north, so"), CHOOSE, "thinking"),
    "cut in a thought at the limit": (said("<think>I go north, so"), CHOOSE | {"finish": "length"}, "thinking"),
    "cut in a later thought": (said("go north\n<think>or"), CHOOSE | {"finish": "length"}, "thinking"),
    "cut after a thought": (said("<think>hm</think>"), {"finish": "length"}, "thinking"),
    "cut in hidden thoughts": (said(""), {"finish": "length"}, "thinking"),
    "cut in harmony's analysis": (said("<|channel|>analysis<|message|>hm"), {}, "thinking"),
    "cut in kimi's": (said("◁think▷hm"), {}, "thinking"),
    "cut in magistral's": (said("[THINK]hm"), {}, "thinking"),
    "prose cut": (said("I could go north or"), CHOOSE | {"finish": "length"}, "cut off"),
    "a choice cut short": (said("open door"), CHOOSE | {"finish": "length"}, "cut off"),
    "a labelled choice cut short": (said("Action: Open door"), CHOOSE | {"finish": "length"}, "cut off"),
    "json cut": (said('{"action": "go nor'), CHOOSE | {"finish": "length"}, "cut off"),
    "a call cut": (said('<tool_call>{"name": "go", "arguments": {"wh'), CALL | {"finish": "length"}, "cut off"),
    "a call cut in its tags": (said("<function=go><parameter=where>nor"), CALL | {"finish": "length"}, "cut off"),
    "speech cut": (said("I think that I"), CALL | {"finish": "length"}, "cut off"),
    "a backend's call cut": (native(("go", '{"wh')), CALL | {"finish": "length"}, "cut off"),
    "a long answer": (said("x" * (LARGEST + 1)), {}, "too long"),
    "a long answer to choose from": (said("go north\n" * LARGEST), CHOOSE, "too long"),
    "5 MB": (said("go north " * 600_000), CHOOSE, "too long"),
    "5 MB of a call": (native(("go", json.dumps({"where": "x" * 5_000_000}))), CALL, "too long"),
    "a broken call": (said('<tool_call>{"name": "go", "arguments": {"where": }</tool_call>'), CALL, "malformed"),
    "a broken call around another": (said('{"name": "go", "arguments": {"name": "look", "arguments": {}}'), CALL, "malformed"),
    "a broken call by name": (said("<function=go>where: north</function>"), CALL, "malformed"),
    "a call by name never closed": (said("<function=go><parameter=where>nor"), CALL, "malformed"),
    "tags around no call": (said('<tool_call>{"foo": 1}</tool_call>'), CALL, "malformed"),
    "a program as a call": (said("<|python_tag|>go.call(where='north')"), CALL, "malformed"),
    "content of a number": (said(5), {}, "malformed"),
    "content of an odd part": (said([{"type": "image_url"}]), {}, "malformed"),
    "calls of no list": (native() | {"tool_calls": "go"}, CALL, "malformed"),
    "a call of no function": (native() | {"tool_calls": [{"id": "1"}, None]}, CALL, "malformed"),
    "a call of no name": (native(("", JSON)), CALL, "malformed"),
    "a name of no text": (native((["go"], JSON)), CALL, "malformed"),
    "arguments of no JSON": (native(("go", {"where": object()})), CALL, "malformed"),
}


@pytest.mark.parametrize("case", UNREAD)
def test_what_cannot_be_read_is_a_stated_failure(case):
    message, asked, failure = UNREAD[case]
    found = read_reply(message, **asked)
    assert (found.text, found.failure) == ("", failure)
    assert found.failure in FAILURES


@pytest.mark.parametrize(
    ("text", "asked", "meant"),
    [
        ("An answer that was cut is st", {}, "An answer that was cut is st"),
        ("go north", CHOOSE, "go north"),
        ("open door\nYou op", CHOOSE, "open door"),
        ("Action: take lamp, because the", CHOOSE, "take lamp"),
        (CALLS["hermes"] + '\n<tool_call>{"na', CALL, GO),
    ],
)
def test_what_was_cut_after_its_meaning_is_read(text, asked, meant):
    assert read_reply(said(text), **asked, finish="length") == Read(meant, "", "")


def test_a_backend_s_calls_are_an_action_of_many():
    assert read(read_reply(native(("a", ""), ("b", "{}"))).text) == [Call("a", {}), Call("b", {})]


def test_a_refusal_is_something_said():
    assert read_reply(said(None) | {"refusal": "I can't help."}).text == "I can't help."


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("half \ud83d of it", "half \ufffd of it"),
        ("both halves \ud83d\ude00", "both halves 😀"),
        ("nul\0, bell\x07, escape\x1b[31m and C1\x9b", "nul, bell, escape[31m and C1"),
        ("tab\tand\r\nline\rends", "tab\tand\nline\nends"),
    ],
)
def test_text_is_fit_to_be_written(text, meant):
    for found in (read_reply(said(text)).text, read_reply(said("a") | {"reasoning_content": text}).thinking):
        assert found == meant and found.encode()


HOSTILE = [
    *(
        "<think>",
        "</think>",
        "<",
        "<|channel|>",
        "<|channel|>analysis",
        "<|start|>assistant",
        "◁think▷",
        "[THINK]",
        "\ud83d",
        "\n ",
        " ",
        "\0",
    ),
    *(
        "{",
        '{"',
        '{"a":',
        '{"action":',
        '{"name": "go", "arguments": ',
        "[",
        '[{"',
        "```",
        "`",
        "<tool_call>",
        "<function=go>",
        "[TOOL_CALLS]",
    ),
    *(
        "<parameter=a>",
        "<arg_key>",
        "to=functions.",
        "Action:",
        "Action ",
        "my ",
        "options ",
        "1. ",
        "> ",
        "n't ",
        "go north ",
        "open door, ",
        "a?",
    ),
]


@pytest.mark.parametrize("piece", HOSTILE, ids=repr)
@pytest.mark.parametrize("size", [LARGEST - 10, 1_000_000])
def test_a_hostile_reply_is_read_to_its_end(piece, size):
    text = (piece * (size // len(piece) + 1))[:size]
    for asked in ({}, CHOOSE, CALL):
        found = read_reply(said(text) | {"reasoning_content": text}, **asked)
        assert len(found.text) <= LARGEST and len(found.thinking) <= LARGEST_THINKING
        assert found.failure or found.text
        (found.text + found.thinking).encode()


def test_deep_messages_are_read_or_refused():
    deep = "go"
    for _ in range(500):
        deep = [deep]
    assert read_reply(said(deep)).failure == "malformed"
    assert read_reply(native(("go", {"where": deep})), tools=TOOLS).failure in ("", "malformed")
    assert read_reply(said('{"action": ' + "[" * 15_000), choices=ACTIONS).failure == ""
