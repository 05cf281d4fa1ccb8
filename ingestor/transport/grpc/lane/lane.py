"""The lane of one connection, put together from its steps. It does nothing of their work."""

from __future__ import annotations

from grpclib.protocol import EventsProcessor

from ingestor.transport.grpc.allowance import Allowance
from ingestor.transport.grpc.farewell import Farewell
from ingestor.transport.grpc.lane.accounts import Accounts
from ingestor.transport.grpc.lane.blocks import Blocks
from ingestor.transport.grpc.lane.frames import Frames
from ingestor.transport.grpc.lane.lanes import Lanes
from ingestor.transport.grpc.lane.outgoing import Outgoing
from ingestor.transport.grpc.lane.requests import Requests
from ingestor.transport.grpc.lane.sending import Answers
from ingestor.transport.grpc.lane.serving import Calls


class Lane:
    """`feed` gets all that the client sends: it takes what is the lane's and gives the rest to h2. Raises
    ProtocolError for what ends the connection."""

    __slots__ = ("_calls", "_frames", "_outgoing", "_requests", "feed")

    def __init__(
        self,
        lanes: Lanes,
        processor: EventsProcessor,
        farewell: Farewell,
        allowance: Allowance,
    ) -> None:
        connection, budget = processor.connection, allowance.budget
        accounts = Accounts(connection._connection)
        outgoing = self._outgoing = Outgoing(connection, farewell, accounts)
        answers = Answers(connection, allowance, accounts, outgoing)
        calls = self._calls = Calls(lanes, budget, outgoing, answers)
        requests = self._requests = Requests(
            lanes, processor, allowance, accounts=accounts, outgoing=outgoing, calls=calls
        )
        blocks = Blocks(lanes.methods, farewell, budget, accounts, requests)
        self._frames = Frames(
            processor, budget, accounts, outgoing, calls=calls, requests=requests, blocks=blocks
        )
        self.feed = self._frames.feed

    @property
    def open(self) -> int:
        """How many calls are under way, among them those whose answers are not handed to the transport yet."""
        return len(self._calls.by_stream) + self._outgoing.waits

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        return len(self._calls.by_stream)

    @property
    def heard(self) -> int:
        """How many packets have ended a frame."""
        return self._frames.heard

    @property
    def partial(self) -> bool:
        """Whether a frame or a header block has begun, and has yet to end."""
        return self._frames.partial

    def resume_writing(self) -> None:
        """The client reads again."""
        self._calls.push()

    def check(self, now: float) -> None:
        """Lets go of requests that don't come to their end, and of answers that are not read."""
        self._requests.check(now)
        self._calls.check(now)

    def connection_lost(self) -> None:
        """Nobody waits for answers any more."""
        self._calls.lost()
        self._outgoing.forget()
