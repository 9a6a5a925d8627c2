"""What a command listens on: opened before anything else is, so that an address in use is said in one line."""

from __future__ import annotations

import os
import socket

from agentevolve.protocols import AgentevolveError


def listening(host: str, port: int) -> socket.socket:
    """What listens there. Raises AgentevolveError for an address that is not this machine's, or in use."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise AgentevolveError(f"{host}:{port}: {why}; name another with --host or --port") from None
