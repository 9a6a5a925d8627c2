"""LangMem's two tools over our store, called by a LangGraph agent as its own documentation has it.

LangMem brings providers' packages along, so it is no extra of ours: this runs where somebody installed it (pip install langmem).
"""

import json
import uuid

import pytest

pytest.importorskip("langmem")
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.prebuilt import ToolNode
from langmem import create_manage_memory_tool, create_search_memory_tool

from agentevolve.doors.store import MemoryStore
from agentevolve.memory import HashEmbedder, open_memory, read_ledger

PLACE = ("memories", "{user}")
USER = {"configurable": {"user": "ada"}}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "m"


@pytest.fixture
def tools(folder):
    with open_memory(folder, embedder=HashEmbedder()) as memory:
        store = MemoryStore(memory)
        yield create_manage_memory_tool(PLACE, store=store), create_search_memory_tool(PLACE, store=store), store


def found(search, query: str, **more) -> list[dict]:
    return json.loads(search.invoke({"query": query, **more}, config=USER))


def test_what_is_managed_is_found_changed_and_deleted(tools, folder):
    manage, search, store = tools
    said = manage.invoke({"action": "create", "content": "prefers the dark mode"}, config=USER)
    [item] = store.search(("memories", "ada"))
    assert item.key in said and item.value == {"content": "prefers the dark mode"}
    manage.invoke({"action": "create", "content": "lives by the sea"}, config=USER)
    assert [one["value"]["content"] for one in found(search, "dark mode", limit=1)] == ["prefers the dark mode"]
    manage.invoke({"action": "update", "id": item.key, "content": "prefers the light mode"}, config=USER)
    assert {one["value"]["content"] for one in found(search, "mode")} == {"prefers the light mode", "lives by the sea"}
    manage.invoke({"action": "delete", "id": item.key}, config=USER)
    assert [one["value"]["content"] for one in found(search, "mode")] == ["lives by the sea"]
    assert search.invoke({"query": "mode"}, config={"configurable": {"user": "bob"}}) == "[]"
    assert not list(read_ledger(folder).aside())


def test_both_run_in_the_tool_node_of_a_graph(tools):
    manage, search, store = tools
    calls = [
        AIMessage("", tool_calls=[{"name": manage.name, "args": {"action": "create", "content": "a red lamp"}, "id": "1"}]),
        AIMessage("", tool_calls=[{"name": search.name, "args": {"query": "lamp"}, "id": "2"}]),
    ]
    model, node = GenericFakeChatModel(messages=iter(calls)), ToolNode([manage, search])
    from langgraph.graph import END, START, MessagesState, StateGraph

    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", node)
    graph.add_edge(START, "model")
    graph.add_edge("model", "tools")
    graph.add_conditional_edges("tools", lambda state: END if len(state["messages"]) > 3 else "model")
    said = graph.compile(store=store).invoke({"messages": [("user", "keep it, then look it up")]}, config=USER)["messages"]
    assert "created memory" in said[2].content.lower() and "a red lamp" in said[4].content


def test_ids_are_langmems_own(tools):
    manage, _, store = tools
    manage.invoke({"action": "create", "content": "x"}, config=USER)
    [item] = store.search(("memories", "ada"))
    assert uuid.UUID(item.key)
