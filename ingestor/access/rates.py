"""How many requests and metrics a second a caller may send: token buckets, which hold what one second allows.

What is more than a bucket ever holds is let through when it is full, and has to be paid back before the next: a
batch that is larger than the rate is slow, but never impossible. All keys of a caller take from the same buckets,
at the rates of the newest valid one, so that a rotation doesn't add them up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from math import inf

from ingestor.access.keys import Key
from ingestor.errors import TooFast


class Bucket:
    """`rate` of `what` a second. `clock` gives seconds."""

    __slots__ = ("_at_s", "_clock", "_holds", "_level", "_rate", "_what")

    def __init__(self, rate: float, what: str, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._what = what
        self._clock = clock
        self._holds = self._level = max(1.0, rate)
        self._at_s = clock()

    @property
    def rate(self) -> float:
        """How many a second."""
        return self._rate

    def fill_at(self, rate: float) -> None:
        """From now on. What is owed stays owed."""
        self._fill()
        self._rate, self._holds = rate, max(1.0, rate)

    def take(self, count: int) -> None:
        """Takes so many out. Raises TooFast, and then takes none."""
        self._fill()
        # A hair less will do: the clock's seconds don't add up exactly.
        lacking = min(float(count), self._holds) - self._level
        if lacking > 1e-6 * self._holds:
            msg = f"the key allows {self._rate:g} {self._what} a second: nothing was taken"
            raise TooFast(msg, lacking / self._rate)
        self._level -= count

    def _fill(self) -> None:
        now_s = self._clock()
        self._level = min(self._holds, self._level + (now_s - self._at_s) * self._rate)
        self._at_s = now_s


class Allowance:
    """What one caller may send with all of its keys. `wall` gives seconds since 1970, `clock` seconds."""

    __slots__ = ("_clock", "_keys", "_metrics", "_requests", "_until_s", "_wall")

    def __init__(self, wall: Callable[[], float], clock: Callable[[], float]) -> None:
        self._wall = wall
        self._clock = clock
        self._keys: Sequence[Key] = ()
        self._requests: Bucket | None = None
        self._metrics: Bucket | None = None
        self._until_s = inf

    def use(self, keys: Sequence[Key]) -> None:
        """Of these, from the oldest to the newest, the last valid one says what is allowed until it expires."""
        self._keys = keys
        now = datetime.fromtimestamp(self._wall(), UTC)
        key = next((key for key in reversed(keys) if key.state(now) == "valid"), keys[-1])
        valid = key.state(now) == "valid"
        self._until_s = key.expires.timestamp() if valid and key.expires is not None else inf
        self._requests = self._bucket(self._requests, key.requests_per_s, "requests")
        self._metrics = self._bucket(self._metrics, key.metrics_per_s, "metrics")

    def take_request(self) -> None:
        """One. Raises TooFast."""
        if self._until_s < inf:
            self._look_again()
        if self._requests is not None:
            self._requests.take(1)

    def take_metrics(self, count: int) -> None:
        """So many. Raises TooFast, and then takes none."""
        if self._until_s < inf:
            self._look_again()
        if self._metrics is not None:
            self._metrics.take(count)

    def _look_again(self) -> None:
        if self._wall() >= self._until_s:
            self.use(self._keys)

    def _bucket(self, bucket: Bucket | None, rate: float | None, what: str) -> Bucket | None:
        if rate is None:
            return None
        if bucket is None:
            return Bucket(rate, what, self._clock)
        if bucket.rate != rate:
            bucket.fill_at(rate)
        return bucket
