"""The read side of the API: requests become questions, and what is found becomes answers. It asks nobody itself but
the ports that it is given."""

from ingestor.reading.reads import Reads

__all__ = ["Reads"]
