"""Keys for tests, with their secrets, and a gate for them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ingestor.access import Gate, Key, Keys, Need
from ingestor.access.secret_text import digest, new_id, new_text

NOW = datetime(2026, 5, 1, tzinfo=UTC)
NEEDS = {
    "/open": Need.NOTHING,
    "/any": Need.A_KEY,
    "/write": Need.WRITE,
    "/read": Need.READ,
    "/all": Need.READ_ALL,
}


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.s = NOW.timestamp()

    def __call__(self) -> float:
        return self.s


def make(*words: str, **fields: Any) -> tuple[Key, str]:
    """A key with these scopes, and its secret."""
    id_ = new_id()
    text = new_text(id_)
    usual = {"id": id_, "caller": id_, "name": "n", "sha256": digest(text), "created": NOW}
    return Key.model_validate({**usual, "scopes": words or ("write", "read"), **fields}), text


def bearer(text: str) -> dict[str, list[str | bytes]]:
    return {"authorization": [f"Bearer {text}"]}


def gate(*keys: Key, clock: Clock | None = None) -> Gate:
    clock = clock or Clock()
    return Gate(NEEDS, Keys(keys), wall=clock, clock=clock)


def revoked(key: Key) -> Key:
    """The same, revoked."""
    return key.model_copy(update={"revoked": NOW})
