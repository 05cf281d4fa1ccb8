"""What `ingestor keys create`, `list` and `revoke` do. They print, and return exit codes.

A secret is printed once, alone on stdout, and kept nowhere; what was revoked stays listed, and never becomes valid
again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from ingestor.access import Key, Keys, KeysFile
from ingestor.access.secret_text import ID, digest, new_id, new_text
from ingestor.errors import BadSetting
from ingestor.output import say
from ingestor.settings import Settings, parse_duration

_DAYS_MAX = 36_500
_FLAGS = {"scopes": "--scope", "certificate_names": "--certificate-name", "name": "NAME"}


def create(
    settings: Settings,
    *,
    replacing: str | None,
    expires_in: str | None,
    **said: str | float | list[str] | None,
) -> int:
    """Makes a key with the fields that are said, and prints its secret. Raises StartupError."""
    now = _now()
    expires = None if expires_in is None else now + _span(expires_in)
    fields = {
        field: tuple(value) if isinstance(value, list) else value for field, value in said.items() if value
    }
    if "scopes" not in fields and replacing is None:
        msg = (
            "say what the key allows: --scope write, --scope write:billing. --scope read, --scope admin, ..."
        )
        raise BadSetting(msg)
    made: list[tuple[Key, str]] = []

    def add(keys: Keys) -> Iterable[Key]:
        id_ = new_id()
        while keys.get(id_) is not None:
            id_ = new_id()
        text = new_text(id_)
        old = {"caller": id_} if replacing is None else dict(_known(keys, replacing))
        own = {"id": id_, "sha256": digest(text), "created": now, "expires": expires, "revoked": None}
        key = _valid({**old, **fields, **own})
        made.append((key, text))
        if not keys.all:
            _note("from now on every call needs a key (a running server notices within seconds)")
        return [*keys.all, key]

    KeysFile(settings.keys_path).change(add)
    [(key, text)] = made
    _note(_line(key, now))
    _note(f"the secret is shown this once: {settings.keys_path} has its hash alone")
    say(text)
    return 0


def list_(settings: Settings, *, as_json: bool) -> int:
    """Prints all keys. Raises StartupError."""
    found = KeysFile(settings.keys_path).read()
    keys = () if found is None else found.all
    now = _now()
    for key in keys:
        say(key.model_dump_json(exclude={"sha256"}) if as_json else _line(key, now))
    if not keys and not as_json:
        say(f"no keys in {settings.keys_path}: who reaches the ports may call everything")
    return 0


def revoke(settings: Settings, *, id_: str) -> int:
    """Ends a key's validity. Raises StartupError."""
    now = _now()

    def change(keys: Keys) -> Iterable[Key]:
        if _known(keys, id_).revoked is not None:
            msg = f"the key {id_} is revoked already"
            raise BadSetting(msg)
        changed = [key.model_copy(update={"revoked": now}) if key.id == id_ else key for key in keys.all]
        if all(key.state(now) != "valid" for key in changed):
            _note("no valid key is left: every call is refused")
        return changed

    KeysFile(settings.keys_path).change(change)
    say(f"{id_} is revoked; a running server notices within seconds")
    return 0


def _known(keys: Keys, id_: str) -> Key:
    key = keys.get(id_)
    if key is None:
        # What has not the form of an id may be a secret, pasted by mistake.
        shown = f"the id {id_}" if ID.fullmatch(id_) else "that id (8 letters and digits)"
        msg = f"no key has {shown}: ingestor keys list"
        raise BadSetting(msg)
    return key


def _valid(fields: Mapping[str, object]) -> Key:
    try:
        return Key.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0])
        flag = _FLAGS.get(field, f"--{field.replace('_', '-')}")
        msg = f"{flag}: {str(first['msg']).removeprefix('Value error, ')}"
        raise BadSetting(msg) from None


def _span(text: str) -> timedelta:
    try:
        span = parse_duration(text)
    except ValueError as error:
        msg = f"--expires-in: {error}"
        raise BadSetting(msg) from None
    if not isinstance(span, timedelta) or not timedelta(seconds=1) <= span <= timedelta(days=_DAYS_MAX):
        msg = f"--expires-in: must lie between 1s and {_DAYS_MAX}d"
        raise BadSetting(msg)
    return span


def _line(key: Key, now: datetime) -> str:
    """All that is worth knowing of it."""
    facts = [key.id, _state(key, now), repr(key.name), *key.scopes]
    facts += [
        f"{value:g} {what}"
        for value, what in (
            (key.requests_per_s, "requests/s"),
            (key.metrics_per_s, "metrics/s"),
            (key.series_per_hour, "series/h"),
        )
        if value is not None
    ]
    facts += [f"certificate {name!r}" for name in key.certificate_names]
    if key.caller != key.id:
        facts.append(f"replaces {key.caller}")
    return "  ".join(facts)


def _state(key: Key, now: datetime) -> str:
    state = key.state(now)
    if state == "revoked":
        return f"revoked {key.revoked:%Y-%m-%d %H:%M}"
    if key.expires is None:
        return "valid"
    return f"{'expired' if state == 'expired' else 'valid until'} {key.expires:%Y-%m-%d %H:%M}"


def _note(line: str) -> None:
    """Beside the answer, which scripts read."""
    print(line, file=sys.stderr)  # noqa: T201


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
