"""Where acknowledged metrics wait for the database. One contract; memory keeps it for as long as we live."""

from ingestor.journal.admission import QueueLimits
from ingestor.journal.memory import MemoryJournal
from ingestor.journal.request_ids import RequestIds

__all__ = ["MemoryJournal", "QueueLimits", "RequestIds"]
