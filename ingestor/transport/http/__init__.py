"""The HTTP side, on aiohttp: transcoded rpcs, the probes and Prometheus' page."""

from ingestor.transport.http.answers import json_page
from ingestor.transport.http.server import HttpServer, Page

__all__ = ["HttpServer", "Page", "json_page"]
