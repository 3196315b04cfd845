"""Run a program that ends with its parent: `python -I -S _exec.py tied|detached SIGNAL PARENT_PID PROGRAM ARGUMENT...`.

A program of its own, because what it does must happen between fork and exec, and `preexec_fn` is not safe in a
process with threads. It imports the standard library alone, so it costs some 20 ms.
"""

from __future__ import annotations

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    mode, death_signal, parent, argv = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    # A shell's background job inherits an ignored SIGINT, which would make the program deaf to a polite stop.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if mode == "detached":
        if os.fork():
            os._exit(0)  # the program is init's child now: nobody's zombie, and no terminal's
    elif sys.platform == "linux" and death_signal:
        import ctypes  # not at the top: other platforms have no use for it

        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != parent:  # it died before the kernel knew of our wish
            os._exit(1)
    os.execvp(argv[0], argv)  # noqa: S606  (no shell is what we want)


main()
