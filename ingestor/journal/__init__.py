"""Where acknowledged metrics wait for the database. One contract: memory keeps it for as long as we live, a
disk beyond that."""

from ingestor.journal.admission import QueueLimits
from ingestor.journal.disk import DiskJournal
from ingestor.journal.memory import MemoryJournal
from ingestor.journal.request_ids import RequestIds

__all__ = ["DiskJournal", "MemoryJournal", "QueueLimits", "RequestIds"]
