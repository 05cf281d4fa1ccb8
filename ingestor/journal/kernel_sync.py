"""fdatasync by a thread of the kernel's: asked for in a moment, and heard of by the event loop as if it came over a
socket. A thread of ours would have to get the interpreter back from the event loop after each sync, which takes
longer than most disks do.

It refuses to decide what a failure means, and any second sync while one is under way: what it syncs, and whether
some other way is taken where the kernel has none, is its caller's affair.

This is Linux's own asynchronous I/O (io_setup(2), io_submit(2), linux/aio_abi.h), which glibc has no functions for;
IOCB_CMD_FDSYNC is there since Linux 4.18. Reads and writes are not asked of it: those that go through the page
cache it does while one waits.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import sys
from contextlib import suppress
from typing import NamedTuple

from ingestor.journal.files import File


class _Numbers(NamedTuple):
    """Of the system calls (asm/unistd.h)."""

    setup: int
    destroy: int
    submit: int
    getevents: int


_NUMBERS = {"x86_64": _Numbers(206, 207, 209, 208), "aarch64": _Numbers(0, 1, 2, 4)}
_FDSYNC = 3
_TELL_EVENTFD = 1


class _Iocb(ctypes.Structure):
    """struct iocb, little-endian."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_uint32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("fd", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64),
        ("size_bytes", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("eventfd", ctypes.c_uint32),
    )


class _Event(ctypes.Structure):
    """struct io_event."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("iocb", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("result2", ctypes.c_int64),
    )


class KernelSync:
    """One sync at a time, for the event loop that runs when it is made. `close` it in the end."""

    def __init__(self, numbers: _Numbers) -> None:
        """Raises OSError where the kernel has nothing of the kind to give. `open` makes one."""
        self._numbers = numbers
        # Keeps the interpreter: what is asked here takes the kernel microseconds.
        self._call = ctypes.PyDLL(None, use_errno=True).syscall
        self._call.restype = ctypes.c_long
        self._context = ctypes.c_ulong(0)
        self._asked = _Iocb(opcode=_FDSYNC, flags=_TELL_EVENTFD)
        self._list = (ctypes.POINTER(_Iocb) * 1)(ctypes.pointer(self._asked))
        self._told = _Event()
        self._waiting: asyncio.Future[None] | None = None
        self._eventfd = self._asked.eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._system(numbers.setup, ctypes.c_long(1), ctypes.byref(self._context))
        except OSError:
            os.close(self._eventfd)
            raise
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._eventfd, self._ready)

    @classmethod
    def open(cls) -> KernelSync | None:
        """None where there is no such thing: another system, an old kernel, or one that has none left to give
        (fs.aio-max-nr)."""
        numbers = _NUMBERS.get(platform.machine())
        if sys.platform != "linux" or sys.maxsize < 2**32 or numbers is None:
            return None
        try:
            return cls(numbers)
        except OSError:
            return None

    def begin(self, file: File) -> asyncio.Future[None] | None:
        """Begins to sync what was written to the file; the future ends when it is synced, with OSError when that
        failed. None when the kernel doesn't take it, or is at another still; then nothing was begun."""
        if self._waiting is not None:
            return None
        self._asked.fd = file.fileno()
        with suppress(OSError):
            self._system(self._numbers.submit, self._context, ctypes.c_long(1), self._list)
            self._waiting = self._loop.create_future()
        return self._waiting

    def close(self) -> None:
        """Nobody hears any more of what is under way; the process's end waits for that. Takes some 40 ms."""
        if self._eventfd < 0:
            return
        self._loop.remove_reader(self._eventfd)
        if self._waiting is None:  # else it would wait as long as the disk does
            self._system(self._numbers.destroy, self._context)
        os.close(self._eventfd)
        self._eventfd = -1

    def _ready(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._eventfd)
        one = ctypes.c_long(1)
        none = ctypes.c_long(0)
        if not self._system(
            self._numbers.getevents, self._context, none, one, ctypes.byref(self._told), None
        ):
            return
        waiting, self._waiting = self._waiting, None
        if waiting is None or waiting.done():  # its caller was cancelled
            return
        if (number := -self._told.result) > 0:
            waiting.set_exception(OSError(number, os.strerror(number)))
        else:
            waiting.set_result(None)

    def _system(self, number: int, *arguments: object) -> int:
        result = int(self._call(ctypes.c_long(number), *arguments))
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result
