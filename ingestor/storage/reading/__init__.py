"""The read side of the database: connections of its own that can change nothing, and the queries."""

from ingestor.storage.reading.connections import ReadLimits
from ingestor.storage.reading.reader import DatabaseReader

__all__ = ["DatabaseReader", "ReadLimits"]
