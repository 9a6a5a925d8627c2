"""Asking a policy's model for text outside of an attempt: journalled with its cost, so that nobody pays for it twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from agentevolve.act.attempt import parts
from agentevolve.local.rows import clean
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError, ModelError
from agentevolve.records import Message, Usage
from agentevolve.run.folder import ASKED, Run
from agentevolve.run.underway import doing


def ask(
    policy: Policy,
    run: Run,
    key: str,
    prompt: str,
    *,
    choices: Sequence[str] = (),
    temperature: float | None = None,
    max_tokens: int = 300,
) -> str:
    """The answer of the policy's model to `prompt`, at the policy's temperature if no other is given, held to `choices`.

    `key` names the question within the run: one that its journal answers already is not asked again. A backend that fails
    gives "", and its failure is journalled with what it cost. A model that is told to reason has room for that besides.
    Raises AgentevolveError for the oracle, which writes no text.
    """

    heat = policy.temperature if temperature is None else temperature
    seed = run.derive("ask", key)
    alike = json.dumps([policy.model, policy.api_base, prompt, list(choices), heat, max_tokens, seed])
    mark = "" if policy.adapter else hashlib.sha256(alike.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def asked() -> dict[str, object]:
        if mark in run.answered:
            known = run.answered[mark]
            cost = Usage.model_validate(known["usage"])
            with run.budget.reserve(cost.tokens, cost.usd) as book:
                book(cost)
            return known
        model, _ = parts(policy, run)
        if model is None:
            raise AgentevolveError(f"the model {policy.model!r} writes no text")
        said = [Message(role="user", content=clean(prompt))]
        room = max_tokens + (policy.options.max_tokens if policy.options.reasoning_effort else 0)
        try:
            with doing(run.making(ASKED + key)):
                reply = model.complete(said, choices=choices, temperature=heat, max_tokens=room, seed=seed)
        except ModelError as error:
            paid = {} if error.usage == Usage() else {"usage": error.usage.model_dump()}
            return {"text": "", "error": str(error), **paid}
        except AgentevolveError as error:
            if error.usage != Usage():
                run.lose(ASKED + key, error.usage)
            raise
        return {"text": reply.text.strip(), "usage": reply.usage.model_dump(), **({"same": mark} if mark else {})}

    return str(run.once(ASKED + key, asked)["text"])
