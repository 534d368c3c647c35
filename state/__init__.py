"""What survives a re-exec, and how: records, descriptors, children, the state directory and the hand-off."""

from __future__ import annotations

import sys

if "typing_extensions" not in sys.modules:
    # msgspec takes typing_extensions where it is installed, beside test tools for example, though typing has all that it
    # needs. That import is a tenth of the pause of a re-exec, so it is hidden for this moment.
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    import msgspec as msgspec

    del sys.modules["typing_extensions"]
