"""What a run of the load generator sends, where and how fast, as one checked value.

It refuses contradictions before the first connection, and it knows nothing about how a request is sent.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator

SYSTEM_CAS = "system"
Protocol = Literal["grpc", "http"]

COUNT_DEFAULT = 10_000
SERVICES_MAX = 10
# Without a rate, time advances by 1 us a metric: slower than any client can send, so never in the future.
PACE_UNPACED = 1_000_000


class LoadPlan(BaseModel):
    """One run; the same plan and the same start give the same rows, byte for byte."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grpc: Annotated[str, StringConstraints(pattern=r"^.+:\d{1,5}$")] = "127.0.0.1:50051"
    http: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")] = "http://127.0.0.1:8080"
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    key: SecretStr | None = None
    protocol: Literal["grpc", "http", "both"] = "both"
    rate: int | None = Field(default=None, ge=1, le=10_000_000)
    connections: int = Field(default=4, ge=1, le=1_000)
    # Servers commonly allow 100 concurrent streams a connection.
    streams: int = Field(default=4, ge=1, le=100)
    batch: int = Field(default=100, ge=1, le=50_000)
    labels: int = Field(default=0, ge=0, le=32)
    series: int = Field(default=100, ge=1, le=100_000)
    late_percent: float = Field(default=5.0, ge=0, le=100)
    count: int | None = Field(default=None, ge=1, le=2**40)
    duration_s: float | None = Field(default=None, gt=0)
    seed: int = Field(default=1, ge=0, lt=2**63)
    ack: Literal["queued", "journaled", "committed"] | None = None
    request_ids: bool = False
    retries: int = Field(default=0, ge=0, le=100)
    timeout_s: float = Field(default=30.0, gt=0)
    reconnect_s: float = Field(default=10.0, ge=0)
    run_id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{1,32}$")] = Field(
        default_factory=lambda: secrets.token_hex(4)
    )

    @model_validator(mode="before")
    @classmethod
    def _count_unless_duration(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("count") is None and data.get("duration_s") is None:
            return {**data, "count": COUNT_DEFAULT}
        return data

    @model_validator(mode="before")
    @classmethod
    def _tls_by_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("tls_ca") is not None and "http" not in data:
            return {**data, "http": "https://127.0.0.1:8080"}
        return data

    @model_validator(mode="after")
    def _tls_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls-cert and tls-key go together")
        if self.tls_ca is None and (self.tls_cert is not None or self.http.startswith("https:")):
            raise ValueError("tls-ca says whom to trust: a file, or `system`")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.count is not None and self.duration_s is not None:
            raise ValueError("count and duration exclude each other")
        if self.protocol == "both" and self.connections == 1:
            raise ValueError("protocol both needs at least 2 connections")
        return self

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """The protocols in use, in the order in which connections alternate."""
        return ("grpc", "http") if self.protocol == "both" else (self.protocol,)

    @property
    def pace(self) -> int:
        """Metrics a second by which the rows' own time advances."""
        return self.rate or PACE_UNPACED

    @property
    def metrics_planned(self) -> int | None:
        """How many metrics the plan asks for; None when only the clock ends it."""
        if self.count is not None:
            return self.count
        if self.rate is None or self.duration_s is None:
            return None
        # A request starts with its first metric's time, and is sent whole.
        requests = -int(-self.rate * self.duration_s // self.batch)
        return requests * self.batch
