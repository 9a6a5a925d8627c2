"""Words for the model: the shipped Jinja prompts, and the one place that turns an attempt into chat messages.

The agent speaks through these functions while it acts and the dataset builders through the same ones afterwards, so that a
model is trained on exactly what it saw. Chat markers such as `<|im_end|>` in text from outside are broken up here: they would
end a turn early, in a server and in a tokenizer alike.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentevolve.local.rows import clean
from agentevolve.records import Message, Trajectory, Turn

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


def opening(system: str, context: str, prompt: str) -> list[Message]:
    """The messages before the first action: the house rules, then the recalled context and the task as one user message."""
    user = f"{context}\n{prompt}" if context else prompt
    return [Message(role="system", content=system), Message(role="user", content=clean(user))]


def exchange(turn: Turn, show_actions: bool) -> list[Message]:
    """One turn as two messages: the agent's action and what came back."""
    seen = shown(turn.observation, turn.actions, show_actions)
    return [Message(role="assistant", content=clean(turn.action)), Message(role="user", content=clean(seen))]


def conversation(trajectory: Trajectory, *, keep_context: bool) -> tuple[list[Message], list[Message]]:
    """The attempt as (what came before the first action, everything from the first action to the last one).

    With `keep_context` the recalled entries stay in the prompt; without, the model learns to do without them
    (context distillation). The observation after the last action was never acted on and is left out.
    """
    context = trajectory.context if keep_context else ""
    asked = shown(trajectory.prompt, trajectory.actions, trajectory.policy.show_actions)
    said = [message for turn in trajectory.turns for message in exchange(turn, trajectory.policy.show_actions)]
    return opening(trajectory.system, context, asked), said[:-1]


def transcript(trajectory: Trajectory) -> str:
    """The attempt as plain text, as a demo shows it."""
    return render("demo", prompt=trajectory.prompt, turns=trajectory.turns)
