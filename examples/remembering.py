"""A LangGraph agent that is not ours, remembering in a memory that is: what it keeps is signed, lasts, and can be looked into.

python examples/remembering.py "My name is Ann." && python examples/remembering.py "What is my name?"
agentevolve memory list notes
"""

import sys
from pathlib import Path

from langgraph.graph import START, MessagesState, StateGraph
from langgraph.store.base import BaseStore

from agentevolve.doors.store import MemoryStore
from agentevolve.memory import open_memory
from agentevolve.models.lite import open_model
from agentevolve.records import Message


def answer(state: MessagesState, *, store: BaseStore) -> dict:
    """Recall what is near to what was said, answer with it in view, and keep what was said."""
    said = str(state["messages"][-1].content)
    near = [item.value["text"] for item in store.search(("notes",), query=said, limit=3)]
    model = open_model("local/smollm2-135m")
    reply = model.complete([Message(role="user", content="\n".join([*near, said]))], max_tokens=40)
    model.close()
    if not said.endswith("?"):
        store.put(("notes",), said[:40], {"text": said})
    return {"messages": [("assistant", reply.text)]}


if __name__ == "__main__":
    with open_memory(Path("notes")) as memory:
        graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile(store=MemoryStore(memory))
        print(graph.invoke({"messages": [("user", sys.argv[1])]})["messages"][-1].content)
