"""TextWorld's games made once and kept: generated and compiled by a process of their own, in the user's cache.

Why another process: the generator draws from global generators, its sets are ordered by the hash seed, and the Inform compiler
writes into the home folder. There all three are the process's own.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agentevolve.protocols import AgentevolveError
from agentevolve.wheels import cache, scratch

CHALLENGES = {"coin": "tw-coin_collector", "treasure": "tw-treasure_hunter", "cooking": "tw-cooking"}
FORM = 1  # to be raised when `write` makes other games of the same order
PATIENCE = 600.0  # seconds that making a game may take; it takes a few
TRIES = 20  # seeds tried where the generator finds no quest on its map


def made(game: str, params: dict[str, Any], seed: int, split: str) -> Path:
    """The folder with the game (game.z8) and what is known of it (game.json), made when it is not in the cache.

    Raises AgentevolveError when it cannot be made.
    """
    order = json.dumps([FORM, game, params, seed, split], sort_keys=True)
    name = f"textworld-{version('textworld')}-{game}-{hashlib.sha256(order.encode()).hexdigest()[:20]}"
    place = cache("games") / name
    if not place.is_dir():
        with scratch("games") as home:
            _ask(order, home)
            try:
                (home / "game").rename(place)
            except OSError:
                if not place.is_dir():  # else another process or thread was quicker
                    raise
    return place


def _ask(order: str, home: Path) -> None:
    settings = {**os.environ, "HOME": str(home), "TMPDIR": str(home), "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", __name__, order]
    try:
        subprocess.run(command, cwd=home, env=settings, capture_output=True, text=True, check=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise AgentevolveError(f"TextWorld made no game within {PATIENCE:g} s of {order}") from None
    except subprocess.CalledProcessError as error:
        why = (error.stderr.strip() or "no message").splitlines()[-1]
        raise AgentevolveError(f"TextWorld cannot make the game {order}: {why}") from None


def write(order: str, folder: Path) -> None:
    """Generate the ordered game and compile it into `folder`."""
    import textworld.challenges
    from textworld.generator import QuestGenerationError, compile_game

    _, game, params, seed, split = json.loads(order)
    make = textworld.challenges.CHALLENGES[CHALLENGES[game]][1]
    if game == "cooking":
        params |= {"recipe_seed": 0, "split": {"val": "valid"}.get(split, split)}
    for other in range(TRIES):
        options = textworld.GameOptions()
        options.seeds = seed + 1_000_000 * other
        options.path = str(folder / "game.z8")
        options.grammar.only_last_action = True  # else the objective tells the whole way
        try:
            compile_game(make(params, options), options)
            break
        except QuestGenerationError:
            if other == TRIES - 1:
                raise
    (folder / "game.ni").unlink()


if __name__ == "__main__":
    write(sys.argv[1], Path("game"))
