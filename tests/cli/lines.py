"""What the tests of the command line share: what is asked for, and that a refusal is one line and leaves nothing behind."""

from pathlib import Path

from worlds import make_tasks

from agentevolve.act.rollout import rollout
from agentevolve.policy import Policy
from agentevolve.refine import demos
from agentevolve.run.folder import Run
from agentevolve.update import remember

CONFIG = """\
tasks: corridor.yaml
model: random
temperature: 0.5
train: {tasks: 4}
settings: {samples: 2, epsilon: [1.0], reflections: 0, rows: 0}
val: {tasks: 4}
arms: [random, oracle, base]
"""
COMPARISON = """\
tasks: corridor.yaml
model: random
train: {tasks: 3}
held: {tasks: 4}
recall: {nearest: {}}
budget: {episodes: 20}
methods: [memento]
"""


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}


def refused(ask, folder: Path, *words: str) -> str:
    """The one line that the command line answers with, after checking that nothing was written."""
    before = tree(folder)
    code, out, err = ask(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1
    assert tree(folder) == before
    return err


def remembered(place: Path) -> Path:
    """A run that remembers, in a memory that MiniLM made: no text was embedded yet."""
    run = Run(place, quiet=True)
    oracle = rollout(Policy(model="oracle"), make_tasks(3), run, phase="1/acquire")
    remember(Policy(model="random"), demos(oracle, 1), run)
    run.close()
    return place
