"""From when until when a certificate holds, read from its DER; Python tells it of a peer's certificate alone.

It walks to the validity and no further, and refuses what is not laid out as X.509 has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

_SEQUENCE, _INTEGER, _VERSION = 0x30, 0x02, 0xA0
# UTCTime has two digits of the year, GeneralizedTime four (RFC 5280, 4.1.2.5).
_TIME_FORMS = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}


@dataclass(frozen=True, slots=True)
class Validity:
    """It holds from `begins` until `ends`."""

    begins: datetime
    ends: datetime


def validity(der: bytes) -> Validity:
    """That of a certificate. Raises ValueError for what is none."""
    certificate, _ = _inside(der, _SEQUENCE)
    rest, _ = _inside(certificate, _SEQUENCE)
    if rest[:1] == bytes([_VERSION]):
        _, rest = _inside(rest, _VERSION)
    for tag in (_INTEGER, _SEQUENCE, _SEQUENCE):  # serial number, algorithm, issuer
        _, rest = _inside(rest, tag)
    times, _ = _inside(rest, _SEQUENCE)
    begins, after = _time(times)
    ends, _ = _time(after)
    return Validity(begins, ends)


def _time(data: bytes) -> tuple[datetime, bytes]:
    tag = data[0] if data else 0
    if tag not in _TIME_FORMS:
        msg = "the validity of a certificate is no pair of times"
        raise ValueError(msg)
    text, rest = _inside(data, tag)
    return datetime.strptime(text.decode("ascii"), _TIME_FORMS[tag]).replace(tzinfo=UTC), rest


def _inside(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """What an element of this tag holds, and what follows it."""
    if len(data) < 2 or data[0] != tag:
        msg = f"no element {tag:#04x} where a certificate has one"
        raise ValueError(msg)
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start])
    end = start + length
    if end > len(data):
        msg = "the certificate is cut off"
        raise ValueError(msg)
    return data[start:end], data[end:]
