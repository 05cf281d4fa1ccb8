"""An own PostgreSQL for the ingestor: the binaries of a wheel under a supervisor.

It exists so that the ingestor runs on a machine with nothing installed. It refuses to outlive its ingestor,
to listen on a network, and to change users or directories that are not its own.

Invariants: the only names for others are the two below; all else in this package is its own affair.
"""

from ingestor.storage.embedded.errors import EmbeddedPostgresError
from ingestor.storage.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]
