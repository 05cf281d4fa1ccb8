"""One reader's view of what is being stored: a bounded queue that leaves out what it has no room for, and counts
it.

Filters work on whole columns. What is kept is copied, so that a reader who does not read holds no batch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingestor.model import MetricBatch
from ingestor.model.batch import Mask
from ingestor.model.questions import EVERYTHING

# At once, so that readers get their shares in small pieces, and one that stopped has been shown little.
_SHOWN_MAX = 500
# With less room it is not worth looking for what fits.
_ROOM_BYTES_MIN = 64 * 1024


@dataclass(frozen=True, slots=True)
class TailLimits:
    """`readers` at once; each may be behind by `rows` and `bytes`. All of them together are shown
    `rows_per_second`, since each row that is shown costs what hundreds cost that are only stored; and each hears
    something after `quiet_s` seconds, or nobody would notice that it is gone."""

    readers: int = 32
    rows: int = 10_000
    bytes: int = 2 * 1024**2
    rows_per_second: int = 2_000
    quiet_s: float = 15.0


class _Part(NamedTuple):
    """Rows, and how many were left out before them."""

    batch: MetricBatch
    dropped: int


class Watch:
    """The rows that one reader asked for. `readers` tells how many there are."""

    def __init__(
        self,
        service_name: str,
        metric_name: str,
        readable: tuple[str, ...],
        limits: TailLimits,
        readers: Callable[[], int],
    ) -> None:
        self._service_name = service_name
        self._metric_name = metric_name
        self._readable = readable
        self._limits = limits
        self._readers = readers
        self._parts: deque[_Part] = deque()
        self._rows = 0
        self._bytes = 0
        self._dropped = 0
        self._something = asyncio.Event()
        self._due_s = 0.0

    @property
    def held_bytes(self) -> int:
        """What waits to be read."""
        return self._bytes

    def offer(self, batch: MetricBatch) -> int:
        """Takes those rows of the batch that are asked for, as far as there is room; returns how many are left
        out."""
        wanted = self._wanted(batch.columns)
        rows = batch.rows if wanted is None else int(np.count_nonzero(wanted))
        part = self._fitting(batch, wanted, min(rows, self._limits.rows - self._rows))
        taken = 0 if part is None else part.rows
        if part is not None:
            self._parts.append(_Part(part, self._dropped))
            self._rows += taken
            self._bytes += part.size_bytes
            self._dropped = 0
        self._dropped += rows - taken
        if rows:
            self._something.set()
        return rows - taken

    async def seen(self) -> tuple[MetricBatch | None, int]:
        """The next rows, and how many were left out before them; None for no rows, when they were left out or
        nothing came for long."""
        now_s = asyncio.get_running_loop().time
        await asyncio.sleep(max(0.0, self._due_s - now_s()))
        try:
            async with asyncio.timeout(self._limits.quiet_s):
                await self._something.wait()
        except TimeoutError:
            return None, 0
        if not self._parts:
            dropped, self._dropped = self._dropped, 0
            self._something.clear()
            return None, dropped
        part = self._parts.popleft()
        rest = part.batch.rows - _SHOWN_MAX
        if rest > 0:
            # Together they hold the same memory, which counts until the last of it is shown.
            first, last = (
                MetricBatch.of_columns(part.batch.columns.slice(start, rows), part.batch.label_sets)
                for start, rows in ((0, _SHOWN_MAX), (_SHOWN_MAX, rest))
            )
            last.size_bytes = part.batch.size_bytes
            self._parts.appendleft(_Part(last, 0))
            part = _Part(first, part.dropped)
        else:
            self._bytes -= part.batch.size_bytes
        self._rows -= part.batch.rows
        if not self._parts and not self._dropped:
            self._something.clear()
        # Its share of what all may see.
        self._due_s = now_s() + part.batch.rows * self._readers() / self._limits.rows_per_second
        return part.batch, part.dropped

    def _wanted(self, columns: pa.RecordBatch) -> Mask | None:
        """Which rows are asked for; None for all."""
        masks = []
        service, metric = columns.column("service_name"), columns.column("metric_name")
        if self._service_name:
            masks.append(pc.equal(service, self._service_name))
        if self._metric_name:
            masks.append(pc.equal(metric, self._metric_name))
        if self._readable != EVERYTHING:
            allowed = [pc.starts_with(service, prefix) for prefix in self._readable]
            masks.append(reduce(pc.or_, allowed, pa.array(np.zeros(len(service), np.bool_))))
        if not masks:
            return None
        wanted: Mask = reduce(pc.and_, masks).to_numpy(zero_copy_only=False)
        return wanted

    def _fitting(self, batch: MetricBatch, wanted: Mask | None, rows: int) -> MetricBatch | None:
        """A copy of so many of the first rows that are wanted; fewer when they are too large."""
        if self._limits.bytes - self._bytes < _ROOM_BYTES_MIN:
            return None
        numbers = np.arange(rows) if wanted is None else np.flatnonzero(wanted)[:rows]
        while len(numbers):
            kept: Mask = np.zeros(batch.rows, np.bool_)
            kept[numbers] = True
            part = batch.filtered(kept)
            if self._bytes + part.size_bytes <= self._limits.bytes:
                return part
            numbers = numbers[: len(numbers) // 2]
        return None
