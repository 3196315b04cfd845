"""The guard: one small process per spawner that outlives it by seconds and ends what it left behind.

`python -m recs.embedded._guard SPAWNER_PID` reads lines `+PID CREATED SIGNAL` and `-PID` from standard input. When
the pipe closes, or its parent is another process, the spawner is gone. On Linux the kernel has told the children
already (see `_exec`); the guard covers what that misses: other systems, children of children, children that do not
heed the signal, and children started by a thread.
"""

from __future__ import annotations

import os
import select
import signal
import sys

from recs.embedded._identity import Identity, end

_POLL_SECONDS = 1.0
_POLITE_SECONDS = 6.0


def main() -> None:
    spawner = int(sys.argv[1])
    # Ctrl-C and a service manager's SIGTERM go to whole groups; the guard must be the last to leave.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    children: dict[int, tuple[Identity, int]] = {}
    pending = b""
    while os.getppid() == spawner:
        if not select.select([0], [], [], _POLL_SECONDS)[0]:
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            break
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"+"):
                pid, created, stop_signal = line[1:].split()
                children[int(pid)] = (Identity(int(pid), float(created)), int(stop_signal))
            else:
                children.pop(int(line[1:]), None)
    end(list(children.values()), _POLITE_SECONDS)


if __name__ == "__main__":
    main()
