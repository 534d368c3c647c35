"""A copy to a disk that is too small for it: a program, to be run in a mount namespace of its own, in a given directory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.drivers.storage.images_stand import RAW, copy, create, facts, is_clean, new_id, path
from tests.drivers.storage.tasks_stand import SD, Farm


def main(base: Path) -> None:
    farm = Farm(base)
    try:
        image, volume = new_id(), new_id()
        farm.done(create(farm, image, volume, RAW))
        Path(path(farm.local, image, volume)).write_bytes(os.urandom(2 << 20))
        before = facts(farm.local, with_data=False)
        task = farm.ended(copy(farm, (SD, image, volume), (SD, new_id(), new_id())))
        assert (task.state, task.error) == ("recovered", "NoSpaceLeftOnDomain"), task
        assert is_clean(farm.local) and facts(farm.local, with_data=False) == before
        made = farm.ended(create(farm, new_id(), new_id(), RAW, allocation=1))
        assert (made.state, made.error) == ("recovered", "NoSpaceLeftOnDomain"), made
        assert is_clean(farm.local) and facts(farm.local, with_data=False) == before
    finally:
        farm.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
