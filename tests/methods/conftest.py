"""What the methods' tests share: a run whose model is a script, and whose weights are a tiny real llama's."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from worlds import new_run, use_model

from agentevolve.act.attempt import SERVING
from agentevolve.local.adapter import read_rows
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy
from agentevolve.records import Example
from agentevolve.run.folder import Run

sys.path.append(str(Path(__file__).parents[1] / "local"))


class House(NamedTuple):
    """A run, the policy that acts in it, and the scripted model that answers for it."""

    run: Run
    policy: Policy
    model: ScriptedModel

    def answers_with(self, adapter: Path) -> None:
        """Let the script answer for the policy with this adapter, which need not be there yet."""
        policy = self.policy
        self.run.part("model", f"{policy.model} {policy.api_base} {adapter / SERVING} {policy.threads}", lambda: self.model)

    def rows(self, policy: Policy) -> list[Example]:
        """What the policy's adapter was trained on."""
        return read_rows(Path(policy.adapter))

    def seen(self, phase: str) -> list[str]:
        """What was recalled, as it was shown, for each attempt of a phase, in the order of their ids."""
        found = [one for one in self.run.trajectories.values() if one.phase == phase]
        return ["\n".join([*(said.content for said in one.demos), one.context]) for one in sorted(found, key=lambda one: one.id)]


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> str:
    """A tiny llama as a model that can be fine-tuned in a second."""
    import tiny
    import torch

    torch.set_num_threads(1)
    return f"local/{tiny.folder(tmp_path_factory.mktemp('weights') / 'tiny')}"


@pytest.fixture
def house(tmp_path, weights) -> Callable[[Any], House]:
    """Make a house in which `script` answers."""
    made = []

    def build(script: Any) -> House:
        policy, model = Policy(model=weights, show_actions=False), ScriptedModel(script)
        run = new_run(tmp_path / f"run-{len(made)}", workers=1)
        use_model(run, model, policy)
        made.append(run)
        return House(run, policy, model)

    yield build
    for run in made:
        run.close()
