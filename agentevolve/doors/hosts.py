"""By which names what listens on this machine is asked: who asks by another, a web page whose name was made to point here, gets
nothing (DNS rebinding)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def known_hosts(names: Iterable[str], port: int) -> frozenset[str]:
    """The values of the header Host that are answered: these names with the port, without it where that is the usual one."""
    return frozenset(host for name in names for host in (f"{name.lower()}:{port}", *([name.lower()] if port == 80 else [])))


def is_known(host: str, known: Collection[str]) -> bool:
    """Whether a value of the header Host is one of those that are answered."""
    return host.lower() in known
