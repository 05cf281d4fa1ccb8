"""gRPC's headers."""

from __future__ import annotations

import pytest

from ingestor.errors import Invalid
from ingestor.transport.grpc.headers import timeout_s


def test_timeouts_are_read_as_the_protocol_says() -> None:
    """At most 8 digits (any, also other scripts', would do for grpclib) and a unit."""
    assert timeout_s({}) is None
    assert timeout_s({"grpc-timeout": "99999999H"}) == 99_999_999 * 3600
    assert timeout_s({"grpc-timeout": "250m"}) == 0.25
    for text in ("\u0661S", "1S\n", "1S "):
        with pytest.raises(Invalid):
            timeout_s({"grpc-timeout": text})
