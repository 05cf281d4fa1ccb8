"""What a key allows, as words: `write`, `write:billing.`, `read`, `read:billing.`, `admin`.

A prefix is compared with service names character by character: no case is folded, nothing is normalised, so that
what looks alike is not taken for the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ingestor.caller import EVERYTHING

_PREFIX_BYTES_MAX = 255
_FORMS = "write, write:PREFIX, read, read:PREFIX or admin"


class Scopes(NamedTuple):
    """Which services may be written and read, by prefixes of their names, and whether everything else may be
    done."""

    write_prefixes: tuple[str, ...]
    read_prefixes: tuple[str, ...]
    admin: bool


def scopes(words: Iterable[str]) -> Scopes:
    """What these words allow together. Raises ValueError for one that is none."""
    prefixes: dict[str, list[str]] = {"write": [], "read": []}
    admin = False
    for word in words:
        verb, colon, prefix = word.partition(":")
        if word == "admin":
            admin = True
        elif verb not in prefixes:
            msg = f"{word[:80]!r} is no scope: write {_FORMS}"
            raise ValueError(msg)
        elif colon and (problem := _prefix_problem(prefix)):
            msg = f"the scope {word[:80]!r} {problem}: write {_FORMS}"
            raise ValueError(msg)
        else:
            prefixes[verb].append(prefix)
    if admin:
        return Scopes(EVERYTHING, EVERYTHING, admin=True)
    return Scopes(_fewest(prefixes["write"]), _fewest(prefixes["read"]), admin=False)


def _prefix_problem(prefix: str) -> str | None:
    if not prefix:
        return "has an empty prefix"
    # What no scope in a list, a log line or a shell could be told from, or what turns around what stands beside it.
    if any(character in ", " or not character.isprintable() for character in prefix):
        return "has white space, a comma or a character that can't be printed in its prefix"
    if len(prefix.encode()) > _PREFIX_BYTES_MAX:
        return f"has a prefix of more than {_PREFIX_BYTES_MAX} bytes"
    return None


def _fewest(prefixes: list[str]) -> tuple[str, ...]:
    """Without those that others begin."""
    kept: list[str] = []
    for prefix in sorted(prefixes):
        if not prefix.startswith(tuple(kept)):
            kept.append(prefix)
    return tuple(kept)
