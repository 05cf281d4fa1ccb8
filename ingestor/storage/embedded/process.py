"""A direct child process that dies with us: started through child.py, watched by a thread, ended by steps.

It exists because asyncio and uvloop start processes each in their own way, while this needs one way that
holds on both. It refuses to start anything off the main thread: the kernel sends the death signal when the
starting *thread* ends.

Invariants: the child leads its own session, so that a Ctrl-C at the terminal does not reach it before the
ingestor has drained; it inherits no descriptor but its output, and no setting or secret of our environment.
"""

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress

from ingestor.storage.embedded.errors import EmbeddedPostgresError
from ingestor.storage.embedded.identity import CHILD, Identity, interpreter

_INHERITED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class Child:
    """`exited` gets the return code (negative: the signal) once the process is gone."""

    def __init__(self, process: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._process = process
        self._loop = loop
        self.pid = process.pid
        self.exited: asyncio.Future[int] = loop.create_future()
        # A daemon: a child that survives even SIGKILL (stuck in the kernel) must not keep Python from ending.
        threading.Thread(target=self._wait, name=f"wait-for-{self.pid}", daemon=True).start()

    def send(self, signum: signal.Signals) -> None:
        if not self.exited.done():
            self._process.send_signal(signum)

    async def ended_within(self, seconds: float) -> bool:
        await asyncio.wait({self.exited}, timeout=seconds)
        return self.exited.done()

    async def end(self, steps: Iterable[tuple[signal.Signals, float]]) -> bool:
        """Sends each signal in turn until the process is gone; each has so many seconds to work."""
        for signum, seconds in steps:
            self.send(signum)
            if await self.ended_within(seconds):
                return True
        return False

    def kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
            os.killpg(self.pid, signal.SIGKILL)

    def _wait(self) -> None:
        code = self._process.wait()
        with suppress(RuntimeError):  # the loop was closed: nobody is left to be told
            self._loop.call_soon_threadsafe(self.exited.set_result, code)


def spawn(command: Sequence[str], identity: Identity, output_fd: int, death_signal: signal.Signals) -> Child:
    if threading.current_thread() is not threading.main_thread():
        raise EmbeddedPostgresError(
            "the embedded database must be started on the main thread: start it there"
        )
    helper = [interpreter(), "-I", "-S", CHILD, "run", str(identity.uid), str(identity.gid)]
    process = subprocess.Popen(
        [*helper, str(os.getpid()), str(int(death_signal)), *command],
        stdin=subprocess.DEVNULL,
        stdout=output_fd,
        stderr=output_fd,
        cwd="/",
        env={name: os.environ[name] for name in _INHERITED if name in os.environ}
        | {"LC_ALL": "C", "TZ": "UTC"},
        start_new_session=True,
    )
    return Child(process, asyncio.get_running_loop())


async def run(command: Sequence[str], identity: Identity, output_fd: int, seconds_max: float) -> int | None:
    """The exit code; None when it took too long. Nothing of it is left, however this ends."""
    child = spawn(command, identity, output_fd, signal.SIGKILL)
    try:
        return child.exited.result() if await child.ended_within(seconds_max) else None
    finally:
        child.kill_group()


def told(code: int | None) -> str:
    """How an exit code reads in a message."""
    if code is None:
        return "timed out"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
