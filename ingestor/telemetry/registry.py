"""Every Prometheus metric of the process, declared once, with a comment that says when it moves.

The counters obey `received = committed + rejected + dead_lettered + duplicates + lost + pending`, the pending ones
being the gauge; lost is 0 unless a disk fails.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.gc_collector import GCCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_FLUSH_ROWS = (1, 5, 10, 50, 100, 500, 1_000, 5_000, 10_000, 20_000, 50_000, 100_000, 500_000)
_SYNC_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_FLUSH_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Telemetry:
    """One registry and what is counted in it; a process (or a test) makes its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # A process-wide switch of the library; a second time series for every counter helps nobody.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

        # Moves when the journal takes a metric or, at the start, finds one that is not committed; when validation
        # rejects one; when a repeated request is recognised; and when a database that went back in time needs
        # one again. Those of a request that was refused for want of room don't count.
        self.received = self._counter("ingestor_metrics_received", "Metrics taken or rejected by validation.")
        # Moves when validation refuses a metric.
        self.rejected = self._counter("ingestor_metrics_rejected", "Metrics rejected by validation.")
        # Moves when the transaction that holds a metric has committed.
        self.committed = self._counter("ingestor_metrics_committed", "Metrics committed to the database.")
        # Moves when the transaction has committed that puts a metric into dead_letters, since the database refuses
        # it: alert on any.
        self.dead_lettered = self._counter(
            "ingestor_metrics_dead_lettered", "Metrics that the database refuses, kept in dead_letters."
        )
        # Moves when a request is recognised, by its request_id, as one that was stored or taken before.
        self.duplicates = self._counter(
            "ingestor_metrics_duplicates", "Metrics of repeated requests, not stored again."
        )
        # Moves when valid metrics find no room in the queue, or the queue closed: nothing of them was taken.
        self.refused = self._counter("ingestor_metrics_refused", "Metrics refused for want of room.")
        # Moves when a batch could not be stored, is kept and will be tried again.
        self.flush_failures = self._counter(
            "ingestor_flush_failures", "Flushes that failed and are tried again."
        )
        # Moves when the database turns out to be at another place of the journal than we left it at.
        self.rewinds = self._counter(
            "ingestor_journal_rewinds", "Times that the database's cursor was not where it was left."
        )
        # Moves with each committed batch.
        self.flush_rows = Histogram(
            "ingestor_flush_rows", "Rows per committed batch.", buckets=_FLUSH_ROWS, registry=self.registry
        )
        # Moves with each committed batch: from taking a connection until the commit.
        self.flush_seconds = Histogram(
            "ingestor_flush_seconds",
            "Seconds that storing a batch took.",
            buckets=_FLUSH_SECONDS,
            registry=self.registry,
        )
        # Moves with each batch that was written into TimescaleDB's column store directly.
        self.column_store_batches = self._counter(
            "ingestor_column_store_batches", "Batches written directly into the column store."
        )
        # Moves with each batch meant for it that the server wrote into the row store (the log says why).
        self.column_store_fallbacks = self._counter(
            "ingestor_column_store_fallbacks",
            "Batches that the server refused to write into the column store.",
        )
        # Read when scraped: metrics that are acknowledged and not yet committed.
        self.pending = self._gauge("ingestor_metrics_pending", "Metrics queued or being stored.")
        # Read when scraped: the memory that they take.
        self.pending_bytes = self._gauge("ingestor_queue_bytes", "Bytes of memory that pending metrics take.")
        # Read when scraped: seconds since the oldest metric that is not yet committed was taken; 0 without any.
        self.oldest_age = self._gauge(
            "ingestor_queue_oldest_age_seconds", "Age of the oldest pending metric."
        )
        # Read when scraped: requests that wait for room in the queue (up to ADMISSION_WAIT).
        self.waiting_requests = self._gauge("ingestor_queue_waiting_requests", "Requests waiting for room.")
        # Moves with each group of requests that is written to the disk journal: write and fdatasync.
        self.sync_seconds = Histogram(
            "ingestor_journal_sync_seconds",
            "Seconds that writing to the disk journal took.",
            buckets=_SYNC_SECONDS,
            registry=self.registry,
        )
        # Read when scraped: what the disk journal takes on disk, committed entries that are kept among it.
        self.journal_bytes = self._gauge("ingestor_journal_bytes", "Bytes of the disk journal's files.")
        # Set once, when the disk journal is opened.
        self.journal_bytes_max = self._gauge("ingestor_journal_bytes_max", "What they may be at most.")
        # Moves when the disk does not give back what was written: alert on any. Those metrics are not pending
        # any more.
        self.lost = self._counter("ingestor_metrics_lost", "Acknowledged metrics that a damaged disk took.")
        # Read when scraped: positions that should be there and are not (the log names them).
        self.journal_gaps = self._gauge(
            "ingestor_journal_gap_entries", "Entries missing from the disk journal."
        )
        # Set once, when the queue is made.
        self.capacity = self._gauge("ingestor_queue_capacity", "Metrics that the queue holds at most.")

    def watch_queue(
        self,
        *,
        rows: Callable[[], float],
        size_bytes: Callable[[], float],
        age_s: Callable[[], float],
        waiting_requests: Callable[[], float],
        capacity: int,
    ) -> None:
        """Reads the queue's gauges from these functions whenever they are scraped."""
        self.pending.set_function(rows)
        self.pending_bytes.set_function(size_bytes)
        self.oldest_age.set_function(age_s)
        self.waiting_requests.set_function(waiting_requests)
        self.capacity.set(capacity)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format, to be served as `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)
