"""Traffic: what root does to the frames of guests' taps and of networks, with the programs `tc` and `nft`.

It promises that what is given to a tap is noted in a folder of root's own, so that it goes with the tap, whoever is alive by
then; and that what is missing on this host is told as Unsupported.
"""

from __future__ import annotations

import os

from supervdsm.errors import Failed, NotAllowed, NotFound, Unsupported
from supervdsm.links import Found, Session, checked
from supervdsm.places import private
from supervdsm.programs import find, run
from supervdsm.registry import Context

TAPS = ("vd", "vnet")
"""How the names of guests' taps begin: ours, and libvirt's."""
MISSING = ("is unknown", "not found", "Failed to load", "not supported")
"""In what the kernel says when it lacks a part."""


def tap(kernel: Session, name: str) -> Found:
    """Return a guest's tap. Raises NotFound and NotAllowed."""
    if not checked(name).startswith(TAPS):
        raise NotAllowed(f"{name} is no guest's: the names of taps begin with {' or '.join(TAPS)}")
    return kernel.must(name, "tun")


def tc(*words: str) -> str:
    """Run tc. Returns what it says; raises Failed, NotFound and Unsupported."""
    ended = run(find("tc"), *words)
    if ended.code:
        raise _meant(ended.output)(
            f"tc {' '.join(words[:5])}: {ended.output.splitlines()[0] if ended.output else ended.code}"
        )
    return ended.output


def tc_undo(*words: str) -> None:
    """Run tc to remove what may be gone by now, perhaps with its device."""
    run(find("tc"), *words)


def nft(rules: str) -> None:
    """Have the rules come into force: all of them, or none. Raises Failed and Unsupported."""
    ended = run(find("nft"), "-f", "-", stdin=rules)
    if ended.code:
        kind = Unsupported if "not supported" in ended.output else Failed
        raise kind(f"nft: {ended.output.splitlines()[0] if ended.output else ended.code}")


def _meant(said: str) -> type[Failed] | type[NotFound] | type[Unsupported]:
    if "Cannot find device" in said:
        return NotFound
    return Unsupported if any(words in said for words in MISSING) else Failed


class Notes:
    """Names with a line of text each, one kind in a folder."""

    def __init__(self, context: Context, *kind: str) -> None:
        self._context = context
        self._folder = os.path.join(context.private_dir, *kind)

    def names(self) -> list[str]:
        try:
            return sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return []

    def read(self, name: str) -> str | None:
        """Return what was written down, None for nothing."""
        try:
            with open(os.path.join(self._folder, checked(name)), encoding="ascii") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def write(self, name: str, text: str = "") -> None:
        private(self._context)
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        with open(os.path.join(self._folder, checked(name)), "w", encoding="ascii") as file:
            file.write(text)

    def remove(self, name: str) -> None:
        try:
            os.unlink(os.path.join(self._folder, checked(name)))
        except FileNotFoundError:
            pass
