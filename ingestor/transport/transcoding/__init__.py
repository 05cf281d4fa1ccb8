"""HTTP/JSON into rpcs by their google.api.http rules (google/api/http.proto), as grpc-gateway does it.

It knows rpcs and descriptors, no web framework and no API in particular. What it can't map it refuses when
the routes are made, with the rpc's name. It answers unary calls.
"""

from ingestor.transport.transcoding.printable import printable
from ingestor.transport.transcoding.routes import Matched, Route, Router
from ingestor.transport.transcoding.texts import unbased

__all__ = ["Matched", "Route", "Router", "printable", "unbased"]
