"""What a database server is, asked of itself.

It judges nothing and changes nothing; whether what was found will do is for `storage.opening`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ingestor.storage.transactions import AnyConnection

TableKind = Literal["hypertable", "partitioned", "ordinary", "absent"]

_FACTS = """
SELECT current_setting('server_version') AS postgresql,
       current_setting('server_version_num')::int / 10000 AS major,
       current_database() AS database,
       current_user AS role,
       (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS timescaledb,
       (SELECT relkind::text FROM pg_class WHERE oid = to_regclass('metrics')) AS relkind,
       inet_server_addr() IS NOT NULL AS by_network,
       (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl) AS tls
"""
_IS_HYPERTABLE = """
SELECT EXISTS (
  SELECT FROM timescaledb_information.hypertables AS h
    JOIN pg_class AS c ON c.relname = h.hypertable_name
    JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = h.hypertable_schema
    WHERE c.oid = to_regclass('metrics'))
"""


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What a server is: its versions (`timescaledb` None without the extension), how its table `metrics` is kept,
    and how our connections to it are encrypted (None where they leave no machine)."""

    postgresql: str
    major: int
    timescaledb: str | None
    database: str
    role: str
    table: TableKind
    encryption: str | None = None

    def __str__(self) -> str:
        timescaledb = f" with TimescaleDB {self.timescaledb}" if self.timescaledb else ""
        encryption = f", {self.encryption}" if self.encryption else ""
        return f"PostgreSQL {self.postgresql}{timescaledb}, database {self.database}, role {self.role}{encryption}"


async def facts(connection: AnyConnection) -> DatabaseFacts:
    """Asks the server what it is. Raises what asyncpg raises."""
    row = await connection.fetchrow(_FACTS)
    assert row is not None
    kinds: dict[str | None, TableKind] = {None: "absent", "p": "partitioned"}
    kind = kinds.get(row["relkind"], "ordinary")
    if row["timescaledb"] and kind == "ordinary" and await connection.fetchval(_IS_HYPERTABLE):
        kind = "hypertable"
    encryption = row["tls"] or ("not encrypted" if row["by_network"] else None)
    return DatabaseFacts(
        row["postgresql"], row["major"], row["timescaledb"], row["database"], row["role"], kind, encryption
    )
