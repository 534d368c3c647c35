"""Being the rehearsal: the child that tries, with the code now on disk, what a run of it would do with a document.

It promises to touch nothing, and that what it accepts, a run of the same code can take over: it imports everything a run
will ever import, reads the configuration, and decodes every record.
"""

from __future__ import annotations

import sys

from state import handoff, records
from vdsmd import config, deferred
from vdsmd.daemon import records_of


def rehearse(path: str, config_path: str) -> int:
    """Be the rehearsal. Prints the reason of a refusal as the last line of standard error; returns the exit status."""
    try:
        document = handoff.load(path)
        config.load(config_path)
        deferred.load()
        _import_late()
        records_of(document)
    except (records.RecordError, config.ConfigError, OSError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _import_late() -> None:
    """Import what a run imports on its way to serve, after this module's own imports."""
    import vdsmd.endpoints
    import vdsmd.service  # noqa: F401
