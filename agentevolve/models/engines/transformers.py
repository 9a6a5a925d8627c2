"""Serving a transformers folder inside this process by torch: the simplest loop, for weights that no other engine takes.

Requests take turns, and every prompt is read from its start: minutes where llama.cpp takes seconds. An answer is held to its
choices token by token; to a JSON schema it is not held.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from agentevolve.local.quiet import quiet
from agentevolve.local.train import load_base
from agentevolve.protocols import AgentevolveError

PROVIDER = "transformers-here"  # as LiteLLM calls it
_LOADED: dict[str, Engine] = {}
_NUMBERS = itertools.count()


class Engine:
    """A loaded base, perhaps with an adapter. It answers through LiteLLM, as one of its custom providers."""

    slots = 1

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._adapted = hasattr(model, "disable_adapter")
        self._lock = threading.Lock()
        self._name = str(next(_NUMBERS))
        _LOADED[self._name] = self
        _register()

    @property
    def route(self) -> dict[str, Any]:
        """By its name among the loaded ones."""
        return {"model": f"{PROVIDER}/{self._name}"}

    def held(self, choices: Sequence[str], form: dict[str, Any] | None, slot: int) -> tuple[str, dict[str, Any]]:
        """To one of `choices`, token by token; else to nothing."""
        return ("choices", {"extra_body": {"choices": list(choices)}}) if choices else ("free text", {})

    def call(self) -> AbstractContextManager[None]:
        """Nothing stands in the way of a request."""
        return nullcontext()

    def count(self, text: str) -> int:
        """The tokens of `text`, as the model reads it within a conversation."""
        return len(self._ids(text))

    def chances(self, prompt: Sequence[int], tokens: Sequence[int], scale: float) -> Mapping[int, float]:
        """Of exactly `tokens`."""
        import contextlib

        import torch

        with self._lock, torch.no_grad():
            plain = self._model.disable_adapter() if self._adapted and not scale else contextlib.nullcontext()
            with plain:
                logits = self._model(torch.tensor([list(prompt)], device=self._model.device), use_cache=False).logits
            told = logits[0, -1].float().log_softmax(-1)
        return {token: float(told[token]) for token in tokens}

    def answer(self, messages: Sequence[Mapping[str, Any]], asked: Mapping[str, Any]) -> tuple[str, int, int]:
        """The answer's text, the tokens of the prompt and those of the answer. `asked` is what LiteLLM passes on of a request."""
        text = self._tokenizer.apply_chat_template([dict(one) for one in messages], tokenize=False, add_generation_prompt=True)
        prompt = self._ids(text)
        with self._lock:
            said = self._generated(prompt, asked)
        ends = self._ends()
        kept = list(itertools.takewhile(lambda token: token not in ends, said))
        return self._tokenizer.decode(kept), len(prompt), len(said)

    def close(self) -> None:
        """Give back the weights."""
        with self._lock:
            _LOADED.pop(self._name, None)
            self._model = None

    def _generated(self, prompt: list[int], asked: Mapping[str, Any]) -> list[int]:
        import torch

        if self._model is None:
            raise AgentevolveError("the engine was closed")
        temperature = float(asked.get("temperature") or 0.0)
        sampling = (
            {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {"do_sample": False}
        )
        choices = (asked.get("extra_body") or {}).get("choices")
        given = torch.tensor([prompt], device=self._model.device)
        torch.manual_seed(int(asked.get("seed") or 0))
        with torch.no_grad():
            made = self._model.generate(
                given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=int(asked.get("max_tokens") or 1024),
                eos_token_id=sorted(self._ends()),
                pad_token_id=self._tokenizer.eos_token_id,
                prefix_allowed_tokens_fn=self._allowed(choices, len(prompt)) if choices else None,
                **sampling,
            )
        return [int(token) for token in made[0, len(prompt) :]]

    def _allowed(self, choices: Sequence[str], start: int) -> Callable[[int, Any], list[int]]:
        """Which tokens may come next, so that what is said is one of `choices` and then the end."""
        end = self._tokenizer.eos_token_id
        ways = [(*self._ids(choice), end) for choice in choices]

        def allowed(_: int, ids: Any) -> list[int]:
            said = tuple(int(token) for token in ids[start:])
            return sorted({way[len(said)] for way in ways if len(way) > len(said) and way[: len(said)] == said}) or [end]

        return allowed

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _ends(self) -> set[int]:
        """The tokens that end an answer."""
        config = getattr(self._model, "generation_config", None)
        named = getattr(config, "eos_token_id", None)
        more = named if isinstance(named, list) else [named]
        return {token for token in (self._tokenizer.eos_token_id, *more) if token is not None}


def serve(folder: Path, *, adapter: Path | None = None, threads: int | None = None) -> Engine:
    """Load the transformers folder, with the adapter in the folder `adapter` on it, on `threads` threads.

    Raises AgentevolveError for a folder that cannot be read, or a tokenizer without a chat template.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    with quiet():
        try:
            model, tokenizer = load_base(folder)
        except (OSError, ValueError, KeyError, RuntimeError) as error:  # files from outside
            raise AgentevolveError(f"{folder}: cannot be loaded: {' '.join(str(error).split())[:200]}") from None
        if not tokenizer.chat_template:
            raise AgentevolveError(f"{folder}: the model has no chat template, so it cannot answer in a conversation")
        if adapter:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Engine(model.to(device).eval(), tokenizer)


def _register() -> None:
    """Let LiteLLM know of these engines."""
    from agentevolve.models.backend import litellm

    package = litellm()
    if any(one["provider"] == PROVIDER for one in package.custom_provider_map):
        return

    class Here(package.CustomLLM):  # type: ignore[misc,name-defined]
        """Answers with a loaded engine."""

        def completion(self, model: str, messages: Any, *, model_response: Any, optional_params: Any, **rest: Any) -> Any:
            """As LiteLLM asks for it."""
            if model not in _LOADED:
                raise AgentevolveError("the engine was closed")
            text, read, said = _LOADED[model].answer(messages, optional_params)
            most = int(optional_params.get("max_tokens") or 1024)
            model_response.choices[0].message.content = text
            model_response.choices[0].finish_reason = "length" if said >= most else "stop"
            model_response.usage = package.Usage(prompt_tokens=read, completion_tokens=said, total_tokens=read + said)
            return model_response

    package.custom_provider_map = [*package.custom_provider_map, {"provider": PROVIDER, "custom_handler": Here()}]
