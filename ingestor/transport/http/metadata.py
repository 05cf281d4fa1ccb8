"""Headers of HTTP as metadata of calls and back, as grpc-gateway names them: `Grpc-Metadata-X` is the metadata x.

Of other headers those that a key comes in are passed on, and no more: no method should come to depend on what
proxies add.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable

from loguru import logger

from ingestor.errors import Invalid
from ingestor.metadata import Value
from ingestor.transport.admission import KEY_NAMES, not_ascii
from ingestor.transport.http.entrance import Header
from ingestor.transport.transcoding import printable, unbased

_PREFIX = "Grpc-Metadata-"
_PREFIX_BYTES, _PREFIX_LENGTH = _PREFIX.lower().encode(), len(_PREFIX)
_KEYS = {name.encode(): name for name in KEY_NAMES}
_KEY_LENGTHS = frozenset(map(len, _KEYS))
_BINARY = "-bin"
_NAME, _TEXT = re.compile(r"[0-9a-z_.-]+"), re.compile(r"[ -~]*")


def sifted(headers: Iterable[Header]) -> tuple[int, list[Header]]:
    """The bytes that these headers take, and those of them that are metadata, for `received`."""
    size, carried = 0, list[Header]()
    for header in headers:
        name, value = header
        length = len(name)
        size += length + len(value)
        if length > _PREFIX_LENGTH:
            if name[:_PREFIX_LENGTH].lower() == _PREFIX_BYTES:
                carried.append(header)
        elif length in _KEY_LENGTHS and name.lower() in _KEYS:
            carried.append(header)
    return size, carried


def received(carried: Iterable[Header]) -> dict[str, list[Value]]:
    """The metadata in these headers. Raises Invalid or Unauthenticated."""
    found: dict[str, list[Value]] = {}
    for header, value in carried:
        if (name := _KEYS.get(header.lower())) is not None:
            # First, whatever else comes under its name: it is what proxies look at.
            found.setdefault(name, []).insert(0, _key_text(name, value))
        else:
            key = header[_PREFIX_LENGTH:].lower().decode("latin-1")
            found.setdefault(key, []).extend(_values(key, value))
    return found


def sent(metadata: Iterable[tuple[str, Value]]) -> list[tuple[str, str]]:
    """The headers for metadata that goes back. What can't be one is left out and logged: the method has done its
    work by now."""
    headers = []
    for name, value in metadata:
        text = base64.b64encode(value).decode() if isinstance(value, bytes) else value
        fits = isinstance(value, bytes) is name.endswith(_BINARY)
        if fits and _NAME.fullmatch(name) and _TEXT.fullmatch(text):
            headers.append((_PREFIX + name, text))
        else:
            logger.error("metadata that no header can carry was not sent: {!r}", name)
    return headers


def _values(key: str, value: bytes) -> list[Value]:
    text = _text(key, value)
    if not key.endswith(_BINARY):
        return [text]
    try:
        return [unbased(each.strip()) for each in text.split(",")]
    except ValueError:
        msg = f"the header {_PREFIX}{printable(key)} must be base64"
        raise Invalid(msg) from None


def _key_text(name: str, value: bytes) -> str:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        raise not_ascii(name) from None


def _text(key: str, value: bytes) -> str:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        msg = (
            f"the header of {printable(key)} is not ASCII: send it in base64, under a name that ends in -Bin"
        )
        raise Invalid(msg) from None
