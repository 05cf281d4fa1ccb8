"""Reads how long a caller waits, as both protocols say it in their header grpc-timeout.

Format: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Requests".
"""

from __future__ import annotations

import re

from ingestor.errors import Invalid

_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNIT_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def seconds_of(text: str) -> float:
    """The seconds that this header's value gives a call. Raises Invalid for what is not a timeout."""
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        msg = "grpc-timeout must be at most 8 digits and one of H, M, S, m, u, n"
        raise Invalid(msg)
    return int(match[1]) * _UNIT_S[match[2]]
