"""The rights that storing takes, so that a role which only stores need not own anything.

Each is one that can be granted by name; what is missing is said as the statements that grant it.
"""

from __future__ import annotations

import asyncio

from ingestor.storage.faults import FAILURES
from ingestor.storage.transactions import AnyConnection, TransactionManager

# By what they are granted on.
_TABLES = {
    "metrics": ("INSERT",),
    "label_sets": ("SELECT", "INSERT"),
    "metric_series": ("SELECT", "INSERT", "UPDATE"),
    "ingestor_database": ("SELECT",),
    "ingestor_journals": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "request_ids": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "dead_letters": ("SELECT", "INSERT"),
}
# The other functions are everybody's to execute, with the caller's own rights.
_FUNCTIONS = ("ensure_metrics_partition(timestamptz)", "ingestor_summarize_metrics()")
_MISSING = """
SELECT wanted.name FROM unnest($1::text[], $2::text[]) AS wanted (name, "right")
  WHERE NOT has_table_privilege(wanted.name, wanted."right")
"""
_WHO = """
SELECT quote_ident(current_user) AS role,
       coalesce((SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass('metrics')), false) AS partitioned
"""
_TOLD_S_MAX = 5.0
_MAY_NOT_EXECUTE = """
SELECT wanted.name FROM unnest($1::text[]) AS wanted (name) WHERE NOT has_function_privilege(wanted.name, 'EXECUTE')
"""


async def missing(connection: AnyConnection, role: str, *, partitioned: bool) -> str | None:
    """The statements that grant this role what it lacks; None when it lacks nothing. Raises what asyncpg raises."""
    names, rights = zip(*((name, right) for name, rights in _TABLES.items() for right in rights), strict=True)
    lacking = {row["name"] for row in await connection.fetch(_MISSING, names, rights)}
    grants = [f"{', '.join(rights)} ON {name}" for name, rights in _TABLES.items() if name in lacking]
    if partitioned:
        closed = await connection.fetch(_MAY_NOT_EXECUTE, _FUNCTIONS)
        grants += [f"EXECUTE ON FUNCTION {row['name']}" for row in closed]
    return "; ".join(f"GRANT {grant} TO {role}" for grant in grants) or None


async def missing_now(transactions: TransactionManager) -> str | None:
    """The same for whoever we are, after a failure; None also when that can't be told."""
    try:
        async with asyncio.timeout(_TOLD_S_MAX), transactions.connection() as connection:
            who = await connection.fetchrow(_WHO)
            assert who is not None
            return await missing(connection, who["role"], partitioned=who["partitioned"])
    except FAILURES:
        return None
