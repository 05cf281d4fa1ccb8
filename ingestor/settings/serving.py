"""How clients are served: what one may take of connections, time and memory, and what is said of it in the log.

Nobody is served without bounds: connections, memory and patience end somewhere, whatever is set.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ByteSize, Field

from ingestor.settings.forms import ANY_CASE, TIME_MAX, Duration, between


class Serving(BaseModel):
    """Queries, connections, patience, memory, the end, the log."""

    grpc_lane: bool = Field(
        default=True,
        description="answer unary gRPC calls in the server's own fast lane; false: in grpclib's way",
    )
    query_connections: int = Field(
        default=4,
        ge=1,
        le=100,
        description="connections to the database for queries, beside those that store",
    )
    query_timeout: Annotated[Duration, between("10ms", "1h")] = Field(
        default=timedelta(seconds=10), description="how long a query may take at most"
    )
    query_share: float = Field(
        default=0.05,
        ge=0.01,
        le=1.0,
        description="what all queries together get of the time while storing is busy (batches of 2,500 rows, or"
        " as large as BATCH_SIZE lets them become if that is less, are under way for over half of the time);"
        " 1: queries wait for nothing",
    )
    connections_max: int = Field(
        default=1_000,
        ge=1,
        le=1_000_000,
        description="open connections of each port; one more takes the place of one that is idle, or is closed."
        " Fewer where the limit of open files (ulimit -n) leaves no room",
    )
    connection_idle: Annotated[Duration, between("1s", TIME_MAX, or_0=True)] = Field(
        default=timedelta(minutes=15),
        description="how long a connection may be without a call: longer than load balancers keep theirs; 0 for any"
        " time",
    )
    connection_age_max: Annotated[Duration, between("1s", TIME_MAX, or_0=True)] = Field(
        default=timedelta(0),
        description="how old a connection may become, give or take a tenth, before its client is told to make"
        " another: 30m spreads gRPC clients over new gateways behind a balancer of connections; 0 for any age",
    )
    header_timeout: Annotated[Duration, between("100ms", "1h")] = Field(
        default=timedelta(seconds=10),
        description="how long a client may take to begin, and to send the headers of a request",
    )
    request_timeout: Annotated[Duration, between("100ms", "1h")] = Field(
        default=timedelta(seconds=60),
        description="how long the rest of a request, or a message of a stream that has begun, may take to come",
    )
    send_timeout: Annotated[Duration, between("100ms", "1h")] = Field(
        default=timedelta(seconds=60),
        description="how long a client may leave unread what it is sent: 64KiB in that time are enough",
    )
    receive_bytes: ByteSize = Field(
        default=ByteSize(64 * 1024**2),
        description="what all requests together may take that have not come whole, half of it on one connection;"
        " beyond it those that came slowest are refused",
    )
    send_bytes: ByteSize = Field(
        default=ByteSize(64 * 1024**2),
        description="what all clients together may leave unread; beyond it those who stopped first are cut off",
    )
    drain_timeout: Duration = Field(
        default=timedelta(seconds=30),
        description="how long stopping may take: calls in flight, then the queue; where the database does not"
        " answer up to 15 s more",
    )
    log_format: Literal["text", "json"] = Field(default="text", description="how log lines are written")
    log_level: Annotated[Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], ANY_CASE] = Field(
        default="INFO", description="the least important level that is logged"
    )
