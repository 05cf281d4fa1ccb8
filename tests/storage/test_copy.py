"""The COPY encoders: one contract, two implementations, the same bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.model import MetricBatch, Row
from ingestor.storage.copy import Encoder, NativeEncoder, ReferenceEncoder, native_available

rows = st.builds(
    Row,
    st.integers(-(2**50), 2**50),
    st.text(max_size=300),
    st.text(max_size=3),
    st.floats(),
    st.integers(0, 2**63 - 1),
)


@pytest.mark.skipif(not native_available(), reason="pgpq has no wheel here")
@given(st.lists(rows, min_size=1, max_size=20))
def test_both_encoders_agree(made: list[Row]) -> None:
    """Byte for byte, for whatever a row can hold."""
    columns = MetricBatch.of_rows(made, {}).columns
    assert b"".join(NativeEncoder().encode(columns)) == b"".join(ReferenceEncoder().encode(columns))


def test_the_format_is_postgresqls() -> None:
    """By hand: signature, flags, extension length; field count, lengths and big-endian values; -1 at the end."""
    columns = MetricBatch.of_rows([Row(946_684_800_000_001, "é", "m", 1.0, 7)], {}).columns
    assert b"".join(ReferenceEncoder().encode(columns)) == bytes.fromhex(
        "5047434f50590aff0d0a00 00000000 00000000"
        "0005 00000008 0000000000000001 00000002 c3a9 00000001 6d 00000008 3ff0000000000000"
        "00000008 0000000000000007 ffff"
    )


@pytest.mark.parametrize("count", [20_000, 20_001, 45_000])
def test_slices_join_to_the_whole(count: int) -> None:
    """No row is lost or doubled at a slice's edge, and no piece holds more than a slice."""
    columns = MetricBatch.of_rows(
        [Row(number, "s", "m", float(number)) for number in range(count)], {}
    ).columns
    encoders: list[Encoder] = [ReferenceEncoder()]
    if native_available():
        encoders.append(NativeEncoder())
    for encoder in encoders:
        pieces = list(encoder.encode(columns))
        assert sum(map(len, pieces)) == 19 + count * 48 + 2
        assert max(map(len, pieces)) <= 2 * 20_000 * 48 + 2  # pgpq may keep one slice back
