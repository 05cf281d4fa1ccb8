"""kill -9 of the server under load: what it has answered for is in the database, once, whenever it dies."""

from __future__ import annotations

import asyncio

import pytest

from ingestor.model.delivery import Ack
from tests.fault.conftest import Trial, rounds
from tests.fault.harness.gateway import gateway
from tests.fault.harness.requests import Mix
from tests.fault.harness.verdict import verdict

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(7_200)]
# A long run says now and then how far it is.
_TOLD_EVERY = 25


@pytest.mark.parametrize("ack", [Ack.JOURNALED, Ack.COMMITTED])
async def test_no_kill_loses_or_repeats_what_was_answered(ack: Ack, trial: Trial) -> None:
    """Killed at random moments under load, and now and then while it starts or replays: lost 0, twice 0, and each
    process's counters add up."""
    chance = trial.chance
    url = trial.postgresql.url(await trial.postgresql.fresh_database())
    turns = rounds(3)
    async with gateway(trial.home / "gateway", url, flush_interval="50ms") as server:
        load = trial.load([server], Mix(acks=[ack], sizes=(1, 5, 50, 200)), read_from=url)
        async with load.running():
            for turn in range(1, turns + 1):
                await load.until_rows(1)
                await asyncio.sleep(chance.uniform(0.0, 0.8))
                await server.kill()
                if chance.random() < 0.3:
                    await server.launch()
                    await asyncio.sleep(chance.uniform(0.3, 1.5))
                    await server.kill()
                await server.start()
                if turn % _TOLD_EVERY == 0:
                    print(f"round {turn} of {turns}: {load.ledger.acknowledged_rows} rows acknowledged")
        await server.settled()
        trial.report(await verdict(load, url, turns))
        assert not server.complaints()
