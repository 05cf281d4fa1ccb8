"""One key as it is kept, and all of them as they are looked up. Nothing here holds a secret."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, field_validator

from ingestor.access.scopes import scopes
from ingestor.access.secret_text import ID, digest, id_of

KEYS_MAX = 10_000
State = Literal["valid", "expired", "revoked"]

_Id = Annotated[str, StringConstraints(pattern=f"^{ID.pattern}$")]
_Text = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
_Rate = Annotated[float, Field(gt=0, le=1e9)]
_NOBODY = "0" * 64


class Key(BaseModel):
    """`caller` is who uses it: a key that takes another's place keeps that one's, and with it its rates and the
    request_ids that were used. Rates and `series_per_hour` are None where there are none of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: _Id
    caller: _Id
    name: _Text
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    created: AwareDatetime
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None
    scopes: Annotated[tuple[str, ...], Field(min_length=1, max_length=100)]
    requests_per_s: _Rate | None = None
    metrics_per_s: _Rate | None = None
    series_per_hour: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    certificate_names: Annotated[tuple[_Text, ...], Field(max_length=100)] = ()

    @field_validator("scopes")
    @classmethod
    def _known(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        scopes(words)
        return words

    def state(self, now: datetime) -> State:
        """What it is good for at this moment."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"


class Keys:
    """All keys of a file, in their order. Raises ValueError for two of one id."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self.all: Sequence[Key] = tuple(keys)
        self._by_id = {key.id: key for key in self.all}
        if len(self._by_id) < len(self.all):
            msg = "two keys have one id"
            raise ValueError(msg)
        self._with_certificates = [key for key in self.all if key.certificate_names and key.revoked is None]

    def get(self, id_: str) -> Key | None:
        """The key of this id, whatever its state."""
        return self._by_id.get(id_)

    def of_secret(self, text: str) -> Key | None:
        """The key, whatever its state, whose secret this is. The time that it takes tells nothing of the secret."""
        id_ = id_of(text)
        key = None if id_ is None else self._by_id.get(id_)
        same = hmac.compare_digest(digest(text), _NOBODY if key is None else key.sha256)
        return key if same else None

    def of_certificate(self, names: Collection[str], now: datetime) -> Key | None:
        """The key that stands for who showed a certificate with these names: the last valid one, which is the
        newest; without any, the last that has expired."""
        if not names:
            return None
        found = [
            key
            for key in reversed(self._with_certificates)
            if any(name in names for name in key.certificate_names)
        ]
        return next((key for key in found if key.state(now) == "valid"), next(iter(found), None))
