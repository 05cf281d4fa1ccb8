"""A rolling restart of two gateways: clients that retry as usual are all answered, and every row is stored once."""

from __future__ import annotations

import asyncio

import pytest

from tests.fault.conftest import Trial, rounds
from tests.fault.harness.gateway import Gateway, gateway
from tests.fault.harness.retrying_load import RetryingLoad
from tests.fault.harness.verdict import verdict

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(7_200)]


async def test_a_rolling_restart_under_load(trial: Trial) -> None:
    """One gateway after the other gets SIGTERM, ends with 0 and is started again, while unary calls, streams and
    HTTP go on: every request gets its answer, also those without a request_id, and every row is stored once."""
    url = trial.postgresql.url(await trial.postgresql.fresh_database())
    turns = rounds(1)
    async with gateway(trial.home / "one", url) as one, gateway(trial.home / "two", url) as two:
        load = RetryingLoad([one.target(), two.target()], trial.seed)
        async with load.running():
            for _ in range(turns):
                for each in (one, two):
                    await takes_requests(each)
                    await asyncio.sleep(trial.chance.uniform(0.0, 0.5))
                    assert await each.terminate() == 0
                    assert not each.complaints()
                    await each.start()
            await takes_requests(one)
            await takes_requests(two)
        for each in (one, two):
            await each.settled()
            assert not each.complaints()
    trial.report(await verdict(load, url, turns))
    assert load.failed() == []
    # Each restart ended streams that had requests on their way.
    assert load.sent_again >= 2 * turns


async def takes_requests(server: Gateway) -> None:
    """Waits until it has its share of the load again."""
    async with asyncio.timeout(30):
        while (await server.counters())["received"] < 100:
            await asyncio.sleep(0.05)
