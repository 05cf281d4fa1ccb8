"""What has to be allowed to a key for each rpc and page. What is not named here needs `admin`: a new rpc is
closed until somebody has thought about who may call it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ingestor.access import Need

_ANALYTICS = "/analytics.v1.AnalyticsService"
_HEALTH = "/grpc.health.v1.Health"

NEEDS: Mapping[str, Need] = MappingProxyType(
    {
        # These look at each service name.
        f"{_ANALYTICS}/LogMetric": Need.WRITE,
        f"{_ANALYTICS}/LogMetrics": Need.WRITE,
        f"{_ANALYTICS}/WriteSeries": Need.WRITE,
        f"{_ANALYTICS}/StreamMetrics": Need.WRITE,
        f"{_ANALYTICS}/QueryMetrics": Need.READ,
        f"{_ANALYTICS}/ListSeries": Need.READ,
        f"{_ANALYTICS}/TailMetrics": Need.READ,
        # Probes have no keys.
        f"{_HEALTH}/Check": Need.NOTHING,
        f"{_HEALTH}/Watch": Need.NOTHING,
        "/healthz": Need.NOTHING,
        "/readyz": Need.NOTHING,
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": Need.A_KEY,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Need.A_KEY,
        # They tell of all services.
        "/metrics": Need.READ_ALL,
        "/openapi.json": Need.READ,
        "/docs": Need.READ,
        "/docs/start.js": Need.READ,
        "/docs/swagger-ui.js": Need.READ,
        "/docs/swagger-ui.css": Need.READ,
    }
)

# With a key in one of two ways, or without where none are needed: the first key may come while a server runs.
_SECURITY: Sequence[Mapping[str, Sequence[str]]] = [{"bearer": []}, {"key": []}, {}]
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key of `ingestor keys create`."},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same key."},
}


def with_security(document: Mapping[str, Any]) -> dict[str, Any]:
    """The OpenAPI document, which also says how a key is sent."""
    components = {**document.get("components", {}), "securitySchemes": _SCHEMES}
    return {**document, "security": _SECURITY, "components": components}
