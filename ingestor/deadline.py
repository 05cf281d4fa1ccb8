"""Whether the caller has said how long it waits: the transports know, and who waits for a commit asks.

It carries no time: whoever knows a deadline ends the call by itself.
"""

from __future__ import annotations

from contextvars import ContextVar

CALLER_SAYS: ContextVar[bool] = ContextVar("caller_says", default=False)
"""True within a call that its transport ends at the caller's deadline."""
