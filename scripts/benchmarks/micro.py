"""What each step of the bulk path costs for one row, alone, on one core."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from benchmarks.workload import Workload, message_class
from ingestor.model import Limits, MetricBatch, Rules
from ingestor.model.columns import ColumnRules
from ingestor.storage.copy import NativeEncoder, ReferenceEncoder, native_available
from ingestor.storage.series import by_series, series_codes
from ingestor.transport import columns as decoders

_ROWS = 20_000
_MESSAGE = 1_000
_REPEATS = 5


@dataclass(frozen=True, slots=True)
class Cost:
    """A step's cost in microseconds a row, the least of some repeats."""

    step: str
    us: float


def costs(labels: int) -> list[Cost]:
    """Decoding, validating, sorting and encoding metrics with so many labels."""
    workload = Workload(_ROWS, labels=labels)
    bodies = workload.log_metrics(_MESSAGE)
    kind = message_class("LogMetricsRequest")
    decoder_class = decoders.NativeDecoder if decoders.native_available() else decoders.ReferenceDecoder
    decoder = decoder_class(kind.DESCRIPTOR)
    metrics = [decoder.decode(body).column("metrics").values for body in bodies]
    rules, now = ColumnRules(Rules(Limits())), datetime.now(UTC)
    batches = [checked.batch for each in metrics if (checked := rules.check(each, now)).batch is not None]
    joined = MetricBatch.concat(batches)
    encoder = NativeEncoder() if native_available() else ReferenceEncoder()

    def sort() -> object:
        codes, bound = series_codes(joined.columns)
        return by_series(joined.columns, codes, bound)

    steps: dict[str, Callable[[], object]] = {
        "parse strictly (upb)": lambda: [kind.FromString(body) for body in bodies],
        "decode to columns": lambda: [decoder.decode(body) for body in bodies],
        "validate, labels to ids" if labels else "validate": lambda: [
            rules.check(each, now) for each in metrics
        ],
        "join": lambda: MetricBatch.concat(batches),
        "sort by series and time": sort,
        "encode for COPY": lambda: b"".join(encoder.encode(joined.columns)),
    }
    return [Cost(name, _least(step) / _ROWS * 1e6) for name, step in steps.items()]


def _least(step: Callable[[], object]) -> float:
    step()
    took = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        step()
        took.append(time.perf_counter() - began)
    return min(took)
