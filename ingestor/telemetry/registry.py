"""Every Prometheus metric of the process, declared once, with a sentence that says when it moves.

The counters obey `received = committed + rejected + dead_lettered + duplicates + lost + pending`, the pending ones
being the gauge; lost is 0 unless a disk fails. METRICS.md is written from what is declared here.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import PlatformCollector, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import generate_latest
from prometheus_client.gc_collector import GCCollector

from ingestor.telemetry import calls, services
from ingestor.telemetry.declared import Declared, Declaring, counter, gauge, histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_FLUSH_ROWS = (1, 5, 10, 50, 100, 500, 1_000, 5_000, 10_000, 20_000, 50_000, 100_000, 500_000)
_SYNC_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_FLUSH_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Telemetry(Declaring):
    """One registry and what is counted in it; a process (or a test) makes its own."""

    calls = Declared((calls.TOTAL, calls.SECONDS), calls.Calls)
    cut_off = counter(
        "ingestor_connections_cut_off_total",
        "Connections that were ended for what their clients did, by protocol (grpc, http) and reason.",
        "Moves when a client reaches a bound: flood (frames that ask for nothing), slow (a request's head that does"
        " not come whole), unread (answers that are left lying), silent (a PING without an answer), too_many"
        " (CONNECTIONS_MAX: it is refused, or an idle one makes room), and over gRPC also idle"
        " (CONNECTION_IDLE) and age (CONNECTION_AGE_MAX), which tell nothing bad of it.",
        unit="connections",
        labels=("protocol", "reason"),
    )
    calls_in_flight = gauge(
        "ingestor_rpcs_in_flight",
        "Calls under way, by protocol (grpc, http).",
        "Read when scraped: calls that began and are neither answered nor given up.",
        unit="calls",
        labels=("protocol",),
    )
    received = counter(
        "ingestor_metrics_received_total",
        "Metrics taken or rejected by validation.",
        "Moves when the journal takes a metric or, at the start, finds one that is not committed; when validation"
        " rejects one; when a repeated request is recognised; and when a database that went back in time needs"
        " one again. Those of a request that was refused for want of room don't count.",
        unit="metrics",
    )
    rejected = counter(
        "ingestor_metrics_rejected_total",
        "Metrics rejected by validation.",
        "Moves when validation refuses a metric.",
        unit="metrics",
    )
    committed = counter(
        "ingestor_metrics_committed_total",
        "Metrics committed to the database.",
        "Moves when the transaction that holds a metric has committed.",
        unit="metrics",
    )
    services = Declared((services.COMMITTED,), services.ServiceCounts)
    dead_lettered = counter(
        "ingestor_metrics_dead_lettered_total",
        "Metrics that the database refuses, kept in dead_letters.",
        "Moves when the transaction has committed that puts a metric there.",
        unit="metrics",
    )
    duplicates = counter(
        "ingestor_metrics_duplicates_total",
        "Metrics of repeated requests, not stored again.",
        "Moves when a request is recognised, by its request_id, as one that was stored or taken before.",
        unit="metrics",
    )
    lost = counter(
        "ingestor_metrics_lost_total",
        "Acknowledged metrics that a damaged disk took; they are not pending any more.",
        "Moves when the disk does not give back what was written.",
        unit="metrics",
    )
    refused = counter(
        "ingestor_metrics_refused_total",
        "Metrics refused for want of room.",
        "Moves when valid metrics find no room in the queue, or the queue closed: nothing of them was taken.",
        unit="metrics",
    )
    series_limited = counter(
        "ingestor_series_limited_total",
        "Metrics of new series beyond SERIES_PER_HOUR_MAX, by key (empty: without one).",
        "Moves when a metric's series is not among those of the last hour, and there are too many: it is rejected,"
        " or with SERIES_PER_HOUR_DRY_RUN stored all the same.",
        unit="metrics",
        labels=("key",),
    )
    keys_valid = gauge(
        "ingestor_keys_valid",
        "Keys that are valid.",
        "Read when scraped; 0 also where none are needed.",
        unit="keys",
    )
    keys_problem = gauge(
        "ingestor_keys_problem",
        "Whether the file of keys can't be used, so that those known before stay in force (1), or not (0).",
        "Read when scraped: what the last look at KEYS_FILE found.",
        unit="boolean",
    )
    pending = gauge(
        "ingestor_metrics_pending",
        "Metrics queued or being stored.",
        "Read when scraped: those that are acknowledged and not yet committed.",
        unit="metrics",
    )
    oldest_age = gauge(
        "ingestor_queue_oldest_age_seconds",
        "Age of the oldest pending metric.",
        "Read when scraped: time since the oldest metric that is not yet committed was taken; 0 without any.",
        unit="seconds",
    )
    pending_bytes = gauge(
        "ingestor_queue_bytes",
        "Memory that pending metrics take.",
        "Read when scraped.",
        unit="bytes",
    )
    capacity = gauge(
        "ingestor_queue_capacity",
        "Metrics that the queue holds at most (QUEUE_CAPACITY).",
        "Set once, when the queue is made.",
        unit="metrics",
    )
    waiting_requests = gauge(
        "ingestor_queue_waiting_requests",
        "Requests waiting for room in the queue.",
        "Read when scraped: each waits up to ADMISSION_WAIT.",
        unit="requests",
    )
    sync_seconds = histogram(
        "ingestor_journal_sync_seconds",
        "Seconds that writing to the disk journal took.",
        "Moves with each group of requests that is written to it: write, fdatasync, and until it was heard of.",
        unit="seconds",
        buckets=_SYNC_SECONDS,
    )
    journal_bytes = gauge(
        "ingestor_journal_bytes",
        "Size of the disk journal's files.",
        "Read when scraped: committed entries that are kept among it.",
        unit="bytes",
    )
    journal_bytes_max = gauge(
        "ingestor_journal_bytes_max",
        "What the disk journal's files may take at most (JOURNAL_BYTES_MAX).",
        "Set once, when the disk journal is opened.",
        unit="bytes",
    )
    journal_room = gauge(
        "ingestor_journal_room_bytes",
        "What the disk journal can still take, since committed entries make room.",
        "Read when scraped; 0 with JOURNAL=memory, too, where ingestor_journal_bytes_max is 0.",
        unit="bytes",
    )
    journal_gaps = gauge(
        "ingestor_journal_gap_entries",
        "Entries missing from the disk journal.",
        "Read when scraped: positions that should be there and are not (the log names them).",
        unit="entries",
    )
    rewinds = counter(
        "ingestor_journal_rewinds_total",
        "Times that the database's cursor was not where it was left.",
        "Moves when the database turns out to be at another place of the journal than we left it at.",
        unit="rewinds",
    )
    flush_failures = counter(
        "ingestor_flush_failures_total",
        "Flushes that failed and are tried again.",
        "Moves when a batch could not be stored, is kept and will be tried again.",
        unit="batches",
    )
    flush_rows = histogram(
        "ingestor_flush_rows",
        "Rows per committed batch.",
        "Moves with each committed batch.",
        unit="rows",
        buckets=_FLUSH_ROWS,
    )
    flush_seconds = histogram(
        "ingestor_flush_seconds",
        "Seconds that storing a batch took.",
        "Moves with each committed batch: from taking a connection until the commit.",
        unit="seconds",
        buckets=_FLUSH_SECONDS,
    )
    column_store_batches = counter(
        "ingestor_column_store_batches_total",
        "Batches written directly into the column store.",
        "Moves with each batch that was written into TimescaleDB's column store directly.",
        unit="batches",
    )
    column_store_fallbacks = counter(
        "ingestor_column_store_fallbacks_total",
        "Batches that the server refused to write into the column store.",
        "Moves with each batch meant for it that the server wrote into the row store (the log says why).",
        unit="batches",
    )
    tls_expiry = gauge(
        "ingestor_tls_certificate_expiry_timestamp_seconds",
        "When the TLS certificate in force expires, in seconds since 1970.",
        "Moves at the start and when changed files are taken; 0 without TLS.",
        unit="seconds",
    )
    tls_reload_failing = gauge(
        "ingestor_tls_reload_failing",
        "Whether changed TLS files can't be used (1), so that those before them stay in force.",
        "Moves when the files are looked at, every few seconds; the log says what is wrong.",
        unit="boolean",
    )
    tls_handshake_failures = counter(
        "ingestor_tls_handshake_failures_total",
        "TLS handshakes that failed.",
        "Moves when a client shows no certificate or one that is refused, does not trust ours, or speaks no TLS or"
        " an old one; not when it falls silent.",
        unit="handshakes",
    )
    tail_readers = gauge(
        "ingestor_tail_readers",
        "Calls of TailMetrics that are shown rows.",
        "Read when scraped.",
        unit="calls",
    )
    tail_dropped = counter(
        "ingestor_tail_dropped_rows_total",
        "Committed rows that were not shown to a reader of TailMetrics who asked for them.",
        "Moves when a row is committed for which a reader, who is too slow, has no room: for each such reader.",
        unit="rows",
    )
    loop_lag = histogram(
        "ingestor_event_loop_lag_seconds",
        "By how many seconds the event loop ran late, for which every call waits.",
        "Moves ten times a second: what is over 0.1 s is always seen, shorter stalls in part.",
        unit="seconds",
        buckets=_LAG_SECONDS,
    )

    def __init__(self) -> None:
        super().__init__()
        # A process-wide switch of the library; a second time series for every counter helps nobody.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._make_all()

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

    def watch_calls(self, **in_flight: Callable[[], float]) -> None:
        """Reads the calls under way of each protocol from its function whenever they are scraped."""
        for protocol, calls_in_flight in in_flight.items():
            self.calls_in_flight.labels(protocol).set_function(calls_in_flight)

    def count_rejected(self, rows: int) -> None:
        """So many more, by validation. What is taken is counted as received by the queue, in the moment in which it
        takes it."""
        if rows:
            self.received.inc(rows)
            self.rejected.inc(rows)

    def connection_cut_off(self, protocol: str, reason: str) -> None:
        """One more."""
        self.cut_off.labels(protocol, reason).inc()

    def watch_keys(self, *, valid: Callable[[], float], problem: Callable[[], float]) -> None:
        """Reads the gauges of keys from these functions whenever they are scraped."""
        self.keys_valid.set_function(valid)
        self.keys_problem.set_function(problem)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format, to be served as `CONTENT_TYPE`."""
        return generate_latest(self.registry)
