"""Lets the event loop go first where threads work beside it: few at once, each of which hands the GIL back soon.

It makes none of them faster: on one GIL, more of them only keep every step of every call waiting.
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

_AT_ONCE = 2
# CPython's own 5 ms are waited for at each of the loop's steps, of which a call has several.
_SWITCH_S = 0.001


def step_aside() -> None:
    """For the running loop's own threads, and for the process."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="aside"))
    sys.setswitchinterval(_SWITCH_S)
