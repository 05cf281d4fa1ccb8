"""Where acknowledged metrics wait for the database. One contract; memory keeps it for as long as we live."""

from ingestor.journal.memory import Entry, MemoryJournal, QueueLimits

__all__ = ["Entry", "MemoryJournal", "QueueLimits"]
