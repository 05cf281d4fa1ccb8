"""What durability costs: the disk journal beside the memory queue, and a journaled call beside a bare write and
sync."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.driving import Answers, Target, steady
from benchmarks.processes import fresh_database, ingestor

# A journaled LogMetric is an entry of some 500 bytes.
_WRITE_BYTES = 512


async def synced_steadily(per_second: float, seconds: float) -> Answers:
    """Appends and fdatasyncs at this rate, one after the other, in a thread of its own, as latencies from when
    each was due: what the disk allows."""
    return await asyncio.to_thread(_sync_steadily, per_second, seconds)


def _sync_steadily(per_second: float, seconds: float) -> Answers:
    answers = Answers()
    entry = os.urandom(_WRITE_BYTES)
    pause = threading.Event()
    with tempfile.TemporaryDirectory(prefix="ingestor-bench-") as folder:
        file = os.open(Path(folder) / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        began = time.perf_counter()
        for number in range(int(per_second * seconds)):
            due = began + number / per_second
            if (wait_s := due - time.perf_counter()) > 0:
                pause.wait(wait_s)
            os.write(file, entry)
            os.fdatasync(file)
            answers.latencies_s.append(time.perf_counter() - due)
        os.close(file)
    return answers


async def answered_steadily(
    server: str, target: Callable[[int], Target], per_second: float, seconds: float, ack: str
) -> Answers:
    """LogMetric at this rate with this acknowledgement."""
    async with fresh_database(server) as url, ingestor(url, ACK=ack) as ports:
        return await steady(target(ports[0]), per_second, seconds)
