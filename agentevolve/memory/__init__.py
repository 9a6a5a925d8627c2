"""What the agent remembers: a journal of entries that is the truth, and a nearest-neighbour index rebuilt from it.

    memory = open_memory(Path("runs/coin/memory"))
    memory.add(entries)
    memory.recall("find the coin", env="coin", k=2)      # [(entry, similarity), ...], nearest first

A memory folder holds `memory.json` (which embedding model made it), `entries.jsonl` (the journal) and `chroma/` (the index:
vectors, and Chroma's graphs of the shelves that are large); `closed` has, signed, what the journal said at its last clean end.
"""

from agentevolve.memory.embed import Embedder, HashEmbedder, MiniLM, load_embedder
from agentevolve.memory.ledger import Ledger
from agentevolve.memory.store import EntryMemory, open_memory, read_entries, read_ledger, read_memory, read_stats

__all__ = [
    "Embedder",
    "EntryMemory",
    "HashEmbedder",
    "Ledger",
    "MiniLM",
    "load_embedder",
    "open_memory",
    "read_entries",
    "read_ledger",
    "read_memory",
    "read_stats",
]
