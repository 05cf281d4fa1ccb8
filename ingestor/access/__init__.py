"""Keys: who holds them, what they allow, and whether a call with one may come in. Pure but for the file of keys,
which `file` reads and writes; it knows neither protocols nor metrics."""

from ingestor.access.file import KeysFile, KeysProblem
from ingestor.access.gate import Gate
from ingestor.access.keys import Key, Keys
from ingestor.access.needs import Need
from ingestor.access.watch import Watch

__all__ = ["Gate", "Key", "Keys", "KeysFile", "KeysProblem", "Need", "Watch"]
