"""The root image of a virtual host: made once, kept, and never written to again.

It promises that what is found under its name is whole and made by today's recipe: any change of the recipe is another name.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

RECIPE = Path(__file__).parent / "recipe"
SIZE = "8G"
"""Of the file system. What is not used takes no room."""
LAYOUT = 1
"""To be raised when this module makes an image of the same recipe another way."""


class ImageError(Exception):
    """The image cannot be made. The text says why."""


class Image(NamedTuple):
    """Files of an image. `key` lets one in, as root."""

    root: Path
    kernel: Path
    initrd: Path
    key: Path


def obtain(cache: Path) -> Image:
    """Return the image, made if need be, which takes two minutes and the network. Others, older ones, are removed. Raises
    ImageError."""
    suite = _suite()
    folder = cache / f"image-{suite}-{_checksum(suite):08x}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _make(folder, suite)
        # An image that is in use by somebody keeps its room on the disk until they have ended.
        for other in {*cache.glob("image-*"), *cache.glob("new-*")} - {folder}:
            shutil.rmtree(other, ignore_errors=True)
    return Image(folder / "root.img", folder / "vmlinuz", folder / "initrd.img", folder / "key")


def _suite() -> str:
    """Return the release of Debian: this machine's own, because the checkout's Python packages are made for its Python."""
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition("=")
        if name == "VERSION_CODENAME":
            return value.strip('"')
    raise ImageError("/etc/os-release names no release of Debian")


def _checksum(suite: str) -> int:
    value = zlib.crc32(f"{LAYOUT} {SIZE} {suite}".encode())
    for path in sorted(RECIPE.iterdir()):
        value = zlib.crc32(path.read_bytes(), value)
    return value


def _make(folder: Path, suite: str) -> None:
    if os.geteuid() != 0:
        raise ImageError("only root can make the root image: devices and owners of files are in it")
    new = Path(tempfile.mkdtemp(prefix="new-", dir=folder.parent))
    try:
        _fill(new, suite)
        new.chmod(0o755)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _fill(new: Path, suite: str) -> None:
    key, tree, root = new / "key", new / "tree", new / "root.img"
    begun = time.monotonic()
    _run("keys", ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(key)])
    packages = [line.split()[0] for line in _packages()]
    bootstrap = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}"]
    options = ['--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Retries "3"']
    hook = f"--customize-hook=KEYS='{new}' '{RECIPE / 'customize'}' \"$1\""
    _run(f"a {suite} of {len(packages)} packages", [*bootstrap, *options, hook, suite, str(tree), *_sources(suite)])
    for name in ("vmlinuz", "initrd.img"):
        # Links to the newest, whose names have its version in them.
        shutil.copyfile((tree / "boot" / os.readlink(tree / name).rpartition("/")[2]), new / name)
    _run(
        "its file system", ["mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=1", "-d", str(tree), str(root), SIZE]
    )
    _run("room", ["rm", "-rf", "--one-file-system", str(tree)])
    say(f"the image is made, in {time.monotonic() - begun:.0f} s")


def _packages() -> list[str]:
    lines = (RECIPE / "packages").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _sources(suite: str) -> list[str]:
    """Return what this machine's apt reads of that release (it may be a mirror), as lines of a sources.list; or nothing, for
    Debian's own servers."""
    form = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", form, "Created-By: Packages", "Origin: Debian"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    wanted = (suite, f"{suite}-updates", f"{suite}-security")
    return sorted({line for line in listed.stdout.splitlines() if line.split()[2] in wanted})


def _run(what: str, command: Sequence[str]) -> None:
    """Raises ImageError, with the end of what the command said."""
    say(f"making {what}")
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
    )  # fmt: skip
    if done.returncode:
        end = "\n".join(done.stdout.splitlines()[-20:])
        raise ImageError(f"{command[0]} ended with status {done.returncode}:\n{end}")


def say(text: str) -> None:
    """Tell people, who wait."""
    print(f"lab: {text}", file=sys.stderr, flush=True)
