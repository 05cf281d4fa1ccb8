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
from ingestor.access.rates import Allowance
from ingestor.access.scopes import scopes
from ingestor.caller import ANYBODY, NOBODY, Caller
from ingestor.errors import Forbidden, Refusal, Unauthenticated

_HOW = "send it as `authorization: Bearer KEY` or `x-api-key: KEY`"
_SCHEME = "bearer "


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
        self._allowances: dict[str, Allowance] = {}
        self._callers: dict[tuple[str, Need], Caller] = {}
        self.keys: Keys | None = None
        self.version = 0
        if keys is not None:
            self.use(keys)

    def use(self, keys: Keys) -> None:
        """These count from now on; calls that stream are held to them with their next message."""
        self.keys = keys
        self.version += 1
        self._callers.clear()
        of_callers: dict[str, list[Key]] = {}
        for key in keys.all:
            of_callers.setdefault(key.caller, []).append(key)
        before, self._allowances = self._allowances, {}
        for name, own in of_callers.items():
            # What was spent stays spent.
            allowance = self._allowances[name] = before.get(name) or Allowance(self._wall, self._clock)
            allowance.use(own)

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
            return NOBODY
        keys = self.keys
        if keys is None:
            return Caller(check=self._still_open)
        key = _key(keys, metadata, names, self._now())
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
        allowance = self._allowances[key.caller]
        check = partial(self._still, key)
        return Caller(
            key.caller,
            allowed.write_prefixes,
            allowed.read_prefixes,
            key.series_per_hour,
            check=check,
            enter=partial(_checked, check, allowance.take_request),
            spend=allowance.take_metrics,
        )

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
        now = self._now()
        return 0 if self.keys is None else sum(key.state(now) == "valid" for key in self.keys.all)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall(), UTC)


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
        caller = self._decided()
        try:
            caller.enter()
        except Unauthenticated:
            if not self._names:
                raise
            self._version = -1  # the key has expired, and the certificate may stand for another that has not
            caller = self._decided()
            caller.enter()
        return caller

    def _decided(self) -> Caller:
        if self._version != self._gate.version:
            self._decide()
        if self._refusal is not None:
            raise type(self._refusal)(self._refusal.message)  # a new one: each raise adds to its traceback
        return self._caller

    def _decide(self) -> None:
        self._version, self._refusal = self._gate.version, None
        try:
            self._caller = self._gate.caller(self._path, self._metadata, self._names)
        except Refusal as refusal:
            self._refusal = refusal.with_traceback(None)


def _key(
    keys: Keys, metadata: Mapping[str, Sequence[str | bytes]], names: Collection[str], now: datetime
) -> Key:
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
    key = keys.of_certificate(names, now)
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


def _checked(check: Callable[[], None], take: Callable[[], None]) -> None:
    check()
    take()
