"""Going to the background: once, on the first start. A re-exec stays where it is."""

from __future__ import annotations

import daemon

from state.fds import open_numbers


def detach() -> None:
    """Detach from the terminal; the parent ends with status 0, since by now everything that can fail has been tried.

    Every open descriptor is kept: the log's, and the named ones.
    """
    context = daemon.DaemonContext(
        detach_process=True,
        files_preserve=[number for number in open_numbers() if number > 2],
        prevent_core=False,
        signal_map={},
        umask=0o022,
        working_directory="/",
    )
    context.open()
