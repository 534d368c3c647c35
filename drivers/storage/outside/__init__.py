"""The helper's side: the one process that makes system calls on a directory of storage, for the daemon.

`python -m drivers.storage.outside` speaks on descriptor 3 (`frames`), does what it is asked (`deeds`) in threads (`server`),
watches the storage on its own (`probe`), and reaches nothing outside of its root (`beneath`). It ends when the daemon's end
of the socket is closed. It imports as little as it can: there may be a hundred of them.
"""
