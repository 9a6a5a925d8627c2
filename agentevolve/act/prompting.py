"""Words for the model: the shipped Jinja prompts, and the one place that turns an attempt into chat messages.

The agent speaks through these functions while it acts and the dataset builders through the same ones afterwards, so that a
model is trained on exactly what it saw. Chat markers such as `<|im_end|>` in text from outside are broken up here: they would
end a turn early, in a server and in a tokenizer alike. What a world says is in the user's role, beside what the house says of
memory: where it reads like the house's own introductions ("Now your game:"), it is put in quotes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentevolve.local.rows import clean
from agentevolve.memory.form import quoted
from agentevolve.records import Lived, Message, Trajectory, Turn

if TYPE_CHECKING:
    from jinja2 import Template


def render(name: str, **values: object) -> str:
    """The shipped prompt `name` with its variables filled in; an undefined variable raises. Values are inserted as they are."""
    return _template(name).render(values).strip()


@functools.cache
def _template(name: str) -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    house = Environment(loader=PackageLoader("agentevolve", "prompts"), undefined=StrictUndefined, autoescape=False)
    return house.get_template(f"{name}.jinja")


def shown(observation: str, actions: Sequence[str], show_actions: bool) -> str:
    """An observation as the agent reads it, with its admissible actions in the order given."""
    return f"{observation}\nActions: {', '.join(actions)}" if show_actions and actions else observation


def rules(tools: Sequence[Mapping[str, Any]], *, choosing: bool, listed: bool, instructions: str) -> str:
    """The system message: the house rules, with the tools `listed` for who is not given them natively, and the instructions."""
    shown = [json.dumps(tool["function"], ensure_ascii=False) for tool in tools] if listed else []
    text = render("system", calling=bool(tools), tools=shown, choosing=choosing)
    return "\n".join(part for part in (text, instructions) if part)


def opening(system: str, context: str, prompt: str, demos: Sequence[Message] = ()) -> list[Message]:
    """The messages before the first action: the house rules, recalled attempts, recalled text and the task as one message.

    A conversation that somebody else's harness began may have no rules.
    """
    user = f"{context}\n{quoted(prompt)}" if context else quoted(prompt)
    rules = [Message(role="system", content=clean(system))] if system else []
    return [*rules, *demos, Message(role="user", content=clean(user))]


def cleaned_tools(tools: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The tools with their words cleaned, as a backend that is given them natively writes them into the conversation itself."""
    return tuple(json.loads(clean(json.dumps(list(tools), ensure_ascii=False))))


def exchange(turn: Turn, show_actions: bool) -> list[Message]:
    """One turn as two messages: the agent's action, and what came back, with what was recalled then in front of it."""
    seen = quoted(shown(turn.observation, turn.actions, show_actions))
    seen = f"{turn.context}\n{seen}" if turn.context else seen
    return [Message(role="assistant", content=clean(turn.action)), Message(role="user", content=clean(seen))]


def lived_messages(lived: Lived, show_actions: bool) -> list[Message]:
    """An earlier attempt as it would have been lived under these rules: what was asked, then each action and what came back."""
    asked = Message(role="user", content=clean(quoted(shown(lived.prompt, lived.actions, show_actions))))
    return [asked, *(message for turn in lived.turns for message in exchange(turn, show_actions))]


def conversation(trajectory: Trajectory, *, keep_context: bool) -> tuple[list[Message], list[Message]]:
    """The attempt as (what came before the first action, everything from the first action to the last one).

    With `keep_context` what was recalled stays; without, the model learns to do without it (context distillation). The tools of
    an agent that was given them natively are listed, as its student will be shown them. The observation after the last action
    was never acted on and is left out.
    """
    if not keep_context:
        trajectory = trajectory.bare()
    asked = shown(trajectory.prompt, trajectory.actions, trajectory.policy.show_actions)
    said = [message for turn in trajectory.turns for message in exchange(turn, trajectory.policy.show_actions)]
    return opening(_listing(trajectory), trajectory.context, asked, trajectory.demos), said[:-1]


def lived_through(trajectory: Trajectory) -> tuple[list[Message], list[tuple[Message, Message]]]:
    """The attempt as its agent saw it, hint and recalled text with it: (the opening, each action and what came back)."""
    asked = shown(trajectory.prompt, trajectory.actions, trajectory.policy.show_actions)
    context = "\n".join(part for part in (trajectory.context, trajectory.hint) if part)
    turns = []
    for turn in trajectory.turns:
        said, seen = exchange(turn, trajectory.policy.show_actions)
        turns.append((said.model_copy(update={"thinking": turn.thinking}), seen))
    return opening(trajectory.system, context, asked, trajectory.demos), turns


def _listing(trajectory: Trajectory) -> str:
    """The attempt's system message, with the tools in it."""
    house = functools.partial(
        rules, trajectory.tools, choosing=bool(trajectory.actions), instructions=trajectory.policy.instructions
    )
    return house(listed=True) if trajectory.system == house(listed=False) else trajectory.system


def transcript(lived: Trajectory | Lived) -> str:
    """The attempt as plain text."""
    return render("demo", prompt=lived.prompt, turns=lived.turns)
