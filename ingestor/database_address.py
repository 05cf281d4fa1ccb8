"""Where the database is, for commands that are no server: the one of DATABASE_URL, or the embedded one, be it
that a server runs it at the moment or that nobody does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from ingestor.ending import to_its_end
from ingestor.errors import DataDirProblem
from ingestor.settings import Settings
from ingestor.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError
from ingestor.storage.embedded.errors import InUse


@asynccontextmanager
async def database_url(settings: Settings, *, shared: bool = False) -> AsyncIterator[str]:
    """The database's address; an embedded one runs for as long as the block. With `shared` that of an embedded
    one that another process runs will do, and none is made. Raises DataDirProblem."""
    if not settings.embedded:
        yield settings.database_url.get_secret_value()
        return
    if shared and not _is_there(settings.data_dir):
        msg = f"there is no embedded database in {settings.data_dir}: check DATA_DIR, or set DATABASE_URL"
        raise DataDirProblem(msg)
    embedded = EmbeddedPostgres(settings.data_dir)
    try:
        try:
            url = await embedded.start()
        except InUse as error:
            if not shared:
                raise
            url = _running(settings.data_dir, error)
        yield url
    except EmbeddedPostgresError as error:
        raise DataDirProblem(str(error)) from error
    finally:
        await to_its_end(embedded.stop())


def _is_there(data_dir: Path) -> bool:
    try:
        return (data_dir / "postgres").exists()
    except OSError:
        return True  # whoever tries to start it says why it can't be


def _running(data_dir: Path, held: InUse) -> str:
    try:
        folder = (data_dir / "postgres.socket").read_text().strip()
    except OSError:
        raise held from None
    return f"postgresql:/ingestor?host={quote(folder, safe='/')}&port=5432&user=ingestor&sslmode=disable"
