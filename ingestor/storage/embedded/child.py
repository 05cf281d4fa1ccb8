"""A script, run in a fresh interpreter, that becomes PostgreSQL's user and then PostgreSQL.

It exists so that no Python of ours runs between fork and exec: after a fork of a process with threads
(pyarrow's, the waiters') a `preexec_fn` may meet a lock that nobody will ever release, and Python 3.12
warns of it; a fresh interpreter costs 30 ms and can't. It refuses to import anything of this project, and
to go on when its parent is not the process that it was started for.

Invariants: the death signal is set after the change of user, which clears it, and before the look at the
parent, whose death in between would otherwise go unnoticed; whatever is needed after the change of user is
imported before it, because the new user may not be able to read this interpreter's files.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_CANNOT = 127


def become(uid: int, gid: int) -> None:
    if os.geteuid() != uid:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)


def die_with(parent: int, death_signal: int) -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        raise OSError("the ingestor that started it is gone")


def run(uid: int, gid: int, parent: int, death_signal: int, command: list[str]) -> None:
    # Python ignores these two, and what is ignored stays so after exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o077)
    become(uid, gid)
    die_with(parent, death_signal)
    try:
        os.execv(command[0], command)  # noqa: S606 - to become it is the point
    except OSError as error:
        error.filename = command[0]
        raise


def reach(uid: int, gid: int, paths: list[str]) -> None:
    """Writes the first path that the user can't enter (a directory) or read (a file)."""
    become(uid, gid)
    for path in paths:
        if not os.access(path, os.X_OK if os.path.isdir(path) else os.R_OK):  # noqa: PTH112 - starts faster
            sys.stdout.buffer.write(os.fsencode(path))
            return


def main(verb: str, uid: str, gid: str, *rest: str) -> None:
    if verb == "reach":
        reach(int(uid), int(gid), list(rest))
    else:
        run(int(uid), int(gid), int(rest[0]), int(rest[1]), list(rest[2:]))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        sys.stderr.write(f"error: cannot run as uid {sys.argv[2]}: {error}\n")
        sys.exit(_CANNOT)
