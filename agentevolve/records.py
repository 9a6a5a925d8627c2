"""The words of the house as frozen records: what happened, what is remembered, what is trained on, what was measured.

Every record is immutable, refuses unknown fields and survives a JSON round trip unchanged, so a journal line is a record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence, Sized
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Split = Literal["train", "val", "test"]
Kind = Literal["demo", "case", "reflection", "insight", "workflow", "skill", "sheet", "item"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SAID = 200  # characters of why an attempt was lost
SOLVED = 1.0 - 1e-9  # the reward from which an attempt counts as a success


class Record(BaseModel):
    """A frozen value with a JSON round trip; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Record):
    """One chat message: what the model is shown, or what it said.

    `thinking` is the reasoning before it, kept for backends that want it sent back; it is no part of what was said.
    """

    role: Literal["system", "user", "assistant"]
    content: str
    thinking: str = Field(default="", exclude_if=lambda text: not text)


class Usage(Record):
    """What something cost. Tokens as the backend counted them; `cached` of the prompt's tokens came from a prompt cache.

    `trained` tokens were seen by a fine-tuning, all epochs counted; `embedded` ones by the memory's embedding model (about four
    characters each). `estimated` of the prompt and completion tokens are an estimate, where a backend did not count.
    """

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    trained_tokens: int = 0
    embedded_tokens: int = 0
    estimated: int = 0
    seconds: float = 0.0
    usd: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        """The field-wise sum."""
        theirs = other.__dict__
        return Usage(**{name: mine + theirs[name] for name, mine in self.__dict__.items()})

    @property
    def tokens(self) -> int:
        """Tokens that some model worked on: prompt (cached or not), completion, trained and embedded ones."""
        return self.prompt_tokens + self.completion_tokens + self.trained_tokens + self.embedded_tokens


COSTS = tuple(Usage.model_fields)


def usage_of(cost: Iterable[float]) -> Usage:
    """The usage whose numbers are these, in the order of COSTS; none are all zero."""
    return Usage.model_validate(dict(zip(COSTS, cost, strict=False)))


class Task(Record):
    """One problem in one environment. `data` configures the environment and is never shown to the agent."""

    id: str
    env: str
    split: Split
    seed: int = 0
    prompt: str = ""
    data: dict[str, JsonValue] = Field(default_factory=dict)


class Looked(Record):
    """An entry that was thought of when memory was looked into: shown, or left out and `why`.

    `similarity` is the cosine of its key to what was asked, where nearness was asked for; `tokens` its size as shown, after `cut`
    turns of its middle were left out.
    """

    id: str
    similarity: float | None = None
    tokens: int = 0
    shown: bool = False
    cut: int = 0
    why: str = ""


class Turn(Record):
    """One action and what came back: the next observation, its reward and the actions it admits (empty: free text).

    `thinking` is the model's reasoning before the action, where it gave one; nothing learns from it. `context` is what was
    recalled after it, shown in front of the observation; `looked` are the entries that were thought of then.
    """

    action: str
    thinking: str = Field(default="", exclude_if=lambda text: not text)
    observation: str
    actions: tuple[str, ...] = ()
    looked: tuple[Looked, ...] = Field(default=(), exclude_if=lambda found: not found)
    context: str = Field(default="", exclude_if=lambda text: not text)
    reward: float = 0.0
    usage: Usage = Usage()
    info: dict[str, JsonValue] = Field(default_factory=dict)


class PolicyStamp(Record):
    """Which policy acted, and how it was asked: enough to find it again and to render what it saw."""

    model: str
    adapter: str | None = None
    memory: str | None = None
    round: int = 0
    temperature: float = 0.0
    epsilon: float = 0.0
    show_actions: bool = True
    instructions: str = ""


class Trajectory(Record):
    """One finished attempt at one task, with everything the agent saw.

    What was recalled over the attempt (the entries' ids in `recalled`; at its start, with what was left out, in `looked`) stays
    outside `prompt`, so that distillation can strip or keep it: `demos` are earlier attempts as the messages they were shown
    as, `context` is text right before the prompt. So does `hint`, help with this one attempt, which training always strips.
    `tools` are the schemas of what could be called, in a world of tool calls. `lookup` is what looking into memory cost,
    `failed` what calls cost whose answers could not be used. `asked` says how the model was held to its choices, and what the
    backend had refused: one text, or several when that changed on the way. `reward` is the environment's final score in [0, 1].
    An attempt that is lost, for a reason outside the agent (a dead environment, a refusing backend), has end="error" and says
    why in `error`: it is no outcome, and never trained on. One that was `forgotten` has kept what it cost and came to.
    """

    id: str
    task: Task
    policy: PolicyStamp
    phase: str
    sample: int = 0
    seed: int = 0
    system: str = ""
    prompt: str = ""
    actions: tuple[str, ...] = ()
    tools: tuple[dict[str, JsonValue], ...] = ()
    recalled: tuple[str, ...] = ()
    demos: tuple[Message, ...] = Field(default=(), exclude_if=lambda messages: not messages)
    context: str = ""
    looked: tuple[Looked, ...] = Field(default=(), exclude_if=lambda found: not found)
    hint: str = ""
    lookup: Usage = Usage()
    failed: Usage = Usage()
    asked: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()
    reward: float = Field(default=0.0, ge=0.0, le=1.0)
    end: Literal["terminated", "truncated", "error"]
    error: str = ""
    seconds: float = 0.0
    forgotten: bool = Field(default=False, exclude_if=lambda gone: not gone)

    @property
    def lost(self) -> bool:
        """Whether the attempt failed for a reason outside the agent: it has no outcome."""
        return self.end == "error"

    @property
    def solved(self) -> bool:
        """Whether the attempt reached the full reward."""
        return not self.lost and self.reward >= SOLVED

    def bare(self) -> Trajectory:
        """The attempt without what it was shown of memory."""
        turns = tuple(turn.model_copy(update={"context": ""}) if turn.context else turn for turn in self.turns)
        return self.model_copy(update={"context": "", "demos": (), "turns": turns})

    @property
    def cut(self) -> bool:
        """Whether something of what was recalled was shortened to fit."""
        return any(one.cut for one in (*self.looked, *(one for turn in self.turns for one in turn.looked)))

    @property
    def usage(self) -> Usage:
        """What the attempt cost: its model calls, the failed ones too, and its look into memory."""
        return usage_of(self.cost)

    @property
    def cost(self) -> Sequence[float]:
        """Its usage as the numbers alone, in the order of COSTS."""
        parts = [part.__dict__ for part in (self.lookup, self.failed, *(turn.usage for turn in self.turns))]
        return [sum([part[name] for part in parts]) for name in COSTS]


class Posed(Protocol):
    """A task as far as figures need it."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def env(self) -> str:
        """Its environment."""

    @property
    def split(self) -> Split:
        """Its split."""


class Outcome(Protocol):
    """What an attempt came to and cost, without its texts: as much of a Trajectory as figures are made from."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def task(self) -> Posed:
        """Its task."""

    @property
    def policy(self) -> PolicyStamp:
        """Which policy acted."""

    @property
    def phase(self) -> str:
        """In which rollout of the run."""

    @property
    def sample(self) -> int:
        """Which sample of its task, from 0."""

    @property
    def seed(self) -> int:
        """Its luck."""

    @property
    def asked(self) -> tuple[str, ...]:
        """How the model was held to its choices."""

    @property
    def turns(self) -> Sized:
        """As many as there were."""

    @property
    def reward(self) -> float:
        """The final score in [0, 1]."""

    @property
    def error(self) -> str:
        """Why it was lost."""

    @property
    def seconds(self) -> float:
        """How long it took."""

    @property
    def forgotten(self) -> bool:
        """Whether its content was forgotten."""

    @property
    def lost(self) -> bool:
        """Whether it has no outcome."""

    @property
    def solved(self) -> bool:
        """Whether it reached the full reward."""

    @property
    def cut(self) -> bool:
        """Whether something of what was recalled was shortened."""

    @property
    def cost(self) -> Sequence[float]:
        """Its usage, in the order of COSTS."""


def cost_of(attempts: Iterable[Outcome]) -> Usage:
    """What the attempts cost together."""
    return usage_of(map(sum, zip(*(one.cost for one in attempts), strict=True)))


class Lived(Record):
    """An attempt as it was lived: what was asked, with the actions it admitted, and the turns. Enough to show it as messages."""

    prompt: str
    actions: tuple[str, ...] = ()
    turns: tuple[Turn, ...]


class Entry(Record):
    """One thing in memory. It is found by `key` and shown as `text`; `sources` are ids of the trajectories it came from.

    A demo and a case also have the attempt that they tell of, as it was `lived`.
    A demo is a solved attempt, a case any attempt with its outcome, a reflection a lesson from a failed one, an insight a rule
    over several, a workflow a reusable procedure, a skill a verified program of actions, a sheet one text that is rewritten,
    an item a value that another agent keeps (doors/store.py).
    `task` is the id of the task that it is about (empty: about many); `counts` are votes or uses by name.
    """

    id: str
    kind: Kind
    key: str
    text: str
    env: str
    task: str = ""
    round: int = 0
    reward: float = 0.0
    counts: dict[str, int] = Field(default_factory=dict)
    sources: tuple[str, ...] = ()
    lived: Lived | None = Field(default=None, exclude_if=lambda lived: lived is None)

    def about(self, task: str) -> bool:
        """Whether it is about the task of that id, or came from attempts at it."""
        return self.task == task or any(source.rpartition("/")[0].endswith(f"/{task}") for source in self.sources)


class Ranking(Record):
    """Which of the entries near to a text are taken. One by one, those that have the greatest

        (1 - difference) · (near + credit · gain + recency · 0.5^age) - difference · (cosine to the likest one taken)

    where `near` is the cosine to the text, or with `words` the place in the ranking by cosine and by words (BM25) fused; `gain`
    what the entry was worth so far (memory/credit.py), `age` its rounds behind the youngest of them. The term of difference is
    maximal marginal relevance (Carbonell & Goldstein 1998). Weights are in [0, 1].
    """

    difference: float = Field(default=0.0, ge=0.0, le=1.0)
    words: bool = False
    credit: float = Field(default=0.0, ge=0.0, le=1.0)
    recency: float = Field(default=0.0, ge=0.0, le=1.0)


NEAREST = Ranking()  # by the cosine alone


class Example(Record):
    """One training row: a conversation of which only the last assistant messages from `prompt` on are learnt.

    `prompt` ends before the first learnt action; `completion` alternates assistant (labelled) and user (unlabelled) messages,
    and so does `rejected`, what it is preferred to (DPO). `desirable` says which way to learn from it without a pair (KTO).
    """

    id: str
    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    rejected: tuple[Message, ...] | None = None
    desirable: bool = True
    weight: float = 1.0
    sources: tuple[str, ...] = ()


class Difference(Record):
    """A paired difference of mean success between two policies on the same tasks and seeds, with a 95% interval over tasks.

    `n` tasks and `pairs` of attempts count; `lost` pairs, in which either attempt was lost, are left out.
    """

    mean: float
    low: float
    high: float
    n: int
    pairs: int = 0
    lost: int = 0


class Report(Record):
    """One policy measured on one split. `success` is the share solved of `n` attempts, in [0, 1], with a 95% interval over tasks.

    `errors` further attempts were lost: they count in `usage`, which was paid, and in nothing else. `asked` are the ways in which
    the model was held to its choices. In `cut` of the attempts what was recalled was shortened to fit.
    """

    arm: str
    policy: PolicyStamp
    split: Split
    n: int
    success: float
    low: float
    high: float
    reward: float
    turns: float
    errors: int = 0
    cut: int = 0
    asked: tuple[str, ...] = ()
    usage: Usage = Usage()
    versus: str = ""
    difference: Difference | None = None


def lost_reason(attempts: Iterable[Outcome]) -> str:
    """Why most of the lost among `attempts` were lost, on one line, and how many of them; empty if none was."""
    reasons = Counter(one.error for one in attempts if one.lost)
    if not reasons:
        return ""
    [(error, count)] = reasons.most_common(1)
    said = "".join(sign if sign.isprintable() else " " for sign in error) or "no reason was given"
    return f"{' '.join(said.split())[:SAID]} ({count} of {reasons.total()})"
