"""Asking a policy's model for text outside of an attempt: journalled with its cost, so that nobody pays for it twice."""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.local.rows import clean
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Message
from agentevolve.rollout import parts
from agentevolve.run import ASKED, Run


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
    gives "", and its failure is journalled. Raises AgentevolveError for the oracle, which writes no text.
    """

    def asked() -> dict[str, object]:
        model, _ = parts(policy, run)
        if model is None:
            raise AgentevolveError(f"the model {policy.model!r} writes no text")
        said = [Message(role="user", content=clean(prompt))]
        heat = policy.temperature if temperature is None else temperature
        seed = run.derive("ask", key)
        try:
            reply = model.complete(said, choices=choices, temperature=heat, max_tokens=max_tokens, seed=seed)
        except RuntimeError as error:
            return {"text": "", "error": str(error)}
        return {"text": reply.text.strip(), "usage": reply.usage.model_dump()}

    return str(run.once(ASKED + key, asked)["text"])
