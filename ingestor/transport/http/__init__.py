"""The HTTP side, on aiohttp: transcoded rpcs, the probes and Prometheus' page."""

from ingestor.transport.http.server import HttpServer, Page, json_page

__all__ = ["HttpServer", "Page", "json_page"]
