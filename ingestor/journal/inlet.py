"""The half of the disk journal that takes offers and writes them, group after group: those that come while one is
written and synced make the next.

It never acknowledges a level that was not reached. When the disk fails it refuses whoever was told nothing, keeps
what is acknowledged, and tries again until the disk is well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from loguru import logger

from ingestor.errors import Overloaded, Refusal, TooLate, Unavailable
from ingestor.journal.admission import RETRY_AFTER_S, Admission, QueueLimits
from ingestor.journal.books import Books
from ingestor.journal.commits import Commits
from ingestor.journal.joining import Joined
from ingestor.journal.limits import JournalFailed, JournalFull
from ingestor.journal.log_thread import LogThread
from ingestor.journal.receipts import Offer
from ingestor.journal.request_ids import RequestIds
from ingestor.journal.sleep import Reader
from ingestor.model import Ack

# What is written and synced at once.
_GROUP_BYTES_MAX = 8 * 1024**2
# How long nothing is tried after the disk has failed; and so often it is looked whether a full one has room again.
_REST_S = 1.0
# As the server stops, who comes is told after so long that it is not written.
_LAST_S = 0.25
_UNWRITTEN = (
    "the server stopped before this was written, but it may still be stored: sent again with the same request_id it"
    " is stored once, without one perhaps twice"
)


class Inlet:
    """`start` it before the first offer comes through its `admission`, and `stop` it in the end."""

    def __init__(
        self,
        log: LogThread,
        books: Books,
        *,
        limits: QueueLimits,
        requests: RequestIds,
        commits: Commits,
        reader: Reader,
        urge: Callable[[], object],
        on_taken: Callable[[int], object],
        on_synced: Callable[[float], object],
        outage: Callable[[], str | None],
    ) -> None:
        """`reader` sleeps until there is enough to read; `urge` wakes it, for those who ask for a commit. The last
        three are those that `DiskJournal` is given."""
        self.admission: Admission[Offer] = Admission(
            limits, books.has_room, self._take, self._refusal, reader.wake
        )
        self._log = log
        self._books = books
        self._limits = limits
        self._requests = requests
        self._commits = commits
        self._reader = reader
        self._urge = urge
        self._on_taken = on_taken
        self._on_synced = on_synced
        self._outage = outage
        self._offered, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._writer: asyncio.Task[None] | None = None
        self._stopping = False
        self._giving_up = False
        self._last_words: asyncio.TimerHandle | None = None

    @property
    def closed(self) -> bool:
        """Whether nothing more will become durable."""
        return self.admission.closed and not self._books.unwritten_rows

    def start(self) -> None:
        """Writes from now on what is offered."""
        self._writer = asyncio.create_task(self._write(), name="journal-writer")
        self._writer.add_done_callback(self._writer_ended)

    def give_up_waiting(self) -> None:
        """The server stops: who waits for what is not written hears TooLate, and who comes to, soon. It is written
        as before. Who waits for room is refused."""
        self._giving_up = True
        self._last_words = None
        for offer in (*self._books.being_written, *self._books.offers):
            if offer.receipt is not None:
                offer.receipt.abandon(TooLate(_UNWRITTEN))
        self.admission.give_up_waiting()

    async def stop(self, timeout_s: float) -> None:
        """Writes what can still be written, for `timeout_s` seconds at most, and begins nothing more behind that;
        what is being written then comes to its end: only the disk can say whether it is there."""
        self._stopping = True
        if self._writer is None or self._writer.done():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        async with self._log.changing:  # the log can't be closed before, either
            self._writer.cancel()
        await asyncio.wait([self._writer])

    def abandon(self) -> None:
        """Nobody will write what is left: who still waits is told so."""
        self._fail_all(TooLate(_UNWRITTEN))

    def _take(self, offer: Offer) -> None:
        self._books.took(offer)
        if offer.request is not None and offer.receipt is not None:
            # What is acknowledged as queued is kept even when the disk fails; other offers come to nothing then.
            least = Ack.QUEUED if offer.ack is Ack.QUEUED else Ack.JOURNALED
            self._requests.hold(offer.request, offer.receipt, self._urge, least)
        self._offered.set()
        self._idle.clear()
        if self._giving_up and self._last_words is None:
            loop = asyncio.get_running_loop()
            self._last_words = loop.call_later(_LAST_S, self.give_up_waiting)
        if offer.ack is Ack.QUEUED:
            self._on_taken(offer.batch.rows)

    async def _write(self) -> None:
        """Group after group, for as long as the journal lives."""
        while True:
            self._rest()
            if not await self._offered_within(_REST_S):
                await self._look_for_room()
                continue
            await asyncio.sleep(0)  # those who come in the same turn of the loop share the sync
            self._offered.clear()
            # An empty group only tries the disk: nobody can come in before it is known to be well again.
            while self._books.offers or self._books.problem is not None:
                async with self._log.changing:
                    # Not before: who is cancelled while it waits for that has taken nothing out.
                    await self._append(self._books.next_group(_GROUP_BYTES_MAX))
                if self._books.problem is not None:
                    self._rest()
                    await asyncio.sleep(_REST_S)

    def _rest(self) -> None:
        if not self._books.offers:
            self._idle.set()

    async def _offered_within(self, timeout_s: float) -> bool:
        if self._offered.is_set():
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._offered.wait()
        except TimeoutError:
            return False
        return True

    async def _look_for_room(self) -> None:
        """Others fill the file system, and make room on it."""
        async with self._log.changing:
            room_bytes = await self._log.room_bytes()
        before_bytes, self._books.room_bytes = self._books.room_bytes, room_bytes
        if room_bytes > before_bytes:
            self.admission.room_made()

    async def _append(self, group: list[Offer]) -> None:
        books = self._books
        committed = books.committed
        try:
            written = await self._log.append(group, books.backlog.last + 1, committed)
        except (JournalFull, JournalFailed) as error:
            books.put_back(group)
            self._unwritable(str(error), certain=error.certain)
            return
        except BaseException:  # cancelled, or our own mistake: it is raised again, and nothing is forgotten
            books.put_back(group)
            raise
        if books.problem is not None:
            logger.info("the journal can be written again")
            books.problem = None
        books.room_bytes, books.released = written.room_bytes, committed
        books.wrote(group, (joined.entry for joined in written.joined))
        for joined in written.joined:
            self._tell_durable(joined)
        self._reader.arrived(books.backlog.waiting_rows)
        if self.closed or books.urged:
            self._reader.wake()
        # Others' code comes last: should it raise, everybody has been told, and the writer's end says it.
        for offer in group:
            if offer.ack is not Ack.QUEUED:
                self._on_taken(offer.batch.rows)
        self._on_synced(written.took_s)
        self.admission.room_made()

    def _tell_durable(self, joined: Joined) -> None:
        position = joined.entry.position
        for first, offer in joined.members:
            if offer.receipt is not None:
                offer.receipt.advance(Ack.JOURNALED)
                self._commits.add(position, first, offer)
                if offer.receipt.awaited:
                    self._books.urgent = position

    def _unwritable(self, reason: str, *, certain: bool) -> None:
        """Nothing of what is offered gets into the log. Who was acknowledged already stays, the others are told;
        unless it is `certain`, also that it may come back."""
        if self._books.problem is None:
            logger.error("the journal can't be written, so requests are refused: {}", reason)
        self._books.problem = reason
        perhaps = Unavailable(f"{reason}: it may still be stored", RETRY_AFTER_S)
        refusal = self._refusal() if certain else perhaps
        for offer in self._books.drop_unacknowledged():
            self._fail(offer, refusal)

    def _fail_all(self, refusal: Refusal) -> None:
        while self._books.offers:
            self._fail(self._books.offers.popleft(), refusal)

    def _fail(self, offer: Offer, refusal: Refusal) -> None:
        if offer.request is not None:
            self._requests.drop(offer.request)
        if offer.receipt is not None:
            offer.receipt.fail(refusal)

    def _writer_ended(self, task: asyncio.Task[None]) -> None:
        """Not before `stop`, unless by our own mistake. Then nobody can know what is written: what is not
        acknowledged comes to nothing, and the next start reads what there is."""
        if self._stopping and (task.cancelled() or task.exception() is None):
            return
        error = None if task.cancelled() else task.exception()
        problem = f"it has failed in a way that was not foreseen ({error!r}): restart the server"
        logger.opt(exception=error).critical("the journal's writer died: nothing is taken any more")
        self._books.problem = problem
        refusal = Unavailable(f"{problem}: it may still be stored", RETRY_AFTER_S)
        for offer in self._books.drop_unacknowledged():
            self._fail(offer, refusal)
        self._fail_all(refusal)
        self._idle.set()  # so that the end doesn't wait for it

    def _refusal(self) -> Refusal:
        books = self._books
        what = books.problem or (
            f"the journal is full ({self._log.size_bytes} bytes; {books.held_rows} metrics wait for the database)"
            if books.unwritten_rows < self._limits.rows // 2
            else f"the queue before the journal is full ({books.unwritten_rows} metrics)"
        )
        if self._outage() is not None:
            return Unavailable(f"{what}, and the database takes nothing: nothing was taken", RETRY_AFTER_S)
        return Overloaded(f"{what}: nothing was taken", RETRY_AFTER_S)
