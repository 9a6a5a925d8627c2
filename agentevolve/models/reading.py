"""What a model said: the one reading of a reply, whatever backend, chat template or habit shaped it.

A reply is parted into thinking and answer at the marks where one turns into the other; the answer is then one of the choices,
calls of tools, or plain text. What cannot be read is a stated kind of failure, never another action. All of it comes from
outside: only what has passed the bound of size is looked at closely, nothing is evaluated, and what comes out encodes to UTF-8.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agentevolve.models.tools import Call, Tool, written

LARGEST = 20_000  # characters of an answer, which every later prompt repeats
LARGEST_THINKING = 20 * LARGEST  # what is beyond is cut off

FAILURES = {
    "empty": "the model's answer has no text",
    "thinking": "the reply limit went into thinking",
    "cut off": "the answer was cut off at the reply limit before it said what to do",
    "too long": f"the answer is longer than {LARGEST:,} characters",
    "malformed": "the answer is malformed: a call, or a message, that nobody can make out",
}


class Read(NamedTuple):
    """A reply as read: the action or text, the model's reasoning, and what kept it from being read.

    `text` is one of the choices where it means one, calls as `tools.written` has them, or plain text; "" in a failure.
    `thinking` is no part of it. `failure` is "" or a key of FAILURES.
    """

    text: str
    thinking: str
    failure: str


class _Unread(Exception):
    """A reply that cannot be read; its one argument is a key of FAILURES."""


def read_reply(message: Any, *, choices: Sequence[str] = (), tools: Sequence[Tool] = (), finish: str = "stop") -> Read:
    """Read OpenAI's `message`, an object or a mapping, as one of `choices`, as calls of `tools`, or as text without either.

    `finish` is the reply's finish_reason. Text that means no choice comes back as its first line, text that calls no tool as
    something said: the world answers those. A tool that does not exist stays as written. Nothing is raised for any message.
    """
    content, thought = _content(message)
    said, marked, opened = _parted(_cleaned(content[: LARGEST + LARGEST_THINKING]))
    elsewhere = _cleaned(_joined([_reasoning(message), thought])[:LARGEST_THINKING])
    thinking = _joined([elsewhere, marked]).strip()[:LARGEST_THINKING]
    cut = finish == "length"
    try:
        if calls := _native_calls(message, cut):
            said = _written(calls)
        elif not said or (opened and cut):
            raise _Unread(_silence(message, bool(content or thought), opened or cut))
        return Read(_answer(said, choices, () if calls else tools, cut), thinking, "")
    except _Unread as failure:
        return Read("", thinking, failure.args[0])


def _silence(message: Any, texts: bool, limited: bool) -> str:
    """Why nothing was said: where a limit was reached, thinking took it up, shown or not; content without a text is none."""
    if limited:
        return "thinking"
    return "malformed" if _field(message, "content") and not texts else "empty"


def _answer(said: str, choices: Sequence[str], tools: Sequence[Tool], cut: bool) -> str:
    if len(said) > LARGEST:
        raise _Unread("too long")
    if choices:
        return _choice(said, choices, cut)
    return _called(said, tools, cut) if tools else said


# ---- the message: text and thinking, wherever a backend puts them


def _field(thing: Any, name: str) -> Any:
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def _words(value: Any, depth: int = 4) -> str:
    """The text in a field: a string, a part that holds one, or a list of those; "" for anything else."""
    if value is None or isinstance(value, str) or not depth:
        return value if isinstance(value, str) else ""
    if isinstance(value, list | tuple):
        return "".join(_words(part, depth - 1) for part in value)
    held = (_field(value, name) for name in ("text", "thinking", "reasoning", "summary", "content"))
    return next(filter(None, (_words(part, depth - 1) for part in held if part is not None)), "")


def _content(message: Any) -> tuple[str, str]:
    """What was said, or refused, and what was thought, in a text or a list of parts."""
    content = _field(message, "content")
    parts = content if isinstance(content, list | tuple) else [content]
    said = _words([part for part in parts if not _is_thought(part)])
    return said or _words(_field(message, "refusal")), _words([part for part in parts if _is_thought(part)])


def _is_thought(part: Any) -> bool:
    return str(_field(part, "type")).startswith(("thinking", "reasoning"))


def _reasoning(message: Any) -> str:
    names = ("reasoning_content", "reasoning", "thinking", "thinking_blocks")  # the same thoughts, where there are several
    return next(filter(None, (_words(_field(message, name)) for name in names)), "")


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_HALF = re.compile(r"[\ud800-\udfff]")


def _cleaned(text: str) -> str:
    """Halves of surrogates joined, or replaced where the other half is missing; line ends as \\n; no control characters."""
    if text.isascii() and text.isprintable():
        return text
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return _CONTROL.sub("", _HALF.sub("\ufffd", whole).replace("\r\n", "\n").replace("\r", "\n"))


# ---- thinking

_THINK = r"(?:think|thinking|thought|reasoning|seed:think)"
_HEADER = r"[^<]{0,99}(?:<\|constrain\|>[^<]{0,99})?<\|message\|>"
_MARK = re.compile(
    rf"(?P<open>(?i:<{_THINK}>)|◁think▷|\[THINK\]|<\|START_THINKING\|>|<\|begin_of_thought\|>|<\|channel>thought"
    rf"|<\|channel\|>analysis{_HEADER}|\AHere(?:'s| is) my thought process:)"
    rf"|(?P<close>(?i:</{_THINK}>)|◁/think▷|\[/THINK\]|<\|END_THINKING\|>|<\|end_of_thought\|>|<channel\|>"
    r"|assistantfinal|Here(?:'s| is) my response:)"
    # neither: Harmony's other channels, but for a header that names a tool, and what is wrapped around an answer
    rf"|(?P<other><\|channel\|>(?![^<]{{0,99}}to=){_HEADER}|<\|start\|>assistant|<\|(?:end|return|call)\|>"
    r"|<\|(?:START|END)_RESPONSE\|>|<\|(?:begin|end)_of_(?:solution|box)\|>)"
)
_BLANK = re.compile(r"\A\s*\n")  # a first line may be indented: it can be a program's


def _parted(text: str) -> tuple[str, str, bool]:
    """What was said, what was thought, and whether the thinking never ended.

    A part is thought that an opening mark precedes or a closing one follows, so marks may be nested, repeated or half missing.
    """
    parts = _split(_MARK, text)
    thought = [part for left, part, right in parts if left == "open" or right == "close"]
    said = [part for left, part, right in parts if left != "open" and right != "close"]
    return _BLANK.sub("", _joined(said)).rstrip(), _joined(thought), parts[-1][0] == "open"


def _split(marks: re.Pattern[str], text: str) -> list[tuple[str, str, str]]:
    """The text between the marks, each part with the kind (the name of the group) of the mark before and after it."""
    found = list(marks.finditer(text))
    kinds = ["", *(mark.lastgroup or "" for mark in found), ""]
    starts, ends = [0, *(mark.end() for mark in found)], [*(mark.start() for mark in found), len(text)]
    parts = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    return list(zip(kinds[:-1], parts, kinds[1:], strict=True))


def _joined(parts: Sequence[str]) -> str:
    return "\n".join(part for part in parts if part.strip())


# ---- calls

_JSON = json.JSONDecoder(strict=False)  # models write line feeds into strings
_NAME = r"([\w.-]{1,99}?)"
_CALL = re.compile(
    r"\[\s*\{\s*\"|\{\s*\""  # JSON; each of the others gives the name before the arguments
    r"|<(?:function|invoke)(?:=|\s{1,9}name=)\"?([^<>\"\s]{1,99})\"?\s{0,9}>"
    rf"|<tool_call>\s*{_NAME}\s*(?=[<{{])"
    rf"|\[TOOL_CALLS\]\s*{_NAME}(?:\[CALL_ID\]\w{{0,99}})?(?:\[ARGS\])?\s*(?=\{{)"
    rf"|<\|tool_call_begin\|>\s*(?:functions\.)?{_NAME}(?::\d{{1,9}})?\s*<\|tool_call_argument_begin\|>"
    rf"|<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?{_NAME}(?:<｜tool▁sep｜>|\s)"
    rf"|to=functions\.{_NAME}(?![\w.-])[^{{]{{0,99}}(?=\{{)"
)
_TAGGED = re.compile(
    r"</?tool_call|\[TOOL_CALLS\]|<\|python_tag\|>|<function[= ]|<invoke |<｜tool▁call|<\|tool_call|to=functions\."
)
_SURE = re.compile(rf"{_TAGGED.pattern}|\"(?:arguments|parameters)\"\s*:|\A(?:\s|```\w*)*[\[{{]")
_MEANT = re.compile(r"\[?\s*\{\s*\"(?:name|function|type|tool_calls|arguments|parameters)\"\s*:")
_BETWEEN = re.compile(r"(?:[\s,;\]]|```\w*|\[/?TOOL_CALLS\]|<[^<>\s]{0,30}(?:call|function|invoke)[^<>\s]{0,30}>)*")
_GAP = re.compile(r"(?:\s|```\w*)*")
_CLOSE = re.compile(r"</(?:function|invoke|tool_call)>")
_PARAMETER = re.compile(
    r"<parameter(?:=|\s{1,9}name=)\"?([^<>\"\s]{1,99})\"?\s{0,9}>(.*?)(?:</parameter>|(?=<parameter)|\Z)"
    r"|<arg_key>([^<>]{1,99})</arg_key>\s*<arg_value>(.*?)(?:</arg_value>|\Z)",
    re.DOTALL,
)


def _native_calls(message: Any, cut: bool) -> list[Call]:
    calls = _field(message, "tool_calls") or []
    if not isinstance(calls, list | tuple):
        raise _Unread("malformed")
    made = [_native_call(_field(call, "function")) for call in calls]
    if cut and any(isinstance(call.arguments, str) for call in made):
        raise _Unread("cut off")
    return made


def _native_call(function: Any) -> Call:
    name = _field(function, "name")
    if not isinstance(name, str) or not name:
        raise _Unread("malformed")
    return Call(name, _arguments(_field(function, "arguments")))


def _arguments(value: Any) -> Any:
    """The mapping that JSON text holds, else what was written instead."""
    if not isinstance(value, str):
        return {} if value is None else value
    try:
        return json.loads(value or "{}")
    except (ValueError, RecursionError):
        return value


def _written(calls: Sequence[Call]) -> str:
    try:
        return _cleaned(written(calls))
    except (TypeError, ValueError, RecursionError):  # no JSON came in, whatever the transport made of it
        raise _Unread("malformed") from None


def _called(said: str, tools: Sequence[Tool], cut: bool) -> str:
    """The calls in the text, or the text where it calls nothing."""
    calls = _calls(said, tools, bool(_SURE.search(said)), "cut off" if cut else "malformed")
    if not calls and (cut or _TAGGED.search(said)):
        raise _Unread("cut off" if cut else "malformed")
    return _written(calls) if calls else said


def _calls(text: str, tools: Sequence[Tool], sure: bool, failure: str) -> list[Call]:
    """The first call and those that follow it with nothing said in between: what follows words may answer an invented result.

    Raises _Unread for a broken call: what is inside of one is not what was meant.
    """
    calls: list[Call] = []
    place = 0
    for start in _CALL.finditer(text):
        if start.start() < place:
            continue
        if calls and not _BETWEEN.fullmatch(text, place, start.start()):
            break
        made, place = _call(text, start, tools, sure)
        if calls and not made:
            break
        if made is None and sure:
            raise _Unread(failure)
        calls += made or []
    return calls


def _call(text: str, start: re.Match[str], tools: Sequence[Tool], sure: bool) -> tuple[list[Call] | None, int]:
    """The calls that begin at `start` and where they end; none for JSON that is no call, None for a call that is broken."""
    if start.lastindex:
        return _named(text, start.end(), start[start.lastindex], tools)
    value, end = _decoded(text, start.start())
    if value is None:
        return (None if _MEANT.match(text, start.start()) else []), end
    known = {tool["function"]["name"] for tool in tools}
    made = _made(value)
    return [call for call in made if sure or call.name in known], end


def _decoded(text: str, place: int) -> tuple[Any, int]:
    """The JSON value at a place and where it ends; None for what is none."""
    try:
        return _JSON.raw_decode(text, place)
    except (ValueError, RecursionError):
        return None, place + 1


def _made(value: Any) -> list[Call]:
    """The calls that a JSON value makes: all of a list are some, or none."""
    if isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
        value = value["tool_calls"]
    made = [_made_one(one) for one in (value if isinstance(value, list) else [value])]
    return [call for call in made if call] if all(made) else []


def _made_one(value: Any) -> Call | None:
    function = value.get("function") if isinstance(value, dict) else None
    held = function if isinstance(function, dict) else value
    name = held.get("name", function) if isinstance(held, dict) else None
    if not isinstance(name, str) or not name:
        return None
    return Call(name, _arguments(next((held[key] for key in ("arguments", "parameters") if key in held), None)))


def _named(text: str, place: int, name: str, tools: Sequence[Tool]) -> tuple[list[Call] | None, int]:
    """A call whose name came first: its arguments are JSON, or one tag each up to the closing tag."""
    gap = _GAP.match(text, place)
    place = gap.end() if gap else place
    if text.startswith("{", place):
        value, end = _decoded(text, place)
        return (None if value is None else [Call(name, value)]), end
    close = _CLOSE.search(text, place)
    if not close:
        return None, place
    found = {first or second: one or other for first, one, second, other in _PARAMETER.findall(text, place, close.start())}
    if not found and text[place : close.start()].strip():
        return None, place
    return [Call(name, {key: _typed(value, key, name, tools) for key, value in found.items()})], close.start()


def _typed(text: str, key: str, name: str, tools: Sequence[Tool]) -> Any:
    """A tagged argument as the tool's schema wants it: such tags do not tell the text "5" from the number."""
    shapes: dict[str, Any] = next((tool["function"]["parameters"] for tool in tools if tool["function"]["name"] == name), {})
    text = text.removeprefix("\n").removesuffix("\n")
    return text if shapes.get("properties", {}).get(key, {}).get("type") == "string" else _arguments(text)


# ---- choices

_QUOTES = str.maketrans("’‘“”", "''\"\"")
_AROUND = " \t\n\"'`*_.,;:!()[]{}<>|#~«»"  # what may stand around an action and means nothing
_ACT = r"(?:action|answer|choice|command|move|grade|score|sum|rating)"
_LABEL = re.compile(
    rf"(?P<action>(?<!\w){_ACT}(?:\s\d{{1,3}})?[\"'*`_]{{0,4}}(?:\s?[:=]|\s(?:is|will\sbe)(?!\w)\s?:?)"
    r"|(?<!\w)I\s(?:choose|pick|select|will|do)\s?:|(?<!\w)(?:assistant|agent)\s?:|<(?:action|answer|response)>|\\boxed\{)"
    r"|(?P<other>(?<!\w)(?:thoughts?|thinking|reason(?:ing|s)?|obs(?:ervations?)?|results?|user|human|system|environment|world|state)"
    r"(?:\s\d{1,3})?[\"'*`_]{0,4}\s?:"
    rf"|^[^\n:]{{0,80}}\b(?:options|actions|choices|commands)\b(?:\s(?!{_ACT}\b)\w{{1,12}}){{0,3}}[*_]{{0,4}}\s?:)"
    r"|(?P<end>\n\s*\n|</\w{1,20}>|<\|\w{1,32}\|>)",
    re.IGNORECASE | re.MULTILINE,
)
_LISTED = re.compile(r"\s*(?:[-*•+]|\d{1,3}[.):])\s")
_SENTENCE = re.compile(r"(?<=[.!?;])\s")
_CLAUSE = re.compile(r"(?<=\?)|[.;!\n]|\b(?:but|so|therefore|because|since)\b|\binstead\b(?!\sof)")
_NOT = re.compile(
    r"\?|\b(?:not|no|nor|neither|never|cannot|\w+n't|cant|dont|wont|without|unable|impossible|avoid\w*|refus\w+|fail\w*|unless"
    r"|wrong|instead of|rather than)\b"
)


def _choice(said: str, choices: Sequence[str], cut: bool) -> str:
    """The choice that the text means, or the first line of what was said."""
    if said in choices and not cut:
        return said
    known, sayings = _Known(choices), _actions_as_json(said) or [said]
    found = next(filter(None, (_meant(saying, known, cut) for saying in sayings)), "")
    if found and not (cut and known.goes_on(said, found)):
        return found
    if cut:
        raise _Unread("cut off")
    if first := _cleaned(sayings[0]).strip():
        return first.split("\n")[0].rstrip()
    raise _Unread("empty")


def _actions_as_json(text: str) -> list[str]:
    """The actions of the objects {"action": …}, whatever is around them."""
    values = (_decoded(text, start.start())[0] for start in re.finditer(r"\{\s*\"", text))
    return [str(value["action"]) for value in values if isinstance(value, dict) and "action" in value]


class _Known:
    """The choices, and how each is recognised."""

    def __init__(self, choices: Sequence[str]) -> None:
        self._choices = choices
        alike = Counter(_fold(choice) for choice in set(choices))
        self._folded = {fold: choice for choice in choices if (fold := _fold(choice)) and alike[fold] == 1}

    def same(self, text: str) -> str:
        """The choice that `text` is, but for its case and what is around it."""
        return text if text in self._choices else self._folded.get(_fold(text), "")

    def mentioned(self, text: str) -> str:
        """The one choice that is spoken of and not denied; the longest of those that begin at one place counts."""
        text = re.sub(r"[^\S\n]+", " ", text.casefold().translate(_QUOTES))
        folds = [fold for fold in self._folded if fold in text and (len(fold) > 1 or fold.isdigit())]
        if not folds:
            return ""
        names = "|".join(re.escape(fold) for fold in sorted(folds, key=len, reverse=True))
        spoken = re.compile(rf"(?<![^\W_])(?:{names})(?![^\W_])")
        found = iter(spoken.findall(text))
        meant = set()
        for clause in _CLAUSE.split(spoken.sub("\0", text)):  # no control character but ours: a choice may hold a full stop
            here = {next(found) for _ in range(clause.count("\0"))}
            meant |= set() if _NOT.search(clause) else here
        return self._folded[meant.pop()] if len(meant) == 1 else ""

    def goes_on(self, text: str, choice: str) -> bool:
        """Whether a text that was cut right after `choice` may have been about to say a longer one."""
        fold = choice.casefold()
        return text.casefold().endswith(fold) and any(
            other != choice and other.casefold().startswith(fold) for other in self._choices
        )


def _fold(text: str) -> str:
    return " ".join(_cleaned(text).casefold().translate(_QUOTES).split()).strip(_AROUND)


def _meant(said: str, known: _Known, cut: bool) -> str:
    """The first line, or labelled action, that is a choice; then the first item of a list; then the one choice spoken of.

    Nothing is looked for in the prose around an action that was labelled, in thoughts and observations, and in what was cut.
    """
    if whole := known.same(said):
        return whole
    parts = [(kind, part) for kind, part, _ in _split(_LABEL, said) if kind != "other" and part.strip()]
    labelled = any(kind == "action" for kind, _ in parts)
    found = next(filter(None, _lines(parts, known)), "")
    return found or ("" if labelled or cut else known.mentioned("\n".join(part for _, part in parts)))


def _lines(parts: Sequence[tuple[str, str]], known: _Known) -> Iterator[str]:
    for kind, part in parts:
        first, *more = part.strip().split("\n")
        if kind == "action":
            yield known.same(first) or known.same(part) or known.mentioned(_SENTENCE.split(first)[0])
        yield from (known.same(line) for line in (more if kind == "action" else [first, *more]) if not _LISTED.match(line))
    listed = (line for _, part in parts for line in part.split("\n") if _LISTED.match(line))
    yield from (known.same(_LISTED.sub("", line, count=1)) for line in listed)
