"""Memory: the file that a machine's memory is saved to, and the one with its configuration beside it.

A handle names them: an absolute path (of the memory; the configuration then comes from whoever restores it), or six ids with
commas between them: storage domain, pool, image and volume of the memory, image and volume of the configuration.

It promises that a half-written memory is not taken for a whole one, and that what is read from a storage domain can hold
nothing but plain values. Files are touched by programs of their own: a thread that waits for a storage which does not answer
could not be joined before an exec.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import msgspec

from drivers import programs
from drivers.errors import Failed, Invalid
from drivers.vm.changes.images import Images

WHOLE = b"LibvirtQemudSave"
"""How a memory begins that libvirt has written to its end; before that, it begins otherwise."""
PATIENCE = 60.0
LARGEST = 2**20


class Places(msgspec.Struct, frozen=True):
    """Paths. `params` is '' when the handle names no file for the configuration."""

    memory: str
    params: str = ""


def places_of(images: Images, handle: str) -> Places:
    """Return what a handle names, ready to be opened. Raises Invalid, or ImageUnavailable."""
    if handle.startswith("/"):
        return Places(images.prepare({"path": handle}))
    ids = handle.split(",")
    if len(ids) != 6 or not all(ids):
        raise Invalid(what="hiberVolHandle", reason="expected an absolute path, or six ids with commas between them")
    domain, pool = ids[:2]
    paths = [
        images.prepare({"device": "disk", "domainID": domain, "poolID": pool, "imageID": image, "volumeID": volume})
        for image, volume in (ids[2:4], ids[4:])
    ]
    return Places(*paths)


def is_whole(path: str) -> bool:
    """Say whether the file holds a memory that was written to its end. Raises Failed when it cannot be read."""
    return _read(path, len(WHOLE)) == WHOLE


def write_params(path: str, conf: dict[str, Any]) -> None:
    """Write a configuration, in the form that this has always had: a pickle of a struct. Raises Failed."""
    data = pickle.dumps(conf, protocol=2)
    argv = ["/usr/bin/dd", f"of={path}", "bs=1M", "iflag=fullblock", "conv=notrunc,fsync", "status=none"]
    ran = programs.run(argv, timeout=PATIENCE, data=data)
    if ran.code:
        raise Failed(action=f"writing {path}", reason=ran.reason())


def read_params(path: str) -> dict[str, Any]:
    """Return the configuration in the file. Raises Failed."""
    data = _read(path, LARGEST)
    try:
        conf = _Plain(io.BytesIO(data), encoding="utf-8").load()
    except Exception as error:  # what is no pickle can fail in any way
        raise Failed(action=f"reading {path}", reason=f"it holds no configuration: {error}") from error
    if not isinstance(conf, dict):
        raise Failed(action=f"reading {path}", reason="it holds no configuration")
    return {str(key): value for key, value in conf.items()}


class _Plain(pickle.Unpickler):
    """A pickle can name any function to be called with anything. Here it can name none."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _read(path: str, count: int) -> bytes:
    ran = programs.run(["/usr/bin/head", "-c", str(count), path], timeout=PATIENCE)
    if ran.code:
        raise Failed(action=f"reading {path}", reason=ran.reason())
    return ran.out
