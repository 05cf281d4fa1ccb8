"""What requests say beside their rows: what they wait for, and the name under which they can be sent again.

The same plan gives the same names, so that a repetition is one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ingestor.loadgen.plan import LoadPlan


class Terms:
    """Those of a plan. `first` is the sequence number of a request's first row."""

    def __init__(self, plan: LoadPlan) -> None:
        self._ack = None if plan.ack is None else f"ACK_LEVEL_{plan.ack.upper()}"
        self._prefix = f"{plan.run_id}-" if plan.request_ids else None

    def json(self, first: int) -> str:
        """Members of the request's object, each with a comma before it."""
        fields = self._fields(first, ack="ack", request_id="requestId")
        return "".join(f",{json.dumps(name)}:{json.dumps(value)}" for name, value in fields.items())

    def protobuf(self, message: Callable[..., Any], first: int) -> bytes:
        """Fields to be put behind the request's others: messages one behind the other are one message."""
        fields = self._fields(first, ack="ack", request_id="request_id")
        return bytes(message(**fields).SerializeToString()) if fields else b""

    def _fields(self, first: int, *, ack: str, request_id: str) -> dict[str, str]:
        fields = {}
        if self._ack is not None:
            fields[ack] = self._ack
        if self._prefix is not None:
            fields[request_id] = f"{self._prefix}{first}"
        return fields
