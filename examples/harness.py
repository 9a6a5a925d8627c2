"""Somebody else's harness: it plays a text game by OpenAI's client alone, and says how each game ended. It knows nothing of us.

agentevolve serve --model local/smollm2-135m --out runs/served --port 8399          # AGENTEVOLVE_SERVE_KEY=… for a known key
python examples/harness.py --fold train --tasks 60 --samples 4                      # it plays, the policy's attempts are kept
agentevolve distill runs/served --out runs/adapter                                  # learnt from the games that were won
agentevolve serve --model local/smollm2-135m --adapter runs/adapter --out runs/again
python examples/harness.py --fold dev --tasks 60                                    # … on games that nobody practised
"""

import argparse
import os

import openai
from textworld_express import TextWorldExpressEnv

GAME, PARAMS, LIMIT = "simonsays", "gameLength=2,numDistractors=2,memorization=0", 4
HIDDEN = ("inventory", "look around")
SPLITS = {"train": "train", "dev": "val", "test": "test"}  # what is not train is never learnt from
FIRST = {"train": 0, "dev": 10_000, "test": 20_000}  # the seed that a fold begins with


def play(world: TextWorldExpressEnv, client: openai.OpenAI, fold: str, seed: int, luck: int) -> bool:
    """One game; whether it was won."""
    seen, info = world.reset(seed=seed, gameFold=fold, gameName=GAME, gameParams=PARAMS)
    messages = [{"role": "system", "content": "You play a text game. Answer with one of the actions, word for word."}]
    for turn in range(LIMIT):
        actions = sorted(set(info["validActions"]) - set(HIDDEN))
        messages.append({"role": "user", "content": f"{seen.strip()}\nActions: {', '.join(actions)}"})
        asked = {"temperature": 0.7, "seed": luck * LIMIT + turn, "extra_body": {"structured_outputs": {"choice": actions}}}
        headers = {"X-Agentevolve-Task": f"{GAME}-{seed}", "X-Agentevolve-Split": SPLITS[fold]}
        made = client.chat.completions.create(model="agentevolve", messages=messages, extra_headers=headers, **asked)
        said = made.choices[0].message.content or ""
        messages.append({"role": "assistant", "content": said})
        seen, _, done, info = world.step(said.strip())
        if done or info["tasksuccess"] or info["taskfailure"]:
            break
    won = bool(info["tasksuccess"])
    client.post("/reward", body={"task": f"{GAME}-{seed}", "reward": float(won)}, cast_to=object)
    return won


def main() -> None:
    """Play, and print how many were won."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--url", default="http://127.0.0.1:8399/v1")
    asked.add_argument("--fold", choices=list(FIRST), default="dev")
    asked.add_argument("--tasks", type=int, default=20)
    asked.add_argument("--samples", type=int, default=1)
    given = asked.parse_args()
    client = openai.OpenAI(base_url=given.url, api_key=os.environ["AGENTEVOLVE_SERVE_KEY"], max_retries=0, timeout=120)
    world = TextWorldExpressEnv(envStepLimit=LIMIT)
    seeds = range(FIRST[given.fold], FIRST[given.fold] + given.tasks)
    won = [play(world, client, given.fold, seed, sample) for seed in seeds for sample in range(given.samples)]
    print(f"{given.fold}: {sum(won)} of {len(won)} won")
    world.close()


if __name__ == "__main__":
    main()
