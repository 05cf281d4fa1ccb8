"""What is being stored, shown to those who watch: bounded for each of them, and never waited for."""

from ingestor.tail.hub import Tail
from ingestor.tail.watch import TailLimits

__all__ = ["Tail", "TailLimits"]
