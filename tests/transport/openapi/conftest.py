"""The OpenAPI document of the library."""

from __future__ import annotations

from typing import Any

import pytest

from ingestor.transport.transcoding.openapi import Info, describe
from tests.transport.library.service import Library

UNSERVED = "/library.v1.LibraryService/RateBook"


@pytest.fixture(scope="session")
def document(made_library: Library) -> dict[str, Any]:
    """Of all of it but one method, as if that were not served."""
    served = {rpc.path for rpc in made_library.rpcs} - {UNSERVED}
    made = made_library.descriptors
    return describe(list(made.files.values()), made.pool, served, Info("Library", "1.2", "Lends books."))
