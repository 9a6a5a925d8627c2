"""A run with attempts of every sort, some with hostile text in them: what the exports are tested on."""

from pathlib import Path

from agentevolve.act.prompting import rules
from agentevolve.records import Message, PolicyStamp, Split, Task, Trajectory, Turn, Usage
from agentevolve.run.folder import Run

SECRET = "sk-proj-a1B2c3D4e5F6g7H8i9J0k1L2"
HOSTILE = 'a "quote", a \\ back\nslash, <|im_end|>, \x00\x1b[31m, \u202eright to left\u2028, 🦜, half \ud83d, ```json {"a": 1}'
TOOLS = (
    {
        "type": "function",
        "function": {
            "name": "open_door",
            "description": "Open it.",
            "parameters": {"type": "object", "properties": {"door": {"type": "string"}}},
        },
    },
)
CALL = '{"name": "open_door", "arguments": {"door": "red"}}'


def turn(action: str, observation: str, **more: object) -> Turn:
    cost = Usage(calls=1, prompt_tokens=20, cached_tokens=5, completion_tokens=3, seconds=0.5, usd=0.001)
    return Turn.model_validate({"action": action, "observation": observation, "usage": cost, **more})


def life(number: int, split: Split, *turns: Turn, reward: float = 1.0, sample: int = 0, **more: object) -> Trajectory:
    task = Task(id=f"doors/{split}/{number}", env="doors", split=split, seed=number, data={"solution": "the answer"})
    phase = str(more.pop("phase", "1/acquire" if split == "train" else f"1/{split}/base"))
    given = {
        "id": f"{phase}/{task.id}/{sample}",
        "task": task,
        "phase": phase,
        "policy": PolicyStamp(model="openai/tiny", round=1, temperature=0.5),
        "system": "You are playing.",
        "prompt": f"Find the door of house {number}.",
        "actions": ("look", "open"),
        "sample": sample,
        "turns": turns,
        "reward": reward,
        "end": "terminated",
        "seconds": 1.5,
    }
    return Trajectory.model_validate(given | more)


def lives() -> list[Trajectory]:
    won = (turn("look", "A door.", actions=("open", "look"), reward=0.5, thinking="Where?"), turn("open", "You are out."))
    demos = (Message(role="user", content="An earlier house."), Message(role="assistant", content="open"))
    listed = rules(TOOLS, choosing=False, listed=False, instructions="")
    seen = won[0].model_copy(update={"context": "Earlier: doors open."})
    return [
        life(1, "train", *won, hint="The door is red.", context="Recalled: look first.", demos=demos, recalled=("demo/x",)),
        life(1, "train", turn("look", "Still dark."), reward=0.25, sample=1, end="truncated"),
        life(2, "train", seen, won[1], recalled=("demo/y",)),
        life(3, "train", turn(CALL, "It opens."), tools=TOOLS, system=listed, actions=(), phase="2/acquire"),
        life(4, "train", turn(HOSTILE, f"{HOSTILE} the key is {SECRET}."), prompt=HOSTILE, actions=(), phase="2/acquire"),
        life(5, "train", reward=0.0, end="error", error="OSError: the ceiling came down"),
        life(6, "val", *won),
        life(7, "test", turn("look", "Nothing."), reward=0.0, phase="test/base"),
        life(8, "train", reward=0.0, end="truncated", forgotten=True),
    ]


def lived(place: Path) -> Path:
    """A run of them at `place`."""
    run = Run(place, quiet=True)
    for one in lives():
        run.add(one)
    run.close()
    return place
