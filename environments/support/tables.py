"""Worlds given by a transition table, as Gymnasium's toy texts are: their best play, and what they look like in words."""

from __future__ import annotations

from typing import Any

Outcomes = list[tuple[float, Any, float, bool]]  # probability, next state, reward, whether it ends
PATIENCE = 0.99  # what a reward is worth a step later: of two ways the shorter is better
SWEEPS = 2_000  # the most rounds of value iteration
PLACES = {(0, 0): "red", (0, 4): "green", (4, 0): "yellow", (4, 3): "blue"}  # where the taxi's passengers wait and go


def best_policy(table: dict[Any, dict[int, Outcomes]]) -> dict[Any, int]:
    """The best action in each state of the table (state -> action -> outcomes), by value iteration."""
    values = dict.fromkeys(table, 0.0)

    def worth(outcomes: Outcomes) -> float:
        return sum(chance * (reward + (0.0 if end else PATIENCE * values[state])) for chance, state, reward, end in outcomes)

    for _ in range(SWEEPS):
        before = dict(values)
        for state, choices in table.items():
            values[state] = max(map(worth, choices.values()))
        if max(abs(values[state] - before[state]) for state in table) < 1e-9:
            break
    return {state: max(choices, key=lambda action: worth(choices[action])) for state, choices in table.items()}


def lake(seed: int) -> list[str]:
    """A map for FrozenLake that has a way across: four rows of four tiles, a quarter of them holes."""
    from gymnasium.envs.toy_text.frozen_lake import generate_random_map

    return generate_random_map(size=4, p=0.75, seed=seed)


def say_lake(observation: int, world: Any) -> str:
    """FrozenLake's map with "@" for where one stands, and what lies around."""
    tiles = [[tile.decode() for tile in row] for row in world.desc.tolist()]
    row, column = divmod(int(observation), len(tiles[0]))
    here = tiles[row][column]
    around = {"left": (row, column - 1), "down": (row + 1, column), "right": (row, column + 1), "up": (row - 1, column)}
    names = {"S": "ice", "F": "ice", "H": "hole", "G": "goal"}

    def said(place: tuple[int, int]) -> str:
        inside = 0 <= place[0] < len(tiles) and 0 <= place[1] < len(tiles[0])
        return names[tiles[place[0]][place[1]]] if inside else "edge"

    ways = ", ".join(f"{way}: {said(place)}" for way, place in around.items())
    ends = {"H": "You fell into a hole.", "G": "You reached the goal."}
    tiles[row][column] = "@"
    return "\n".join([*(" ".join(line).replace("S", "F") for line in tiles), ends.get(here, ways)])


def say_taxi(observation: int, world: Any) -> str:
    """Taxi's state in words: where the taxi stands and may drive, where the passenger is and wants to go."""
    row, column, passenger, destination = map(int, world.decode(int(observation)))
    walls = world.desc.tolist()[1 + row]
    free = {
        "north": row > 0,
        "south": row < 4,
        "east": walls[2 * column + 2] == b":",
        "west": walls[2 * column] == b":",
    }
    places = [f"{name} (row {at[0] + 1}, column {at[1] + 1})" for at, name in PLACES.items()]
    waits = "sits in the taxi" if passenger == 4 else f"waits at {places[passenger]}"
    if passenger == destination:
        waits = f"is there: at {places[passenger]}"
    drive = ", ".join(way for way, open in free.items() if open)
    return (
        f"The taxi is at row {row + 1}, column {column + 1} and can drive {drive}.\n"
        f"The passenger {waits}.\nThe destination is {places[destination]}."
    )
