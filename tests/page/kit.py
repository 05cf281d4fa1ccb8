"""What the tests of the page share: how it is reached, what is sent, and how it is looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.gateway import Gateway

SOUND = (Path(__file__).parent / "soundness.js").read_text()
STATE = "document.body.dataset.state"
# What a chart has drawn, as text.
DRAWN = "document.querySelector('{} canvas').toDataURL()"


def url(running: Gateway) -> str:
    return f"http://{running.host}:{running.http_port}/"


def several(service: str, metric: str, count: int) -> dict[str, Any]:
    return {
        "metrics": [
            {"serviceName": service, "metricName": metric, "value": 40 + number} for number in range(count)
        ]
    }


async def send(
    running: Gateway, *, service: str = "checkout", metric: str = "latency_ms", count: int = 50
) -> None:
    """Stores so many of them."""
    body = {**several(service, metric, count), "ack": "ACK_LEVEL_COMMITTED"}
    assert (await running.post("/v1/metrics:batch", body))[0] == 200
