"""The lane: unary calls on grpclib's own connection, without a Stream, a dozen events and three writes for each.

grpclib 0.4.9 over h2 spends some 200 us on a unary call, nearly all of it on objects that an ordinary call does
not need. The lane stands before h2 and takes the frames of ordinary unary calls out of what comes in; everything
else goes to h2 and grpclib as it would without it: other methods, odd headers, settings, errors. When a
request has ended its method runs as a task, and the answers of one turn of the event loop leave in one write.

It is a chain, of which no step knows the one before: `frames` and `blocks` (whose is it?), `requests` (until one is
whole), `serving` (its method, and how a call ends), `sending` (what windows let out) and `outgoing` (one write for
a turn); `accounts` is what they share with h2.

Invariants:
- Each byte goes either to the lane or to h2, in whole frames, in their order. A stream belongs to one of them for
  all of its life; which, is decided by its HEADERS.
- There is one HPACK state for each direction, h2's. What the lane has decoded and does not take, h2 gets decoded.
  What the lane sends leaves the compression state as it is, so its place among h2's own frames is free.
- There is one account of flow control for the connection, h2's, and the lane keeps it for what it takes and sends.
- h2 knows the highest stream that was opened, and which streams the lane has reset.
- A call is in `Calls.by_stream` from its HEADERS until its answer is handed to the transport, the client resets it,
  or the connection is gone; never longer. They count against the limit of concurrent streams, also while the client
  does not read. Answers that wait to be sent are counted by their bytes; where there are too many, those that have
  not moved for longest are given up.
- What a client sends beside calls is paid for from the connection's budget (`floods`); with nothing left in it, the
  connection ends before the next frame is looked at.
"""

from ingestor.transport.grpc.lane.lane import Lane
from ingestor.transport.grpc.lane.lanes import Lanes

__all__ = ["Lane", "Lanes"]
