"""The first lines of every run. They are few, and import little, because nobody can go back from before them."""

from __future__ import annotations

import time

ENTERED = time.monotonic()
"""When this run began to be ours: all that is imported from here on belongs to the step `import`."""

import sys

from vdsmd import takeover


def main() -> int:
    """Return the exit status: 0 stopped on request, 1 could not start, 2 wrong command line or configuration."""
    takeover.begin()
    try:
        from vdsmd import lifecycle

        return lifecycle.main(ENTERED)
    except Exception as error:
        # The last edge: whatever it was, the previous release may still be able to serve.
        takeover.go_back(error)
        raise


if __name__ == "__main__":
    sys.exit(main())
