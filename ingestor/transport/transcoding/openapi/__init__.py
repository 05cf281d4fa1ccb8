"""The OpenAPI 3.1 document of an API, made from its descriptors and its google.api.http rules alone.

It describes what is served, and enforces nothing; limits that a service sets are told where its proto's comments
tell them.
"""

from ingestor.transport.transcoding.openapi.document import Info, describe

__all__ = ["Info", "describe"]
