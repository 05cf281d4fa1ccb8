"""Page tokens: where a list went on to, bound to what was asked, as text that callers only hand back.

They keep nothing on the server, and nothing secret: a made-up one gives a place in the same list at most.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b

import orjson

from ingestor.errors import FieldViolation, Invalid
from ingestor.model.spans import SeriesKey

BEGINNING: SeriesKey = ("", "")
"""What lies before every series."""

_CHARACTERS_MAX = 2_048
_CHECK_BYTES = 8


def write_token(after: SeriesKey, *asked: str) -> str:
    """Goes on behind this series, for a list of which that was asked."""
    content = orjson.dumps(after)
    return urlsafe_b64encode(_check(content, asked) + content).decode().rstrip("=")


def read_token(token: str, *asked: str) -> SeriesKey:
    """Behind which series to go on; an empty token is the beginning. Raises Invalid for one that was not given for
    what is asked."""
    if not token:
        return BEGINNING
    try:
        if len(token) > _CHARACTERS_MAX:
            raise ValueError
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        check, content = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if check != _check(content, asked):
            raise ValueError
        place = orjson.loads(content)
        if not isinstance(place, list) or [type(name) for name in place] != [str, str]:
            raise ValueError
    except ValueError:
        problem = "is none that was given for these prefixes: begin without one"
        raise Invalid.fields([FieldViolation("page_token", problem)]) from None
    return place[0], place[1]


def _check(content: bytes, asked: tuple[str, ...]) -> bytes:
    return blake2b(
        orjson.dumps([content.decode(errors="replace"), *asked]), digest_size=_CHECK_BYTES
    ).digest()
