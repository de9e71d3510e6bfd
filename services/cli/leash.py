"""Becomes another program that ends when its parent does: ``python -m services.cli.leash PID ...``.

A supervisor that is killed outright can stop nobody, so on Linux the kernel does it: it sends
SIGTERM to a process that asked for that once the *thread* that forked it ends (prctl(2),
PR_SET_PDEATHSIG). The request survives exec, so this small process makes it and then becomes the
child. Doing the same between fork and exec, in a process with gRPC's threads, can deadlock.
Elsewhere a killed supervisor leaves its children behind.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent and become the program that the arguments name."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
        if os.getppid() != parent:
            # It ended before the request was made: nobody would ever send the signal.
            raise SystemExit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
