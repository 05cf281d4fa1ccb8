"""The log against a plain list, over a disk that forgets and fails at will."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

from ingestor.errors import JournalProblem
from ingestor.journal.log import AppendFailed, JournalFull, LogLimits, Record, SegmentLog
from ingestor.journal.survey import Survey, survey
from ingestor.model import MetricBatch, Row
from tests.journal.forgetful_disk import OPERATIONS, POWER_LOSS, UNBOUNDED_BYTES, Disk, Fault, PowerLoss

MANY = 10**9
LIMITS = LogLimits(bytes_max=12_000, segment_bytes=1_500, retention_s=5.0)
_ROUNDS = int(os.environ.get("FAULT_ROUNDS", "60"))

_FAULTS = st.lists(
    st.builds(
        Fault,
        st.sampled_from(OPERATIONS),
        st.integers(0, 3),
        st.sampled_from((errno.EIO, errno.ENOSPC, POWER_LOSS)),
        st.booleans(),
    ),
    max_size=3,
)


def record(position: int, value: int) -> Record:
    """An entry that is known by its value."""
    return Record(position, MetricBatch.of_row(Row(0, "s", "m", float(value)), {}), 0)


def value_of(found: Record) -> int:
    return int(found.batch.columns.column("value").to_pylist()[0])


class World:
    """A log on a disk, and beside it what the log promised.

    `acked` has the entries of every append that returned, `maybe` those that may be there or not: of appends that
    a crash interrupted, or that failed without being certain. `gone` are acknowledged ones that the database had
    when the log removed them. `cursor` is the database's, and `met` says whether this process has seen it.
    """

    def __init__(self, seed: int = 0, limits: LogLimits = LIMITS) -> None:
        self.disk = Disk(seed)
        self.limits = limits
        self.now_s = 1_000.0
        self.log: SegmentLog | None = None
        self.acked: dict[int, int] = {}
        self.maybe: dict[int, set[int]] = {}
        self.gone: set[int] = set()
        self.cursor = self.told = 0
        self.met = True
        self.database: UUID | None = None
        self.databases: set[UUID | None] = {None}
        self.value = 0

    # What is done.

    def open(self, faults: Sequence[Fault] = (), *, meets: bool = True) -> None:
        """Starts a process; the worker then tells the log where the database's cursor stands, unless the database
        is away."""
        assert self.log is None
        self.met = meets
        directory = self.disk.boot()
        looked = survey(directory, whole=False)
        with self.faults(faults):
            try:
                self.log = SegmentLog.open(directory, self.limits, lambda: self.now_s)
            except JournalProblem:
                assert self._unwell(faults), "it can't be opened, although the disk is well"
                return
        if not faults and looked is not None:
            self._compare_survey(looked)
        self._compare_opened()

    def meet(self) -> None:
        """The database is there again."""
        self.met = True
        self._tell()

    def advance_cursor(self, ahead: int) -> None:
        """While no process runs, the database turns out to have more than is here: the disk lost the end."""
        if not self.acked and not self.maybe:
            return
        self.cursor = self.told = max([self.told, *self.acked, *self.maybe]) + ahead
        self.gone |= set(self.acked)

    def append(self, count: int, faults: Sequence[Fault] = ()) -> None:
        log = self.opened()
        first = log.last + 1
        records = []
        for number in range(count):
            self.value += 1
            records.append(record(first + number, self.value))
        before = {position: set(values) for position, values in self.maybe.items()}
        for found in records:  # in case that a crash interrupts it
            self.maybe.setdefault(found.position, set()).add(value_of(found))
        with self.faults(faults):
            try:
                log.append(records)
            except AppendFailed as failed:
                self._refused(failed, faults)
                if failed.certain:
                    self.maybe = before
                assert log.last == first - 1
                return
        if self.log is None:
            return
        self.maybe = {position: values for position, values in self.maybe.items() if position < first}
        for found in records:
            self.acked[found.position] = value_of(found)
        assert log.last == first - 1 + count

    def commit(self, share: float, faults: Sequence[Fault] = ()) -> None:
        log = self.opened()
        self.cursor += int((log.last - self.cursor) * share + 0.5)
        self.told = max(self.told, self.cursor)
        with self.faults(faults):
            log.committed(self.cursor)

    def rewind(self, share: float) -> None:
        """The database is restored to an earlier state."""
        self.cursor = int(self.cursor * share)
        self._tell()

    def skip(self, ahead: int, faults: Sequence[Fault] = ()) -> None:
        """The database turns out to have more than was ever here."""
        self.cursor = self.opened().last + ahead
        self.told = max(self.told, self.cursor)
        with self.faults(faults):
            self._tell(faults)

    def bind(self, database: UUID, faults: Sequence[Fault] = ()) -> None:
        log = self.opened()
        self.databases.add(database)
        with self.faults(faults):
            try:
                log.bind(database)
            except OSError:
                assert self._unwell(faults)
                assert log.database == self.database
                return
        if self.log is None:
            return
        self.database = database
        self.databases = {database}

    def close(self, faults: Sequence[Fault] = ()) -> None:
        log = self.opened()
        with self.faults(faults):
            log.close()
            self.log = None

    def lose_power(self) -> None:
        self.disk.lose_power()
        self.log = None

    def kill(self) -> None:
        """The process dies, the machine lives on."""
        self.log = None

    def opened(self) -> SegmentLog:
        assert self.log is not None
        return self.log

    @contextmanager
    def faults(self, faults: Sequence[Fault]) -> Iterator[None]:
        """The disk fails so; a power loss ends the process."""
        self.disk.fail(faults)
        try:
            yield
        except PowerLoss:
            assert faults
            self.log = None
        finally:
            self.disk.fail(())

    # What must be so.

    def check(self) -> None:
        """Reads all that is there, and compares."""
        if self.log is None:
            return
        self._note_removed()
        self._compare(self.log.read(0, MANY, MANY), 0)
        self._compare(self.log.read(self.cursor, MANY, MANY), self.cursor)
        assert [s.position for s in self.log.pending(self.cursor)] == [
            r.position for r in self.log.read(self.cursor, MANY, MANY)
        ]
        assert self.log.size_bytes <= self.limits.bytes_max + 200, "more than the bound, and a header or two"
        for gap in self.log.recovery.gaps:
            lost = [p for p in self.acked if gap.first <= p <= gap.last and p not in self.gone]
            assert not lost, f"{gap} names what is there"
        assert self.log.database in self.databases
        assert self.log.committed_hint <= self.told

    def _note_removed(self) -> None:
        log = self.opened()
        removed = {position for position in self.acked if position < log.first}
        assert all(position <= self.told for position in removed - self.gone)
        self.gone |= removed

    def _compare_survey(self, looked: Survey) -> None:
        """Who only looked has found what the start found."""
        log = self.opened()
        assert (looked.committed, looked.last) == (log.committed_hint, log.last)
        assert looked.pending_entries == len(list(log.pending(log.committed_hint)))
        amiss = log.recovery.gaps or log.recovery.damaged
        assert looked.sound == (not amiss)

    def _compare_opened(self) -> None:
        """What a new process finds becomes what is there."""
        log = self.log
        if log is None:
            return
        if self.acked:
            assert log.last >= max(self.acked), "a position would be given out again"
        found = log.read(0, MANY, MANY)
        # What the database had may have been removed by what the crash interrupted.
        self.gone |= {position for position in self.acked if position <= self.told} - {
            r.position for r in found
        }
        self._compare(found, 0)
        positions = {r.position for r in found}
        self.gone -= positions
        for r in found:
            if r.position not in self.acked and not self.disk.in_limbo:
                self.acked[r.position] = value_of(r)  # what was read stays
        if not self.disk.in_limbo:
            self.maybe.clear()
        self.database = log.database
        self.databases = {log.database}
        if self.met:
            self._tell()
            return
        log.leap()

    def _unwell(self, faults: Sequence[Fault]) -> bool:
        return bool(faults) or self.disk.tight

    def _refused(self, failed: AppendFailed, faults: Sequence[Fault]) -> None:
        assert self._unwell(faults) or isinstance(failed, JournalFull)

    def _tell(self, faults: Sequence[Fault] = ()) -> None:
        """The worker starts, or starts again, at the database's cursor; without that nothing is appended."""
        log = self.opened()
        if self.cursor > log.last:
            try:
                log.skip_to(self.cursor)
                assert log.last == self.cursor
            except OSError:
                assert self._unwell(faults)
                self.log = None
            return
        missing = log.rewound(self.cursor)
        self._note_removed()
        behind = [p for p in self.gone if self.cursor < p <= log.last]
        first, last = missing or (1, 0)
        assert all(first <= position <= last for position in behind), "a gap that isn't told"
        there = [p for p in self.acked if p not in self.gone and first <= p <= last]
        assert not there, "a gap that isn't one"

    def _compare(self, found: Sequence[Record], after: int) -> None:
        seen = [(r.position, value_of(r)) for r in found]
        positions = [position for position, _ in seen]
        assert positions == sorted(set(positions)), "out of order"
        for position, value in seen:
            allowed = set(self.maybe.get(position, ()))
            if position in self.acked:
                allowed.add(self.acked[position])
            assert value in allowed, f"{position} holds {value}, which isn't one of {allowed}"
        missing = {p for p in self.acked if p > after and p not in self.gone} - set(positions)
        assert not missing, f"lost: {sorted(missing)}"


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


class LogMachine(RuleBasedStateMachine):
    """Anything, in any order."""

    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed: int) -> None:
        self.world = World(seed)
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
