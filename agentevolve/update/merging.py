"""Several adapters become one (survey 2404.14387, section 6.1.3, architecture; averaging also regularises, section 6.1.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from agentevolve.local import catalog
from agentevolve.local.adapter import read_adapter
from agentevolve.local.merge import merge_lora
from agentevolve.policy import Policy
from agentevolve.run.folder import Run
from agentevolve.update.weights import local_base


def merged(
    policy: Policy,
    adapters: Iterable[str | None],
    run: Run,
    name: str,
    *,
    weights: Sequence[float] | None = None,
    rank: int | None = None,
    drop: float = 0.0,
) -> Policy:
    """The policy with the sum of `adapters` (folders), each times its weight, as its adapter in the run's folder `adapters/name`.

    Without `weights` it is their average (Model Soups, 2203.05482); weights of 1 add skills up. What the weights lack of 1 is
    the base's. The sum is exact, and its rank that of all together, unless `rank` cuts it. `drop` drops a share of each one's
    numbers and scales up the rest (DARE, 2311.03099, here on A alone). One that is there already (a resumed run) is taken as
    it is; without adapters the policy comes back unchanged.
    """
    folders = [Path(one) for one in adapters if one]
    if not folders:
        return policy
    out = run.folder / "adapters" / name
    if out.exists():
        read_adapter(out)
    else:
        base = local_base(policy.model)
        merge_lora(
            catalog.training_folder(base),
            folders,
            weights or [1 / len(folders)] * len(folders),
            out,
            base=base.identity,
            rank=rank,
            drop=drop,
            seed=run.derive("merge", name),
        )
    return policy.using(adapter=str(out))
