"""How many planted attacks succeed without each defence and with it: `python tests/bench/hostile.py`, half a minute.

It prints the tables of MEMORY.md. The attacks are those of tests/memory/hostile.py, the clean memory that of honest.py beside it.
"""

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "memory"), str(TESTS)]
os.environ["AGENTEVOLVE_KEY_FILE"] = str(Path(tempfile.mkdtemp()) / "memory.key")

from honest import honest  # noqa: E402
from hostile import CASES, DEFENCES, THROUGH  # noqa: E402

from agentevolve.local.rows import clean  # noqa: E402
from agentevolve.memory import HashEmbedder, open_memory, read_ledger  # noqa: E402
from agentevolve.memory.audit import audit  # noqa: E402
from agentevolve.memory.form import quoted  # noqa: E402
from agentevolve.redact import redact  # noqa: E402
from agentevolve.run.folder import Run  # noqa: E402
from agentevolve.update import sound  # noqa: E402

WAYS = {"none": frozenset(DEFENCES), **{name: frozenset({name}) for name in DEFENCES}, "all": frozenset()}


def attacks() -> None:
    won: Counter[tuple[str, str]] = Counter()
    through = []
    for case in CASES:
        for way, off in WAYS.items():
            with tempfile.TemporaryDirectory() as folder:
                succeeded, flagged = case.succeeds(Path(folder), off)
            won[case.vector, way] += succeeded
            if way == "all" and succeeded:
                through.append((case, flagged))
    rows = Counter(case.vector for case in CASES)
    print(f"| attacks that succeed | n | no defence | {' | '.join(f'all but {name}' for name in DEFENCES)} | **all** |")
    print("|---" * (len(WAYS) + 2) + "|")
    for vector, n in rows.items():
        print(f"| {vector} | {n} | {' | '.join(str(won[vector, way]) for way in WAYS)} |")
    sums = [sum(won[vector, way] for vector in rows) for way in WAYS]
    print(f"| **together** | {rows.total()} | {' | '.join(map(str, sums))} |\n")
    print("| what gets through all defences | why | `memory audit` lists it |\n|---|---|---|")
    for case, flagged in through:
        print(f"| {case.vector}: {case.name} | {THROUGH[case.name]} | {'yes' if flagged else 'no'} |")


def false_alarms() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = honest(folder)
        run = Run(folder / "honest", quiet=True)
        refused = len(made) - len(sound(made, run))
        run.close()
        with open_memory(folder / "m", embedder=HashEmbedder()) as memory:
            memory.add(made)
        listed = len({one.id for one in audit(read_ledger(folder / "m"))})
    texts = {text for one in made for text in (one.key, one.text)}
    texts |= {text for one in made if one.lived for turn in one.lived.turns for text in (turn.action, turn.observation)}
    changed = {way.__name__: sum(way(text) != text for text in texts) for way in (redact, clean, quoted)}
    print(
        f"\nclean memory: {len(made)} entries ({', '.join(f'{n} {kind}' for kind, n in Counter(e.kind for e in made).items())}), "
    )
    print(f"refused at the door {refused}, listed by the audit {listed}; of {len(texts)} texts changed: {changed}")


if __name__ == "__main__":
    attacks()
    false_alarms()
