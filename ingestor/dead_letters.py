"""What `ingestor dead-letters list`, `show`, `replay` and `purge` do. They print, and return exit codes.

They never touch a letter that they were not asked to, throw nothing away without a yes, and change no schema.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from ingestor.database_address import database_url
from ingestor.errors import BadSetting, DatabaseProblem, StorageError
from ingestor.output import say
from ingestor.settings import Settings
from ingestor.storage.letters import Letter, Letters
from ingestor.storage.opening import open_as_it_is

SOME_STAYED = 1
_REASON_SHOWN_MAX = 100


async def list_(
    settings: Settings, *, limit: int, service: str | None, since: datetime | None, as_json: bool
) -> int:
    """Prints the newest letters. Raises StartupError."""
    async with _letters(settings) as letters:
        found = await letters.newest(limit, service=service, since=since)
    if as_json:
        for letter in found:
            say(json.dumps(_facts(letter)))
    elif not found:
        say("no dead letters")
    for letter in () if as_json else found:
        metric = letter.metric
        reason = letter.reason[:_REASON_SHOWN_MAX]
        say(
            f"{letter.id:8}  {letter.dead_at:%Y-%m-%d %H:%M:%S}  {letter.sqlstate or '-----'}"
            f"  {metric['service_name']!r} {metric['metric_name']!r} {metric['value']}  {reason}"
        )
    return 0


async def show(settings: Settings, *, id_: int) -> int:
    """Prints all of one letter. Raises StartupError."""
    async with _letters(settings) as letters:
        found = await letters.some([id_])
    _all_there([id_], found)
    say(json.dumps(_facts(found[0]), indent=2, ensure_ascii=False))
    return 0


async def replay(settings: Settings, *, ids: Sequence[int], all_: bool, service: str | None) -> int:
    """Stores letters' metrics again: those of these ids, or without ids all (of this service). Returns 1 when
    some were refused again. Raises StartupError."""
    _one_of(ids, all_=all_, filters={"--service": service})
    async with _letters(settings, to_write=True) as letters:
        chosen = await _chosen(letters, ids, service=service, before=None)
        stored = refused = 0
        async for chunk in letters.replay(chosen):
            stored, refused = stored + chunk.stored, refused + chunk.refused
            _progress(stored + refused, len(chosen))
    say(f"{stored} stored, {refused} refused again" if chosen else "no dead letters")
    return SOME_STAYED if refused else 0


async def purge(
    settings: Settings,
    *,
    ids: Sequence[int],
    all_: bool,
    service: str | None,
    before: datetime | None,
    sure: bool,
) -> int:
    """Deletes letters: those of these ids, or without ids all of this service from before that time. Raises
    StartupError."""
    _one_of(ids, all_=all_, filters={"--service": service, "--before": before})
    async with _letters(settings, to_write=True) as letters:
        chosen = await _chosen(letters, ids, service=service, before=before)
        if not chosen:
            say("no dead letters")
            return 0
        if not sure and not await asyncio.to_thread(_confirmed, len(chosen)):
            say("nothing was deleted")
            return SOME_STAYED
        deleted = 0
        async for some in letters.purge(chosen):
            deleted += some
            _progress(deleted, len(chosen))
    say(f"{deleted} deleted")
    return 0


@asynccontextmanager
async def _letters(settings: Settings, *, to_write: bool = False) -> AsyncIterator[Letters]:
    """Those of a database as it is: to bring its schema up to date is for `serve` and `migrate`."""
    async with database_url(settings, shared=True) as url:
        database = await open_as_it_is(url, to_write=to_write)
        try:
            yield Letters(database)
        except StorageError as error:
            msg = f"the database can't be used: {error}"
            raise DatabaseProblem(msg) from error
        finally:
            await database.close(5.0)


async def _chosen(
    letters: Letters, ids: Sequence[int], *, service: str | None, before: datetime | None
) -> Sequence[int]:
    if not ids:
        return await letters.chosen(service=service, before=before)
    _all_there(ids, await letters.some(ids))
    return ids


def _one_of(ids: Sequence[int], *, all_: bool, filters: Mapping[str, object]) -> None:
    """Raises BadSetting unless letters are named, or all are meant; of named ones nothing is filtered out."""
    if bool(ids) == all_:
        msg = "name dead letters by their ids, or say --all" if not ids else "either ids or --all"
        raise BadSetting(msg)
    given = [name for name, value in filters.items() if value is not None]
    if ids and given:
        msg = f"{' and '.join(given)} can't be combined with ids, only with --all"
        raise BadSetting(msg)


def _all_there(ids: Sequence[int], found: Sequence[Letter]) -> None:
    """Raises BadSetting for ids of which there is no letter."""
    missing = sorted(set(ids) - {letter.id for letter in found})
    if missing:
        msg = f"no dead letter has the id {', '.join(map(str, missing))}: ingestor dead-letters list"
        raise BadSetting(msg)


def _facts(letter: Letter) -> dict[str, object]:
    return {
        "id": letter.id,
        "dead_at": letter.dead_at.isoformat(),
        "sqlstate": letter.sqlstate,
        "reason": letter.reason,
        "metric": letter.metric,
        "request_id": letter.request_id,
        "journal": letter.journal,
        "position": letter.position,
    }


def _confirmed(count: int) -> bool:
    if not sys.stdin.isatty():
        msg = f"{count} dead letters would be deleted for good: say --yes"
        raise BadSetting(msg)
    print(f"delete {count} dead letters for good? [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and total:
        print(f"\r{done} of {total}", end="\n" if done >= total else "", file=sys.stderr, flush=True)  # noqa: T201
