"""The contract is a module of its own, so pytest has to be told that its asserts are a test's."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.timescale.contract")
