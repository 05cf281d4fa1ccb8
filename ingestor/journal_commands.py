"""What `ingestor journal status`, `verify`, `export` and `adopt` do. They print, and return exit codes.

The first three only read, also while a server runs; `adopt` changes whose metrics a journal holds, and needs it
alone.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from ingestor.database_address import database_url
from ingestor.errors import DatabaseProblem, JournalProblem, StorageError
from ingestor.journal.directory import DiskDirectory
from ingestor.journal.inventory import take_inventory
from ingestor.journal.limits import LogLimits
from ingestor.journal.log import SegmentLog
from ingestor.journal.segments import is_set_aside
from ingestor.journal.survey import Exported, Survey, export, survey
from ingestor.output import say
from ingestor.settings import Settings
from ingestor.storage.opening import open_database

DAMAGED = 1
_EXPORTED_METRICS_MAX = 1_000
_PROGRESS_BYTES = 64 * 1024**2


def status(settings: Settings, *, as_json: bool = False) -> int:
    """Says what is in the journal. Raises JournalProblem."""
    with _directory(settings) as directory:
        told = None if directory is None else survey(directory, whole=False)
    if told is None:
        say(json.dumps({"journal": None}) if as_json else f"no journal in {settings.data_dir}")
        return 0
    facts = _facts(settings, told)
    if as_json:
        say(json.dumps(facts))
        return 0
    for name, value in facts.items():
        say(f"{name.replace('_', ' '):24} {_shown(value)}")
    return 0


def verify(settings: Settings) -> int:
    """Reads all of it and looks at every checksum. Returns 0 when it is sound, 1 when it isn't. Raises
    JournalProblem."""
    with _directory(settings) as directory:
        told = None if directory is None else survey(directory, whole=True, progress=_progress)
    if told is None:
        say(f"no journal in {settings.data_dir}")
        return 0
    for name in told.damaged_files:
        say(f"damaged   {name}{' was set aside' if is_set_aside(name) else ''}")
    for bad in told.bad:
        what = "are of an append that failed or never ended, or has not yet" if bad.torn else "can't be read"
        kind = "torn" if bad.torn else "damaged"
        say(f"{kind:9} {bad.file}: {bad.end - bad.offset} bytes from {bad.offset} on {what}")
    for first, last in told.gaps:
        say(f"missing   entries {first} to {last}, which are not known to be committed")
    verdict = "sound" if told.sound else "damaged"
    say(f"{verdict:9} {told.entries} entries in {told.segments} files, {told.size_bytes} bytes")
    return 0 if told.sound else DAMAGED


def exported(settings: Settings, *, after: int | None, pending: bool) -> int:
    """Prints entries as lines of JSON, each a LogMetricsRequest. Returns 1 when some are missing, and names them on
    stderr. Raises JournalProblem."""
    missing: list[tuple[int, int]] = []
    with _directory(settings) as directory:
        if directory is not None:
            wanted = None if pending else after or 0
            for entry in export(directory, wanted, lambda first, last: missing.append((first, last))):
                for line in _lines(entry):
                    say(line)
    if not missing:
        return 0
    ranges = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in missing)
    print(f"ingestor: damaged or missing, and not exported: entries {ranges}", file=sys.stderr)  # noqa: T201
    return DAMAGED


async def adopt(settings: Settings) -> int:
    """Gives the journal to the database that DATABASE_URL names. Raises StartupError."""
    await asyncio.to_thread(_must_be_there, settings)  # before an embedded database would be made beside it
    async with database_url(settings) as url:
        try:
            return await _adopt(settings, url)
        except StorageError as error:
            msg = f"the database can't be used: {error}"
            raise DatabaseProblem(msg) from error
        except OSError as error:
            raise _unusable(settings, error) from error


async def _adopt(settings: Settings, url: str) -> int:
    log = await asyncio.to_thread(
        lambda: SegmentLog.open(DiskDirectory.open(settings.data_dir), LogLimits(settings.journal_bytes_max))
    )
    try:
        database = await open_database(url)
        try:
            if log.database == database.identity:
                say(f"nothing to do: the journal in {settings.data_dir} is this database's")
                return 0
            after = await database.adopt_cursor(log.id, log.committed_hint, durable=True)
            metrics = sum(each.rows for each in log.pending(after))
            log.bind(database.identity)
            say(f"the journal is this database's now; the next start stores {metrics} metrics in it")
        finally:
            await database.close(5.0)
    finally:
        log.close()
    return 0


def _must_be_there(settings: Settings) -> None:
    """Raises JournalProblem where a new journal would be made."""
    with _directory(settings) as directory:
        if directory is None or not take_inventory(directory):
            msg = f"there is no journal in {settings.data_dir}: check DATA_DIR"
            raise JournalProblem(msg)


def _unusable(settings: Settings, error: OSError) -> JournalProblem:
    reason = (error.strerror or str(error)).lower()
    return JournalProblem(f"the journal in {settings.data_dir} can't be used: {reason}")


@contextmanager
def _directory(settings: Settings) -> Iterator[DiskDirectory | None]:
    """The journal's directory, to be read; None when there is none."""
    try:
        directory = DiskDirectory.open(settings.data_dir, create=False)
    except FileNotFoundError:
        yield None
        return
    try:
        yield directory
    except OSError as error:
        raise _unusable(settings, error) from error
    finally:
        directory.close()


def _facts(settings: Settings, told: Survey) -> dict[str, Any]:
    age_s = None if told.oldest_pending_us is None else max(0.0, time.time() - told.oldest_pending_us / 1e6)
    return {
        "directory": str(settings.data_dir / "journal"),
        "journal": str(told.journal),
        "database": None if told.database is None else str(told.database),
        "segments": told.segments,
        "bytes": told.size_bytes,
        "bytes_max": int(settings.journal_bytes_max),
        "first_position": told.first,
        "last_position": told.last,
        "committed_position": told.committed,
        "pending_entries": told.pending_entries,
        "pending_metrics": told.pending_metrics,
        "oldest_pending_seconds": None if age_s is None else round(age_s, 3),
        "damaged_files": told.damaged_files,
    }


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _lines(entry: Exported) -> Iterator[str]:
    """Without the request_ids that they came with: a part of a request, or one whose times were filled in, is
    not the same request."""
    labels = {id_: json.loads(document) for id_, document in entry.batch.label_sets.items()}
    columns = entry.batch.columns
    for start in range(0, columns.num_rows, _EXPORTED_METRICS_MAX):
        metrics = []
        for row in columns.slice(start, _EXPORTED_METRICS_MAX).to_pylist():
            metric = {
                "service_name": row["service_name"],
                "metric_name": row["metric_name"],
                "value": row["value"],
                "time": _utc(row["time"]),
            }
            if row["label_set_id"]:
                metric["labels"] = labels[row["label_set_id"]]
            metrics.append(metric)
        yield json.dumps({"metrics": metrics}, ensure_ascii=False, separators=(",", ":"))


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _progress(done: int, total: int) -> None:
    if total > _PROGRESS_BYTES and sys.stderr.isatty():
        end = "\n" if done >= total else ""
        print(f"\rread {100 * done // total} % of {total:,} bytes", end=end, file=sys.stderr, flush=True)  # noqa: T201
