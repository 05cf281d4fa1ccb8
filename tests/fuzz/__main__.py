"""Sends fuzzed requests to a server: `python -m tests.fuzz SIDE PORT SEED REQUESTS`, SIDE being grpc or http; or
to the decoders in this process, SIDE being decoders (and PORT 0).

A process for each, so that two at once keep a server busy. It says how far it is, in lines of JSON, and
ends with 1 and the request when an answer is none that a server may give.
"""

from __future__ import annotations

import json
import sys

from tests.fuzz import decoders, grpc_side, http_side
from tests.fuzz.tally import Wrong

_SIDES = {"grpc": grpc_side.run, "http": http_side.run, "decoders": decoders.run}
_TOLD_EVERY = 2_000
_CONNECTIONS = 3


def main(protocol: str, port: int, seed: int, requests: int) -> int:
    """Returns the exit code."""
    told = 0
    try:
        for tally in _SIDES[protocol](port, seed, _CONNECTIONS):
            done = tally.requests >= requests
            if done or tally.requests >= told + _TOLD_EVERY:
                told = tally.requests
                outcomes = dict(tally.outcomes.most_common())
                print(
                    json.dumps({"requests": told, "cut_off": tally.cut_off, "outcomes": outcomes}), flush=True
                )
            if done:
                break
    except (Wrong, ConnectionRefusedError) as error:
        print(f"{protocol}: {error}"[:20_000], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:])))
