"""Be a helper: the daemon has put a socket at descriptor 3. The argument is only for who reads a list of processes."""

from __future__ import annotations

import os
import signal

from drivers.storage.outside.server import Server

SOCKET = 3


def main() -> None:
    os.chdir("/")
    # A Ctrl-C at the terminal is meant for the daemon, which closes the socket when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Server(SOCKET).serve()
    # Threads of ours may be stuck in the kernel; there is nothing of theirs to tidy up.
    os._exit(0)


if __name__ == "__main__":
    main()
