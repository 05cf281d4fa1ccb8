"""The log against a plain list, over a disk that forgets and fails at will."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from random import SystemRandom
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from loguru import logger

from ingestor.journal.limits import LogLimits
from tests.journal.forgetful_disk import KILLED, OPERATIONS, POWER_LOSS, UNBOUNDED_BYTES, Fault
from tests.journal.log_world import LIMITS, World

_ROUNDS = int(os.environ.get("FAULT_ROUNDS", "60"))
_FAULTS = st.lists(
    st.builds(
        Fault,
        st.sampled_from(OPERATIONS),
        st.integers(0, 3),
        st.sampled_from((errno.EIO, errno.ENOSPC, POWER_LOSS, KILLED)),
        st.booleans(),
    ),
    max_size=3,
)


class LogMachine(RuleBasedStateMachine):
    """Anything, in any order."""

    @initialize(seed=st.integers(0, 2**16), segment_bytes=st.sampled_from((1_500, 5_000)))
    def begin(self, seed: int, segment_bytes: int) -> None:
        self.world = World(seed, replace(LIMITS, segment_bytes=segment_bytes))
        self.world.open()

    @precondition(lambda self: self.world.log is None)
    @rule(faults=_FAULTS, meets=st.booleans())
    def open(self, faults: list[Fault], *, meets: bool) -> None:
        self.world.open(faults, meets=meets)

    @precondition(lambda self: self.world.log is not None and not self.world.met)
    @rule()
    def meet(self) -> None:
        self.world.meet()

    @precondition(lambda self: self.world.log is None)
    @rule(ahead=st.integers(1, 3))
    def advance_cursor(self, ahead: int) -> None:
        self.world.advance_cursor(ahead)

    @precondition(lambda self: self.world.log is not None)
    @rule()
    def try_disk(self) -> None:
        self.world.append(0)

    @precondition(lambda self: self.world.log is not None)
    @rule(count=st.integers(1, 4), faults=_FAULTS)
    def append(self, count: int, faults: list[Fault]) -> None:
        self.world.append(count, faults)

    @precondition(lambda self: self.world.log is not None)
    @rule(count=st.integers(1, 4))
    def append_well(self, count: int) -> None:
        self.world.append(count)

    @precondition(lambda self: self.world.log is not None)
    @rule(count=st.integers(1, 2), faults=st.one_of(st.just([]), _FAULTS))
    def append_here(self, count: int, faults: list[Fault]) -> None:
        self.world.append(count, faults, here=True)

    @precondition(lambda self: self.world.log is not None and self.world.met)
    @rule(share=st.sampled_from((0.5, 1.0)), faults=_FAULTS)
    def commit(self, share: float, faults: list[Fault]) -> None:
        self.world.commit(share, faults)

    @precondition(lambda self: self.world.log is not None and self.world.met)
    @rule(share=st.sampled_from((0.0, 0.5, 0.9)))
    def rewind(self, share: float) -> None:
        self.world.rewind(share)

    @precondition(lambda self: self.world.log is not None and self.world.met)
    @rule(ahead=st.integers(1, 3), faults=_FAULTS)
    def skip(self, ahead: int, faults: list[Fault]) -> None:
        self.world.skip(ahead, faults)

    @precondition(lambda self: self.world.log is not None)
    @rule(number=st.integers(1, 2), faults=_FAULTS)
    def bind(self, number: int, faults: list[Fault]) -> None:
        self.world.bind(UUID(int=number), faults)

    @precondition(lambda self: self.world.log is not None)
    @rule(faults=_FAULTS)
    def close(self, faults: list[Fault]) -> None:
        self.world.close(faults)

    @precondition(lambda self: self.world.log is not None)
    @rule()
    def kill(self) -> None:
        self.world.kill()

    @rule()
    def lose_power(self) -> None:
        self.world.lose_power()

    @rule(seconds=st.sampled_from((1.0, 6.0)))
    def wait(self, seconds: float) -> None:
        self.world.now_s += seconds

    @rule(free_bytes=st.sampled_from((0, 300, 2_000, UNBOUNDED_BYTES)))
    def fill(self, free_bytes: int) -> None:
        disk = self.world.disk
        disk.capacity_bytes = min(UNBOUNDED_BYTES, disk.used_bytes + free_bytes)

    @invariant()
    def promise(self) -> None:
        self.world.check()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """It is told thousands of times that a disk failed."""
    logger.disable("ingestor")
    yield
    logger.enable("ingestor")


# What it found, shrunken.


def test_a_segment_is_forgotten_when_its_removal_is_not_sure() -> None:
    """It is gone for this process, so it must not be read again; otherwise every read from its start fails."""
    for error in (errno.EIO, errno.ENOSPC):
        for operation in ("unlink", "dirsync"):
            for number in range(8):
                world = World(number, LogLimits(12_000, 900))
                world.open()
                world.append(3)
                world.append(3)
                world.commit(1.0, [Fault(operation, 0, error)])
                world.check()
                world.rewind(0)
                world.check()


def test_a_database_that_was_ahead_and_went_back_gets_all_again() -> None:
    """Found by the machine: what was skipped looks like damage, and what is damaged was forgotten once
    committed."""
    world = World()
    world.open()
    world.append(1)
    world.skip(1)
    world.rewind(0.0)
    for _ in range(2):
        world.lose_power()
        world.open()
        world.check()


def test_an_empty_file_whose_removal_was_not_synced_is_not_read() -> None:
    """Found by the machine: it may be gone already."""
    world = World()
    world.open()
    world.skip(1)
    world.skip(1, [Fault("dirsync", 1, errno.EIO, False)])
    world.check()


def test_a_file_whose_removal_was_not_synced_is_not_read_either() -> None:
    """Found by the machine: it was still on the list."""
    world = World()
    world.open()
    world.append(1)
    world.append(2)
    world.now_s += 6.0
    world.append(1)
    world.commit(0.5, [Fault("dirsync", 0, errno.EIO, False)])
    world.check()


def test_what_was_leapt_over_is_neither_committed_nor_lost() -> None:
    """Found by the machine: a file without entries, kept for its damage, and a leap behind it; all positions
    between counted as removed, and so as committed, or lost when the database went back."""
    world = World()
    steps: Sequence[Callable[[], None]] = (
        world.open,
        world.kill,
        world.open,
        lambda: world.skip(2),
        world.kill,
        lambda: world.open([Fault("write", 0, errno.EIO)], meets=False),
        world.meet,
        lambda: world.append(0),
        lambda: world.rewind(0.5),
        world.kill,
        *[world.lose_power] * 5,
        lambda: world.open(meets=False),
        lambda: world.append(0),
        world.kill,
        lambda: world.open(meets=False),
    )
    for step in steps:
        step()
        world.check()
    assert [name for name in world.disk.names if name.endswith(".damaged")]
    assert world.opened().rewound(world.cursor) == (2, 2)


_TWO = [
    Fault(operation, after, errno.EIO, lasting)
    for operation in OPERATIONS
    for after in (0, 1)
    for lasting in (False, True)
]


@pytest.mark.parametrize(
    "first", [Fault(*each) for each in product(("write", "sync"), (0,), (errno.EIO, errno.ENOSPC))]
)
@pytest.mark.parametrize("how", ["wide", "bound"])
def test_an_append_that_was_begun_keeps_it_when_it_fails_and_fails_again(first: Fault, how: str) -> None:
    """Found by two faults at once: where there is no room for a second try, what came of the first was left there,
    and came back."""
    wide = replace(LIMITS, bytes_max=1 << 20, segment_bytes=1 << 18)
    world = World(0, wide)
    begins(world)
    before = world.opened().size_bytes
    world.append(2, here=True)
    again = 2 * world.opened().size_bytes - before - 1
    for number, second in enumerate(_TWO):
        for dies in (World.kill, World.lose_power):
            world = World(number, replace(wide, bytes_max=again) if how == "bound" else wide)
            begins(world)
            world.append(2, [first, second], here=True)
            world.check()
            if world.log is not None:
                dies(world)
            world.open()
            world.check()
            world.append(1, here=True)
            world.check()


def begins(world: World) -> None:
    """Insists on it."""
    world.open()
    world.append(2)
    world.append(1, here=True)
    assert world.begun == 1


@pytest.mark.timeout(0)
def test_the_log_keeps_its_promise_whatever_the_disk_does() -> None:
    """Against a list: nothing acknowledged is lost, repeated or out of order, nothing that failed comes back.
    FAULT_ROUNDS runs it for longer, FAULT_SEED repeats a run."""
    number = int(os.environ.get("FAULT_SEED", SystemRandom().randrange(2**32)))
    print(f"FAULT_SEED={number} FAULT_ROUNDS={_ROUNDS}")
    machine: Any = seed(number)(LogMachine)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=_ROUNDS,
            stateful_step_count=40,
            deadline=None,
            database=None,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
