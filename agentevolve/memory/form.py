"""The form of words: what in a text from outside, or of a reflector's, could pose as something else than it is.

Words of a reflector (a reflection, an insight, a workflow, a sheet) are shown to later attempts as lessons, and a world may have
made it say them. Their form is looked at before they are remembered (`faults`, in update/context.py) and again by `memory audit`.
Form alone: that a plausible lesson is wrong, no pattern can tell, and what an order reads like depends on the world. So what has
no place in a lesson at all is refused, and what is only odd is for the audit to list.

The language is looked at by its letters: each is of a script in which a tenth of the letters of its attempts are, or of that in
which our questions are asked. Letters of another script that look alike are found so, another language of the same is not.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from agentevolve.local.rows import MARKERS
from agentevolve.models.tools import read

OURS = ("reflection", "insight", "workflow", "sheet")  # kinds whose words are a model's own, about what it lived through
LONGEST = 4_000  # characters of what a reflector writes; a sheet is as long as what is recalled
SHARE = 0.1  # of the letters, from which a text is written in a script
ASKED_IN = "LATIN"  # the script of the questions in prompts/
ONE_SCRIPT = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "IDEOGRAPHIC": "CJK", "HANGUL": "CJK"}  # written together
# how the house introduces what it recalls and what comes after it (prompts/recall, next): nobody else's words may begin so
HOUSE = re.compile(
    r"""(?:^[^\S\n]*|(?<=[.!?][ ]))(?:
        now[ ]+your[ ]+(?:game|task) | your[ ]+(?:game|task)[ ]+goes[ ]+on | a[ ]+new[ ]+(?:game|task)
      | an[ ]+earlier[ ]+game\b[^:\n]{0,99} | a[ ]+lesson[ ]+from[ ]+an[ ]+earlier[ ]+game\b[^:\n]{0,99}
      | a[ ]+rule[ ]+learnt[ ]+from[ ]+earlier[ ]+games | a[ ]+way[ ]+of[ ]+working[ ]+that[ ]+has[ ]+helped[ ]+before
      | actions[ ]+that[ ]+have[ ]+worked[ ]+before | notes[ ]+from[ ]+earlier[ ]+games
    )[ ]*:""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
TURN = re.compile(
    r"""<\s{0,9}/?\s{0,9}(?:system|assistant|user|human|instructions?)\s{0,9}>
      |^\W{0,9}(?:system|assistant|user|human|developer)(?:[ ]+(?:message|prompt))?\W{0,3}:
      |^\#{1,6}\s*(?:system|instruction|input|response|user|assistant|human)\s*:?\s*$""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
CALL = re.compile(
    r"""\{\s*"(?:name|function|tool|tool_name)"\s*:\s*(?:"[^"\n]{0,99}"|\{)[^{}\n]{0,99}"(?:arguments|parameters|args|input)"\s*:
      |</?\s*(?:tool_(?:call|use|response|result)s?|function_(?:call|result)s?|function=|invoke\b|antml:)
      |```\s*tool_(?:code|call)|^\s*Action\ Input\s*:|\bto=functions\.""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
UNUSUAL = re.compile(r"[^\x20-\x7e\n\t\r]")
FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")  # letters and signs that show nothing
JOINERS = "\u200c\u200d"


def quoted(text: str) -> str:
    """The text with what reads like the house's own introductions in quotes: no world says where its part ends."""
    return HOUSE.sub(lambda found: f'"{found[0]}"', text)


def poses(text: str) -> Iterator[tuple[str, int]]:
    """What in the text could pose as something else than words: (what, the place)."""
    for what, pattern in (
        ("a chat marker", MARKERS),
        ("poses as a turn", TURN),
        ("poses as the house's own words", HOUSE),
    ):
        if found := pattern.search(text):
            yield what, found.start()
    odd = next((found.start() for found in UNUSUAL.finditer(text) if _unseen(text, found.start())), None)
    if odd is not None:
        yield f"an invisible character (U+{ord(text[odd]):04X})", odd


def faults(kind: str, text: str, scripts: Collection[str] = ()) -> Iterator[tuple[str, int]]:
    """What is wrong with words of this kind, one of OURS; `scripts` are those of its attempts (none known: any is right)."""
    yield from poses(text)
    if len(text) > LONGEST and kind != "sheet":
        yield f"longer than {LONGEST:,} characters", LONGEST
    if found := CALL.search(text):
        yield "holds a tool call", found.start()
    elif any(read(line) for line in text.splitlines() if line.lstrip()[:1] in ("{", "[")):
        yield "holds a tool call", 0
    known = {ASKED_IN, *scripts}
    if scripts and (other := next((place for place, sign in enumerate(text) if not script(sign) <= known), None)) is not None:
        yield "letters of another script than its attempts", other


def scripts_of(texts: Iterable[str]) -> frozenset[str]:
    """The scripts of the texts: each has at least a `SHARE` of their letters, so that a few words do not bring in another one."""
    found: Counter[str] = Counter()
    for sign, n in Counter("".join(texts)).items():
        found.update(dict.fromkeys(script(sign), n))
    return frozenset(name for name, n in found.items() if n >= SHARE * found.total())


@functools.lru_cache(maxsize=4_096)
def script(sign: str) -> frozenset[str]:
    """The script of a letter, as Unicode's name of it begins; of anything else, none."""
    if not sign.isalpha():
        return frozenset()
    name = re.split(r"[ -]", unicodedata.name(sign, "UNKNOWN"))[0]
    return frozenset([ONE_SCRIPT.get(name, name)])


def _unseen(text: str, place: int) -> bool:
    """Whether the character shows nothing: a control, a format, a tag, half a pair, a filler; a joiner only where none joins."""
    sign = text[place]
    if sign in JOINERS:
        return not all(one > "\u02ff" for one in (*text[place - 1 : place], *text[place + 1 : place + 2]))
    if "\ufe00" <= sign <= "\ufe0d" or "\U000e0100" <= sign <= "\U000e01ef" or sign in FILLERS:
        return True
    return unicodedata.category(sign) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")
