"""The HTTP side, on aiohttp: transcoded rpcs, their documentation, the probes and Prometheus' page."""

from ingestor.transport.http.docs import documentation
from ingestor.transport.http.pages import Content, Page, fixed_page, json_page
from ingestor.transport.http.server import HttpServer

__all__ = ["Content", "HttpServer", "Page", "documentation", "fixed_page", "json_page"]
