"""How long to wait before trying again: pure, bounded and jittered.

It decides no number of attempts; the plan does.
"""

from __future__ import annotations

import random

FIRST_S = 0.05
BACKOFF_S_MAX = 2.0
# A server's own wish is honoured up to here; beyond it the wait would outlast most runs.
RETRY_AFTER_S_MAX = 30.0


def delay_s(attempt: int, retry_after_s: float | None = None, jitter: float | None = None) -> float:
    """The wait after failed attempt number `attempt` (from 0); `jitter` in [0, 1) replaces chance in tests.

    Retry-After is a minimum, and half of the backoff on top keeps clients from returning together.
    """
    jitter = random.random() if jitter is None else jitter  # noqa: S311 - not for secrets
    backoff_s = min(BACKOFF_S_MAX, FIRST_S * 2.0 ** min(attempt, 30))
    if retry_after_s is not None:
        return min(retry_after_s, RETRY_AFTER_S_MAX) + backoff_s * jitter / 2
    return backoff_s * (0.5 + jitter / 2)
