"""Be the keeper: the daemon has put a socket at descriptor 3. The argument is a name to be listed by."""

from __future__ import annotations

import os
import signal
import threading

from drivers.storage.keeper.server import Server

SOCKET = 3


def main() -> None:
    os.chdir("/")
    server = Server(SOCKET)
    # A Ctrl-C at the terminal is meant for the daemon, which closes the socket when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # It is how sanlock asks for its leases back. The thread: a handler must not wait.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.lose, args=("it was told to end",)).start())
    server.serve()
    server.close()
    os._exit(0)  # threads of ours may be stuck in the kernel


if __name__ == "__main__":
    main()
