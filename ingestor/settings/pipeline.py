"""The way of metrics from their acknowledgement to the database: how they wait, how long, and how they are stored.

Every queue has a bound, and none can be turned off.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ByteSize, Field

from ingestor.settings.forms import TIME_MAX, Duration, RoomForAMetric, at_most, between


class Pipeline(BaseModel):
    """Batches, queue, journal, acknowledgements, what is taken, and how it is written."""

    batch_size: int = Field(
        default=20_000,
        ge=1,
        le=1_000_000,
        description="waiting metrics that start a flush at once; while storing lags, a batch takes up to 10 times",
    )
    flush_interval: Annotated[Duration, between("1ms", "1h")] = Field(
        default=timedelta(milliseconds=100),
        description="the longest that a metric waits for its batch to fill",
    )
    queue_capacity: int = Field(
        default=500_000,
        ge=1,
        description="metrics waiting or being stored; beyond it requests wait, then fail",
    )
    queue_bytes: RoomForAMetric = Field(
        default=ByteSize(128 * 1024**2), description="the same bound in bytes of memory"
    )
    admission_wait: Duration = Field(
        default=timedelta(seconds=1),
        description="how long a request waits for room in the queue; 0 refuses at once",
    )
    journal: Literal["disk", "memory"] = Field(
        default="disk",
        description="where acknowledged metrics wait for the database: on disk in DATA_DIR, which outlives"
        " crashes, or in memory",
    )
    journal_bytes_max: ByteSize = Field(
        default=ByteSize(4 * 1024**3),
        description="what the disk journal may take; beyond it requests wait, then fail",
    )
    journal_retention: Duration = Field(
        default=timedelta(hours=1),
        description="how long the disk journal keeps what is committed, where there is room: a database that is"
        " restored to an earlier moment gets it again",
    )
    journal_sync: Literal["kernel", "thread"] = Field(
        default="kernel",
        description="who syncs small writes of the disk journal: the kernel by itself, where it can (Linux), or"
        " a thread, which takes longer and lets the server answer while DATA_DIR's file system is frozen",
    )
    ack: Literal["queued", "journaled", "committed"] | None = Field(
        default=None,
        description="what requests that don't say so wait for (default: journaled with a disk journal, else"
        " queued)",
    )
    commit_wait_max: Annotated[Duration, between("1ms", TIME_MAX)] = Field(
        default=timedelta(seconds=30),
        description="how long a request without a deadline waits for its commit",
    )
    request_id_window: Annotated[Duration, between("1ms", TIME_MAX)] = Field(
        default=timedelta(hours=24), description="how long a request_id is remembered"
    )
    message_bytes_max: RoomForAMetric = Field(
        default=ByteSize(4 * 1024**2), description="the largest request body, also inflated"
    )
    time_past_max: Annotated[Duration, at_most(TIME_MAX)] = Field(
        default=timedelta(days=365), description="how far back a metric's time may lie"
    )
    time_future_max: Annotated[Duration, at_most(TIME_MAX)] = Field(
        default=timedelta(hours=1), description="how far ahead a metric's time may lie"
    )
    column_store: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="write large batches directly into TimescaleDB's column store: auto from 2.29 on, on from 2.21",
    )
    codecs: Literal["native", "reference"] = Field(
        default="native",
        description="what decodes bulk requests and encodes COPY: native libraries where they exist, or plain code",
    )
