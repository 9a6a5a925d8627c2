"""Phase 1, acquire: where tasks and solutions come from (survey 2404.14387, sections 4.1 and 4.2)."""

from agentevolve.acquire.hints import plans
from agentevolve.acquire.pool import select

__all__ = ["plans", "select"]
