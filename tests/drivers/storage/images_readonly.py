"""Storage that is really mounted read-only amid a task: a program, for a mount namespace of its own, in a given directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from drivers.storage.tasks import engine
from tests.drivers.storage.images_faults import Fault, World
from tests.drivers.storage.tasks_stand import Farm


class Mounted(Fault):
    """The kernel refuses, not we."""

    def __init__(self, farm: Farm, what: str, number: int) -> None:
        self._mount = str(farm.base / "repo")
        super().__init__(farm, what, number)

    def strike(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", self._mount], check=True)

    def heal(self) -> None:
        subprocess.run(["mount", "-o", "remount,rw", self._mount], check=True)
        super().heal()

    def refuse(self, op: str, arguments: dict[str, Any]) -> None:
        """The call goes on, to where it fails."""

    def refused(self, argv: list[str]) -> list[str]:
        return argv


class Mounting(World):
    fault = Mounted

    def copy(self) -> Farm:
        subprocess.run(["cp", "-a", self._origin, self._place], check=True)
        repo = self._place / "repo"
        subprocess.run(["mount", "-t", "tmpfs", "none", repo], check=True)
        subprocess.run(["cp", "-a", f"{self._origin}/repo/.", repo], check=True)
        return Farm(self._place)

    def drop(self, farm: Farm) -> None:
        farm.close()
        subprocess.run(["umount", self._place / "repo"], check=True)
        self.remove()


def main(place: Path, kinds: list[str]) -> None:
    engine.AGAIN = 0.05
    for count, kind in enumerate(kinds):
        (place / str(count)).mkdir()
        world = Mounting(place / str(count), kind)
        for number in world.chosen("mounted"):
            world.run("read-only", number)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
