"""What a dead letter keeps of a row: all of it, exactly, in every database."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime
from typing import Any

import pytest

from ingestor.model import MetricBatch, Row, label_set
from ingestor.timestamps import microseconds
from tests.conftest import fresh_database
from tests.storage.deliveries import Gateway, Reader, batch_of, connected, count_in, opened, placed, row

# All but the good ones, so that it is the row that counts and not what is wrong with it.
_ALL = "ALTER TABLE metrics ADD CONSTRAINT good CHECK (service_name = 'good')"
VALUES = [0.1, -0.0, 5e-324, -1.7976931348623157e308, 1 / 3, 2.0**53 + 2, 1e23]


async def letters(reader: Reader) -> list[dict[str, Any]]:
    """The metrics that are kept, in the order of their rows."""
    found = await reader.fetch('SELECT metric::text FROM dead_letters ORDER BY position, "row"')
    return [json.loads(each[0]) for each in found]


async def test_values_are_kept_to_the_last_bit(gateway: Gateway, reader: Reader) -> None:
    """Signed zeros, the smallest and the largest doubles, and those that decimal digits only just tell apart."""
    await reader.execute(_ALL)
    await gateway.store(batch_of(*VALUES))
    kept = [float(each["value"]) for each in await letters(reader)]
    assert [struct.pack(">d", value) for value in kept] == [struct.pack(">d", value) for value in VALUES]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
async def test_what_json_has_no_number_for_is_kept_as_text(
    gateway: Gateway, reader: Reader, value: float
) -> None:
    """As the API's JSON has it and Python's float() reads it."""
    await reader.execute(_ALL)
    await gateway.store(batch_of(value))
    [kept] = await letters(reader)
    assert str(float(kept["value"])) == str(value)
    assert isinstance(kept["value"], str)


async def test_the_whole_metric_is_kept(gateway: Gateway, reader: Reader) -> None:
    """Service, name, labels in any script, and the time to the microsecond; with the request and the place."""
    await reader.execute(_ALL)
    labels = label_set({"region": 'q"\\\u2028é', "\U0001f600": "漢字"})
    moments = [datetime(1969, 7, 20, 20, 17, 40, 1, UTC), datetime(2026, 11, 24, 12, 0, 0, 999_999, UTC)]
    rows = [row(0.0, service="good")]
    rows += [Row(microseconds(moment), "sérvice", "näme", 1.0, labels.id) for moment in moments]
    rows.append(row(2.0))
    await gateway.store(
        MetricBatch.of_rows(rows, {labels.id: labels.document}), [placed(1, 1, "r\u20ac"), placed(3, 1, "q")]
    )
    kept = await letters(reader)
    assert [each["labels"] for each in kept] == [
        {"region": 'q"\\\u2028é', "\U0001f600": "漢字"},
        {"region": 'q"\\\u2028é', "\U0001f600": "漢字"},
        {},
    ]
    assert {(each["service_name"], each["metric_name"]) for each in kept[:2]} == {("sérvice", "näme")}
    assert [datetime.fromisoformat(each["time"]) for each in kept[:2]] == moments
    found = await reader.fetch('SELECT * FROM dead_letters ORDER BY "row"')
    assert [each["row"] for each in found] == [1, 2, 3]
    assert [each["request_id"] for each in found] == ["r\u20ac".encode(), None, b"q"]
    assert [each["time"] for each in found[:2]] == moments
    assert {(each["journal"], each["position"], each["sqlstate"]) for each in found} == {
        (gateway.journal, 1, "23514")
    }


async def test_thousands_are_kept_in_pieces(gateway: Gateway, reader: Reader) -> None:
    """More than are written at once: each row once."""
    await reader.execute(_ALL)
    await gateway.store(batch_of(*range(5_001)))
    assert [each["value"] for each in await letters(reader)] == [float(number) for number in range(5_001)]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_JP"])
async def test_every_encoding_can_keep_them(postgres: str, encoding: str) -> None:
    """A reason that quotes what the database lacks, and texts in scripts that it lacks, are kept in ASCII."""
    options = f"ENCODING '{encoding}' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"
    labels = label_set({"price": "10 \u20ac"})
    made = [row(1.0, service="\U0001f600"), row(2.0, label_set_id=labels.id), row(3.0, service="good")]
    async with (
        fresh_database(postgres, options) as url,
        opened(url) as database,
        connected(url) as reader,
    ):
        await reader.execute("SET client_encoding = 'UTF8'")
        await reader.execute(_ALL)
        outcome = await Gateway(database).store(
            MetricBatch.of_rows(made, {labels.id: labels.document}), [placed(0, 3, "\u20ac")]
        )
        assert [each.row for each in outcome.dead] == [0, 1]
        kept = await letters(reader)
        assert (kept[0]["service_name"], kept[1]["labels"]) == ("\U0001f600", {"price": "10 \u20ac"})
        assert await count_in(reader, "metrics") == 1
