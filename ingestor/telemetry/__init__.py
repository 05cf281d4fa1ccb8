"""What operators see: Prometheus metrics, logs and the answers of the probes."""

from ingestor.telemetry.health import Health
from ingestor.telemetry.loop_lag import measure_lag
from ingestor.telemetry.registry import Telemetry

__all__ = ["Health", "Telemetry", "measure_lag"]
