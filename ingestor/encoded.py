"""A message's list that can be written at once, as protobuf's bytes and as JSON, by who has it as columns.

Whoever answers may give it for a list; it is read like one, but slowly, and can't be changed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar

ItemT = TypeVar("ItemT")


class Encoded(Sequence[ItemT]):
    """Items of a repeated field."""

    @property
    @abstractmethod
    def wire(self) -> bytes:
        """The field as it stands in the message's bytes, tags included."""

    @property
    @abstractmethod
    def json(self) -> bytes:
        """The list as proto3 JSON has it."""
