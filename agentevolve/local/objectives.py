"""What training minimises beyond the plain loss: preferences with (DPO) and without pairs (KTO), advantages (GRPO), and
staying near the base (KL).

All run the head at learnt positions only. The reference of a preference, and the policy that acted of an advantage, is the
model as training finds it: the base, or the adapter that training goes on from; its log-probabilities are taken once, before
the first step.
"""

from __future__ import annotations

from typing import Any

from agentevolve.local.rows import IGNORED


def labelled_logits(model: Any, inputs: Any) -> tuple[Any, Any]:
    """The logits (1, places, vocabulary) where the next token is learnt, and that token (1, places)."""
    at = learnt(inputs["labels"]) - 1
    given = {key: inputs[key] for key in ("input_ids", "position_ids") if key in inputs}
    return model(**given, logits_to_keep=at, use_cache=False).logits.float(), inputs["labels"][:, at + 1]


def learnt(labels: Any) -> Any:
    """The places (places,) of the tokens that are learnt, of labels (1, length); the first token never is."""
    return (labels[0, 1:] != IGNORED).nonzero()[:, 0] + 1


def token_losses(logits: Any, wanted: Any) -> Any:
    """The cross-entropy (1, places) of the wanted tokens."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted)


def log_probability(model: Any, ids: Any, labels: Any) -> Any:
    """The log-probability (1,) of the learnt tokens, summed."""
    logits, wanted = labelled_logits(model, {"input_ids": ids, "labels": labels})
    return -token_losses(logits, wanted).sum(1)


def divergence(model: Any, inputs: Any, logits: Any) -> Any:
    """KL(policy || base) (1, places), exactly, over the vocabulary: the base is the model without its adapter."""
    import torch

    alone = getattr(model, "module", model)  # several processes train a wrapped one
    with torch.no_grad(), alone.disable_adapter():
        base = labelled_logits(alone, inputs)[0].log_softmax(-1)
    ours = logits.log_softmax(-1)
    return (ours.exp() * (ours - base)).sum(-1)


def dpo(chosen: Any, rejected: Any, beta: float) -> Any:
    """-log sigmoid(beta (chosen - rejected)), where both are log-ratios of policy to reference (2305.18290, equation 7)."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(beta * (chosen - rejected))


def kto(ratio: Any, baseline: Any, sign: Any, beta: float) -> Any:
    """1 - sigmoid(sign beta (ratio - baseline)): the value of a gain, or of a loss avoided (2402.01306, equation 8)."""
    return 1 - (sign * beta * (ratio - baseline)).sigmoid()


def clipped(ratio: Any, advantage: Any, clip: float) -> Any:
    """-min(ratio A, clip(ratio, 1 - clip, 1 + clip) A), to be minimised (2402.03300, equation 3; PPO, 1707.06347, equation 7)."""
    return -(ratio * advantage).minimum(ratio.clamp(1 - clip, 1 + clip) * advantage)


def advantage_class(plain: Any) -> Any:
    """The trainer class `plain` with the loss of grpo, one row at a time: a row's weight is its advantage."""
    import torch

    class Advantage(plain):  # type: ignore[misc]
        """Minimises the clipped objective over a row's learnt tokens, each as much; `refer` must have been called before."""

        def refer(self) -> None:
            """Take the log-probability of every learnt token under the policy that acted: the weights as they are now."""
            self.model.eval()
            with torch.no_grad():
                self.reference = [self._each(self.model, self.data_collator([row]))[0] for row in self.train_dataset]

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            """The row's share of the optimiser step's mean."""
            now, logits = self._each(model, inputs)
            losses = clipped((now - self.reference[int(inputs["place"])]).exp(), inputs["weight"][:, :1], self.settings.clip)
            if self.settings.kl:
                losses = losses + self.settings.kl * divergence(model, inputs, logits)
            return losses.mean() / self.args.gradient_accumulation_steps

        def _each(self, model: Any, inputs: Any) -> tuple[Any, Any]:
            given = {key: inputs[key].to(model.device) for key in ("input_ids", "labels")}
            logits, wanted = labelled_logits(model, given)
            return -token_losses(logits, wanted), logits

    return Advantage


def preference_class(plain: Any) -> Any:
    """The trainer class `plain` with the loss of dpo or kto, one row at a time."""
    import torch

    class Preference(plain):  # type: ignore[misc]
        """Minimises `settings.objective`; `refer` must have been called before training."""

        def refer(self) -> None:
            """Take the reference's log-probabilities of every row, with the weights as they are now."""
            self.model.eval()
            with torch.no_grad():
                self.reference = [self._both(self.model, self.data_collator([row])) for row in self.train_dataset]

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            """The row's share of the optimiser step's mean."""
            before, other_before = self.reference[int(inputs["place"])]
            own, other = self._both(model, inputs)
            if self.settings.objective == "dpo":
                loss = dpo(own - before, other - other_before, self.settings.beta)
            else:
                baseline = (other - other_before).detach().clamp(min=0)
                loss = kto(own - before, baseline, inputs["sign"], self.settings.beta)
            return (loss * inputs["weight"][:, 0]).sum() / self.args.gradient_accumulation_steps

        def _both(self, model: Any, inputs: Any) -> tuple[Any, Any]:
            frozen = torch.no_grad() if self.settings.objective == "kto" else torch.enable_grad()
            own = log_probability(model, inputs["input_ids"].to(model.device), inputs["labels"].to(model.device))
            with frozen if torch.is_grad_enabled() else torch.no_grad():
                other = log_probability(model, inputs["other_ids"].to(model.device), inputs["other_labels"].to(model.device))
            return own, other

    return Preference
