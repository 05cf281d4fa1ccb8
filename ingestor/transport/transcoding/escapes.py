"""Percent-decoding (RFC 3986, 2.1) that refuses what is no escape or no UTF-8, where urllib's lets it stand.

It decodes pieces of a URL that were cut already: what an escape stands for never separates anything.
"""

from __future__ import annotations

import re

from ingestor.errors import Invalid
from ingestor.transport.transcoding.printable import printable

_BROKEN = re.compile("%(?![0-9A-Fa-f]{2})")
_ESCAPES = re.compile(rb"%[0-9A-Fa-f]{2}")
_ESCAPES_BUT_SLASH = re.compile(rb"%(?!2[Ff])[0-9A-Fa-f]{2}")


def unescaped(text: str, *, slashes: bool = True) -> str:
    """The text with its escapes decoded; without `slashes`, %2F and %2f stay as they are. Raises Invalid."""
    if text.isascii() and "%" not in text:
        return text
    if _BROKEN.search(text):
        msg = f"{printable(text)} holds a % that is no escape: write it as %25"
        raise Invalid(msg)
    escapes = _ESCAPES if slashes else _ESCAPES_BUT_SLASH
    try:
        # What is no UTF-8 as it was sent reaches us as surrogates.
        data = text.encode(errors="surrogateescape")
        return escapes.sub(lambda escape: bytes.fromhex(escape[0][1:].decode()), data).decode()
    except UnicodeError:
        msg = f"{printable(text)} is not UTF-8"
        raise Invalid(msg) from None
