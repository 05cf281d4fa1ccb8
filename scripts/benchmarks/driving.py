"""Drives a server with connections of one kind: as fast as it answers, or at a steady rate whatever it does."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

OnAnswer = Callable[[float], None]
_PATIENCE_S = 120.0
_WARM_UP_S = 0.5


class Connection(Protocol):
    """What `grpc_client` and `http_client` have in common."""

    failures: int
    problem: str

    @property
    def in_flight(self) -> int: ...
    @property
    def idle(self) -> bool: ...
    def open(self, calls: int) -> None: ...
    def stop(self) -> None: ...
    def call(self, due_s: float) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Target:
    """Where to connect, how often, and which protocol makes a connection. `calls` are in flight on each."""

    port: int
    connect: Callable[[OnAnswer], asyncio.Protocol]
    connections: int = 4
    calls: int = 16


@dataclass
class Answers:
    """What came back: latencies in seconds, in their order."""

    latencies_s: list[float] = field(default_factory=list)

    def percentile_ms(self, share: float) -> float:
        """The latency that so large a share of the calls did not exceed."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e3


async def rate(target: Target, seconds: float) -> float:
    """Answers a second in a closed loop, after a warm-up. Raises RuntimeError when a call fails."""
    answers = Answers()
    connections = await _connected(target, answers.latencies_s.append)
    for connection in connections:
        connection.open(target.calls)
    await asyncio.sleep(_WARM_UP_S)
    before, began = len(answers.latencies_s), time.perf_counter()
    await asyncio.sleep(seconds)
    answered, took = len(answers.latencies_s) - before, time.perf_counter() - began
    await _finished(connections)
    return answered / took


async def until_answered(target: Target, requests: int) -> Answers:
    """Sends so many requests in a closed loop. Raises RuntimeError when a call fails."""
    answers = Answers()
    done = asyncio.Event()

    def on_answer(latency_s: float) -> None:
        answers.latencies_s.append(latency_s)
        if len(answers.latencies_s) + in_flight >= requests:
            for connection in connections:
                connection.stop()
        if len(answers.latencies_s) >= requests:
            done.set()

    in_flight = target.connections * target.calls - 1
    connections = await _connected(target, on_answer)
    for connection in connections:
        connection.open(target.calls)
    while not done.is_set() and not any(connection.failures for connection in connections):
        try:
            await asyncio.wait_for(done.wait(), 0.5)
        except TimeoutError:
            continue
    await _finished(connections)
    return answers


async def steady(target: Target, per_second: float, seconds: float) -> Answers:
    """Calls at the times at which they are due, also when earlier ones are not answered; latencies count from
    then. Raises RuntimeError when a call fails, or had no connection to go out on."""
    answers = Answers()
    connections = await _connected(target, answers.latencies_s.append)
    turns, late = deque(connections), deque[float]()

    def send(dues_s: Sequence[float]) -> None:
        late.extend(dues_s)
        while late and (free := next((each for each in turns if each.idle), None)) is not None:
            free.call(late.popleft())
            turns.rotate(-1)

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(
        _pace, per_second, seconds, lambda dues_s: loop.call_soon_threadsafe(send, dues_s)
    )
    ends_at = time.monotonic() + _PATIENCE_S
    while late and time.monotonic() < ends_at:  # HTTP/1.1: all are busy, so the call is late, and that shows
        send(())
        await asyncio.sleep(0.001)
    await _finished(connections)
    if late:
        msg = f"{len(late)} calls had no connection to go out on"
        raise RuntimeError(msg)
    return answers


def _pace(per_second: float, seconds: float, tell: Callable[[list[float]], object]) -> None:
    """Tells which calls are due, when they are. Sleeps in a thread: an event loop's timers have milliseconds, and
    asked for less it would spin on a core that the server needs."""
    began_s, told, count = time.perf_counter(), 0, int(per_second * seconds)
    while told < count:
        if (wait_s := began_s + told / per_second - time.perf_counter()) > 0:
            time.sleep(wait_s)
        until = min(count, int((time.perf_counter() - began_s) * per_second) + 1)
        tell([began_s + number / per_second for number in range(told, until)])
        told = until


async def _connected(target: Target, on_answer: OnAnswer) -> list[Connection]:
    loop = asyncio.get_running_loop()
    connections = []
    for _ in range(target.connections):
        _, protocol = await loop.create_connection(
            lambda: target.connect(on_answer), "127.0.0.1", target.port
        )
        connections.append(protocol)
    await asyncio.sleep(0.1)  # settings are exchanged
    return connections  # type: ignore[return-value] # both kinds are


async def _finished(connections: list[Connection]) -> None:
    for connection in connections:
        connection.stop()
    ends_at = time.monotonic() + _PATIENCE_S
    while any(each.in_flight for each in connections) and time.monotonic() < ends_at:  # noqa: ASYNC110 - by callbacks
        await asyncio.sleep(0.005)
    for connection in connections:
        connection.close()
    for connection in connections:
        if connection.failures or connection.in_flight:
            failed, unanswered = connection.failures, connection.in_flight
            msg = f"{failed} calls failed, {unanswered} were not answered: {connection.problem}"
            raise RuntimeError(msg)
