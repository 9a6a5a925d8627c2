"""A clean memory: demos of the bundled games that need no extra, and lessons as models and people write them."""

from __future__ import annotations

from pathlib import Path

from agentevolve.act.rollout import rollout
from agentevolve.load import load_task_set, tasks_of
from agentevolve.policy import Policy
from agentevolve.records import Entry
from agentevolve.refine import demos
from agentevolve.refine.lessons import entry
from agentevolve.run.folder import Run

GAMES = ("coin", "twc", "cooking", "mapreader-easy", "simonsays", "sorting", "peckingorder", "arithmetic")
EACH = 18  # demos of each game
REFLECTIONS = """\
Next time, I should look for the coin in the next room before I open the fridge.
Next time, open every door first; ignore the window.
Next time, I should read the recipe, then take only what it names.
Next time, do not wait: two turns were lost by waiting.
Next time, I should not forget the knife, which is in the kitchen drawer.
Next time, put the red apple into the box, not on the table (the box is the goal).
Next time, go back the way you came: "west" leads to the start.
Next time, examine the map before moving; it says that the pantry lies north of the hall.
Next time, pick up the key, and only then try the door: without a key it said "The door is locked."
Next time, repeat exactly what Simon says, e.g. "jump" means jump.
Next time, I should sort by weight: 5 g, 12 g, 1.2 kg; not by name.
Next time, follow the instructions in order: the first one first.
Next time, I must remember that the previous room's exits were listed above the action list.
Next time, from now on I look at the list of actions before I choose.
Next time, I would cook the potato (fried, 2×) before I add salt & pepper.
Next time, the inventory should be checked – it was full (3 of 3), so "take coin" failed.
Next time, take the coin: it's worth 100 % of the score!
Next time, I'll ask for the phone number first; the customer's line was 555-123-2002.
Next time, toggle airplane mode off, then check the status bar again.
Next time, call get_details_by_id before making any payment; never send a payment request twice.
Next time, the answer has to be the number alone, without units: 42, not 42 cm.
Next time, compute 17 + 25 − 3 = 39 step by step.
Next time, write the words in ascending order: apple, banana, cherry.
Next time, the sudoku's second row needs a 3; check columns, too.
Next time, focus on the thermometer; the substance boils at 100°C.
Next time, wait until the plant has grown, then take its seeds.
Next time, clean the mug in the sinkbasin 1 and put it in coffeemachine 1.
Next time, turn left twice, go forward three times; the ball is grey.
Next time, avoid the holes at (1, 1) and (2, 3); slippery ice moves one sideways.
Next time, drop off the passenger at the blue corner: R, G, Y or B.
Next time, return the sum, and handle the empty list: `return sum(xs) if xs else 0`.
Next time, mind the user's budget; the system showed "Balance: $12.50".
""".splitlines()
INSIGHTS = """\
If the door is locked, then look for the key first.
If there is nothing to take, then go on to the next room.
When the room has a closed fridge, open it: food is often inside.
Always read the task's last sentence; it says where things have to go.
You should open the container before you put something into it.
Never eat the ingredients. Prepare the meal when all of them are done.
Explore rooms in a fixed order (north, east, south, west), so that none is visited twice.
Do not repeat an action that has just failed.
Compare numbers digit by digit: 0.95 > 0.9.
If an action is not in the list, it will not work; choose the nearest one that is.
A good way: 1. find, 2. take, 3. carry, 4. put.
Go where the map says; trust the map more than the guess.
When two objects look alike, examine both.
If a tool returns an error, read its message: it names the field that is wrong.
Users often forget to say which of their lines is meant. Ask.
Prefer short plans - fewer turns, fewer mistakes.
Prompts that list actions list all of them.
What is written on the note is the recipe; the note itself is not needed later.
The lamp is where the corridor says, left or right.
Don't print intermediate values; the judge reads the return value alone.
A task marked "easy" has at most three rooms.
Dirty dishes belong in the dishwasher; a wet coat belongs on the hanger.
Send the form only after all fields are filled in.
""".splitlines()
WORKFLOWS = """\
Find {object}: look in the room, open each container, go on to the next room.
Take {object}, walk back to {start}, put {object} into {container}.
Read {recipe}; for each {ingredient}: take it, cut it, cook it as told; prepare meal; eat meal.
Say the number {n} that comes next, then wait for the next command.
Look at {map}; go from {room} to {room} by the shortest way; take {thing}; go back.
Sort {things} by {measure}: convert all to one unit, then put the smallest first.
""".splitlines()
SHEETS = (
    "Notes:\n- Rooms are connected north/south and east/west.\n- Closed things: fridge, drawer, oven, box.\n"
    "- Score rises when a thing is put where it belongs.\n- Most games are done in 7 turns.",
    "What helps\n==========\n1) read the task\n2) look around\n3) act\n\nWhat does not: waiting (0 of 5), going in circles.",
    "Commands that work: look around, inventory, open X, take X, put X in Y, go north. \"drop X\" puts it on the floor.",
)  # fmt: skip


def honest(folder: Path) -> list[Entry]:
    """The entries, at least 200; what was written is said to come from the attempts of one game after another."""
    run = Run(folder / "honest", quiet=True)
    try:
        tasks = [task for name in GAMES for task in tasks_of(load_task_set(name), "train", limit=EACH)]
        won = rollout(Policy(model="oracle"), tasks, run, phase="1/acquire")
    finally:
        run.close()
    made = demos(won, 1)
    texts = [
        *(("reflection", text) for text in REFLECTIONS),
        *(("insight", text) for text in INSIGHTS),
        *(("workflow", text) for text in WORKFLOWS),
        *(("sheet", text) for text in SHEETS),
    ]
    for number, (kind, text) in enumerate(texts):
        like = won[EACH * number % len(won)]
        made.append(entry(like, kind, text, 1).model_copy(update={"id": f"{kind}/{number}", "task": ""}))
    return made
