"""HTTP/JSON into rpcs by their google.api.http rules (google/api/http.proto), as grpc-gateway does it.

It knows rpcs and descriptors, no web framework and no API in particular. What it can't map it refuses when
the routes are made, with the rpc's name: so far that is all but literal paths with `body: "*"`.
"""

from ingestor.transport.transcoding.printable import printable
from ingestor.transport.transcoding.routes import Route, Router

__all__ = ["Route", "Router", "printable"]
