"""The catalogue of series catches up in steps, none of which holds up the others for long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from ingestor.errors import StorageUnavailable
from ingestor.model import MetricBatch, Row
from ingestor.model.spans import Spans
from ingestor.storage import repository as repository_module
from ingestor.storage.database import Database
from ingestor.storage.transactions import AnyConnection
from ingestor.timestamps import microseconds
from tests.storage.deliveries import NOW, Gateway, Reader


def _batch(moment: datetime, services: Sequence[str]) -> MetricBatch:
    return MetricBatch.of_rows([Row(microseconds(moment), each, "m", 1.0) for each in services], {})


class _Behind(Gateway):
    """With the times of series that were stored twice, of which a transaction that catches up writes two."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(database)
        monkeypatch.setattr(repository_module, "WRITTEN_MAX", 2)
        self.patched = monkeypatch
        self.tried = 0
        self.write = self.repository._catalogue.write

    async def store_twice(self, *services: str) -> None:
        for seconds in (0, 1):
            moment = NOW + timedelta(seconds=seconds)
            await self.store(_batch(moment, services))
        self.patched.setattr(self.repository._catalogue, "write", self.count)

    async def count(self, connection: AnyConnection, spans: Spans) -> None:
        self.tried += 1
        await self.write(connection, spans)

    def left(self) -> list[str]:
        """Of which services the catalogue is behind."""
        names = self.repository._catalogue.overdue(all_=True).written.names
        return sorted(name.partition("\0")[0] for name in names)


async def test_catching_up_that_is_given_up_goes_on_later(
    database: Database, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what is left: many series would otherwise never be written in the time there is."""
    monkeypatch.setattr(repository_module, "WRITTEN_MAX", 2)
    gateway, services = Gateway(database), ["b", "a", "ab", "e", "d"]
    later = NOW + timedelta(seconds=1)
    for moment in (NOW, later):
        await gateway.store(_batch(moment, services))
    catalogue = gateway.repository._catalogue
    write, written = catalogue.write, list[str]()

    async def write_two(connection: AnyConnection, spans: Spans) -> None:
        if written:
            raise TimeoutError
        await write(connection, spans)
        written.extend(spans.names)

    with monkeypatch.context() as broken:
        broken.setattr(catalogue, "write", write_two)
        with pytest.raises(StorageUnavailable):
            await gateway.repository.catch_up(all_=True)
    left = catalogue.overdue(all_=True).written.names
    assert (len(written), len(left)) == (2, 3)
    assert sorted(written + left) == [f"{each}\0m" for each in sorted(services)]
    await gateway.repository.catch_up(all_=True)
    rows = await reader.fetch("SELECT service_name, last_time FROM metric_series ORDER BY service_name")
    assert [tuple(row) for row in rows] == [(each, later) for each in sorted(services)]


async def test_a_row_that_is_locked_holds_up_few(
    database: Database, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are written with it; what is behind them is written, and then it is told."""
    gateway = _Behind(database, monkeypatch)
    await gateway.store_twice("a", "b", "c", "d", "e")
    async with reader.transaction(), asyncio.timeout(20):
        await reader.execute("SELECT FROM metric_series WHERE service_name = 'b' FOR UPDATE")
        with pytest.raises(StorageUnavailable, match="lock timeout"):
            await gateway.repository.catch_up(all_=True)
    assert len(held := gateway.left()) == 2
    assert "b" in held
    late = "SELECT service_name FROM metric_series WHERE last_time = $1"
    written = [row[0] for row in await reader.fetch(late, NOW + timedelta(seconds=1))]
    assert sorted(written + held) == ["a", "b", "c", "d", "e"]
    await gateway.repository.catch_up(all_=True)
    assert gateway.left() == []


async def test_a_table_that_is_locked_is_not_tried_for_ever(
    database: Database, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few are tried, each for a moment."""
    gateway = _Behind(database, monkeypatch)
    monkeypatch.setattr(repository_module, "_HELD_UP_MAX", 2)
    await gateway.store_twice("a", "b", "c", "d", "e")
    async with reader.transaction(), asyncio.timeout(20):
        await reader.execute("LOCK TABLE metric_series")
        with pytest.raises(StorageUnavailable, match="lock timeout"):
            await gateway.repository.catch_up(all_=True)
    assert (gateway.tried, gateway.left()) == (2, ["a", "b", "c", "d", "e"])


async def test_a_database_that_is_gone_is_tried_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has nothing to do with these rows holds up the others, too."""
    gateway = _Behind(database, monkeypatch)

    async def end(connection: AnyConnection, written: Spans) -> None:
        await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr(gateway, "write", end)
    await gateway.store_twice("a", "b", "c")
    with pytest.raises(StorageUnavailable):
        await gateway.repository.catch_up(all_=True)
    assert gateway.tried == 1
