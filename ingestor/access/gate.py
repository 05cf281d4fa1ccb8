"""Decides whether a call may come in: by the key that it carries, or the certificate of its connection.

A decision is made once for calls with the same headers and kept until the keys change; what has to be asked each
time is whether the key is still valid, and its rates. It tells a caller what is wrong, but never whether a key
exists.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from ingestor.access.keys import Key, Keys
from ingestor.access.needs import Need, lacking
from ingestor.access.rates import Bucket
from ingestor.access.scopes import scopes
from ingestor.caller import ANYBODY, Caller, unlimited
from ingestor.errors import Forbidden, Refusal, Unauthenticated

_HOW = "send it as `authorization: Bearer KEY` or `x-api-key: KEY`"
_SCHEME = "bearer "
Rates = tuple[Bucket | None, Bucket | None]


class Gate:
    """`needs` says what has to be allowed, by path. Without `keys`, nobody needs one. Clocks give seconds, `wall`
    since 1970."""

    def __init__(
        self,
        needs: Mapping[str, Need],
        keys: Keys | None = None,
        *,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._needs = needs
        self._wall = wall
        self._clock = clock
        self._rates: dict[tuple[object, ...], Rates] = {}
        self._callers: dict[tuple[str, Need], Caller] = {}
        self.keys = keys
        self.version = 0

    def use(self, keys: Keys) -> None:
        """These count from now on; calls that stream are held to them with their next message."""
        self.keys = keys
        self.version += 1
        self._callers.clear()
        kept = {_rates_of(key) for key in keys.all}
        self._rates = {name: rates for name, rates in self._rates.items() if name in kept}

    def recognise(
        self, path: str, metadata: Mapping[str, Sequence[str | bytes]], names: Collection[str]
    ) -> Admission:
        """What is to be said to calls of this path with this metadata, on a connection whose client showed a
        verified certificate with these names."""
        return Admission(self, path, metadata, names)

    def caller(
        self, path: str, metadata: Mapping[str, Sequence[str | bytes]], names: Collection[str]
    ) -> Caller:
        """Who may call it. Raises Unauthenticated or Forbidden."""
        need = self._needs.get(path, Need.ADMIN)
        if need is Need.NOTHING:
            return ANYBODY
        keys = self.keys
        if keys is None:
            return Caller(check=self._still_open)
        key = _key(keys, metadata, names)
        self._check_state(key)
        caller = self._callers.get((key.id, need))
        if caller is None:
            caller = self._callers[key.id, need] = self._allowed(key, need)
        return caller

    def _allowed(self, key: Key, need: Need) -> Caller:
        """Raises Forbidden."""
        allowed = scopes(key.scopes)
        if (scope := lacking(need, allowed)) is not None:
            msg = f"the key {key.id} lacks the scope {scope}"
            raise Forbidden(msg)
        requests, metrics = self._buckets(key)
        check = partial(self._still, key)
        return Caller(
            key.caller,
            allowed.write_prefixes,
            allowed.read_prefixes,
            key.series_per_hour,
            check=check,
            enter=check if requests is None else partial(_checked, check, partial(requests.take, 1)),
            spend=unlimited if metrics is None else metrics.take,
        )

    def _buckets(self, key: Key) -> Rates:
        found = self._rates.get(_rates_of(key))
        if found is None:
            requests, metrics = key.requests_per_s, key.metrics_per_s
            found = self._rates[_rates_of(key)] = (
                None if requests is None else Bucket(requests, "requests", self._clock),
                None if metrics is None else Bucket(metrics, "metrics", self._clock),
            )
        return found

    def _still_open(self) -> None:
        if self.keys is not None:
            msg = f"a key is needed since this call began: {_HOW}"
            raise Unauthenticated(msg)

    def _still(self, key: Key) -> None:
        known = None if self.keys is None else self.keys.get(key.id)
        if known is not key and known != key:
            msg = "the key was changed or taken away since this call began: call again"
            raise Unauthenticated(msg)
        self._check_state(key)

    def _check_state(self, key: Key) -> None:
        if key.revoked is not None:
            msg = f"the key {key.id} was revoked"
            raise Unauthenticated(msg)
        if key.expires is not None and key.expires.timestamp() <= self._wall():
            msg = f"the key {key.id} has expired"
            raise Unauthenticated(msg)

    def valid(self) -> int:
        """How many keys are valid at the moment."""
        now = datetime.fromtimestamp(self._wall(), UTC)
        return 0 if self.keys is None else sum(key.state(now) == "valid" for key in self.keys.all)


class Admission:
    """What is said to calls with the same headers."""

    __slots__ = ("_caller", "_gate", "_metadata", "_names", "_path", "_refusal", "_version")

    def __init__(
        self, gate: Gate, path: str, metadata: Mapping[str, Sequence[str | bytes]], names: Collection[str]
    ) -> None:
        self._gate = gate
        self._path = path
        self._metadata = metadata
        self._names = names
        self._caller = ANYBODY
        self._refusal: Refusal | None = None
        self._version = -1

    def enter(self) -> Caller:
        """One more call. Raises Unauthenticated, Forbidden or TooFast."""
        if self._version != self._gate.version:
            self._decide()
        if self._refusal is not None:
            raise type(self._refusal)(self._refusal.message)  # a new one: each raise adds to its traceback
        self._caller.enter()
        return self._caller

    def _decide(self) -> None:
        self._version, self._refusal = self._gate.version, None
        try:
            self._caller = self._gate.caller(self._path, self._metadata, self._names)
        except Refusal as refusal:
            self._refusal = refusal.with_traceback(None)


def _key(keys: Keys, metadata: Mapping[str, Sequence[str | bytes]], names: Collection[str]) -> Key:
    """The key of who sent this. Raises Unauthenticated."""
    sent = _sent(metadata)
    if len(sent) > 1:
        msg = "several different keys were sent: send one"
        raise Unauthenticated(msg)
    if sent:
        key = keys.of_secret(sent.pop())
        if key is None:
            msg = f"the key is not known here: {_HOW}"
            raise Unauthenticated(msg)
        return key
    key = keys.of_certificate(names)
    if key is None:
        msg = f"a key is needed: {_HOW}"
        raise Unauthenticated(msg)
    return key


def _sent(metadata: Mapping[str, Sequence[str | bytes]]) -> set[str]:
    """The keys that were sent, without repetitions; what is no key of ours is among them as it is."""
    found = {str(value).strip() for value in metadata.get("x-api-key", ())}
    for value in metadata.get("authorization", ()):
        text = str(value).strip()
        found.add(text[len(_SCHEME) :].strip() if text[: len(_SCHEME)].lower() == _SCHEME else text)
    return found


def _rates_of(key: Key) -> tuple[object, ...]:
    """Keys of one caller share what it may send."""
    return key.caller, key.requests_per_s, key.metrics_per_s


def _checked(check: Callable[[], None], take: Callable[[], None]) -> None:
    check()
    take()
