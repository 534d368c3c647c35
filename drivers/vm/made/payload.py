"""Payloads: files that a caller wants a guest to find, on a CD or a floppy that is made for it.

It promises that what can be asked for can be made: names and sizes are looked at when the machine is taken in, so that only the
host can fail at its start; and that nobody but us can read what is made. Imported after the first answer.
"""

from __future__ import annotations

import binascii
import hashlib
import os
import re
import shutil
import tempfile
from typing import Any

from drivers import programs
from drivers.errors import Failed, Invalid, Unsupported

Struct = dict[str, Any]

MOST = 2**20
"""Bytes of all files of a payload. They are part of the machine's configuration, which is written down as a whole."""
MOST_FILES = 256
LONGEST_NAME = 64
DEEPEST = 8
LONGEST_LABEL = {"cdrom": 32, "floppy": 11}
FLOPPY_KIB = 1440
TIMEOUT = 60.0
SYSPREP = "sysprep.inf"

_ISO_MAKERS = ("xorrisofs", "genisoimage", "mkisofs")
"""Programs that understand the same options, the best kept first."""
_UNFIT_FOR_FAT = re.compile(r'[:*?"<>|\\]|[. ]$')


def sysprep(answers: object) -> list[Struct]:
    """Return the devices that the parameter `sysprepInf` stands for: a floppy with the answers to Windows' set-up. Raises
    Invalid."""
    if answers in ("", b"", None):
        return []
    if not isinstance(answers, str | bytes):
        raise Invalid(what="sysprepInf", reason="expected base64, or text")
    content = encoded(answers.encode() if isinstance(answers, str) else answers)
    payload = {"file": {SYSPREP: content}}
    return [{"type": "disk", "device": "floppy", "iface": "fdc", "index": 0, "specParams": {"vmPayload": payload}}]


def check(device: str, said: Struct, where: str) -> None:
    """Raise Invalid or Unsupported when no medium of the kind ('cdrom' or 'floppy') can be made of the payload `said`:
    {file: {path on the medium: content in base64}, volId: its label}."""
    if device not in LONGEST_LABEL:
        raise Unsupported(what=where, reason="files come to a guest on a CD or a floppy only")
    label, files = said.get("volId", ""), said.get("file")
    most = LONGEST_LABEL[device]
    if not isinstance(label, str) or len(label) > most or not re.fullmatch(r"[\w. -]*", label, re.ASCII):
        raise Invalid(what=f"{where}.volId", reason=f"expected up to {most} letters, digits, '_', '-'")
    if not isinstance(files, dict) or not 0 < len(files) <= MOST_FILES:
        raise Invalid(what=f"{where}.file", reason=f"expected a struct of 1 to {MOST_FILES} files")
    _check_names(files, device, where)
    size = sum(len(_content(name, content, where)) for name, content in files.items())
    if size > MOST:
        raise Invalid(what=f"{where}.file", reason=f"the files have {size} bytes, more than {MOST}")


def path_of(folder: str, vm_id: str, disk: Struct) -> str:
    """Return where the medium of a machine's disk lies: no two disks have the same one, even with the same files."""
    said = disk["specParams"]["vmPayload"]
    told = repr((disk["device"], disk["name"], said.get("volId", ""), sorted(said["file"].items())))
    digest = hashlib.md5(told.encode(), usedforsecurity=False).hexdigest()
    return f"{folder}/{vm_id}.{digest}.img"


def made(folder: str, vm_id: str) -> list[str]:
    """Return the paths of all media of a machine that there are."""
    try:
        return [f"{folder}/{name}" for name in os.listdir(folder) if name.startswith(f"{vm_id}.")]
    except FileNotFoundError:
        return []


def make(folder: str, vm_id: str, disk: Struct) -> str:
    """Make the medium of a disk, unless it is there, and return its path. Raises Failed or Unsupported: then there is none."""
    path, device, said = path_of(folder, vm_id, disk), disk["device"], disk["specParams"]["vmPayload"]
    os.makedirs(folder, mode=0o711, exist_ok=True)
    if not os.path.exists(path):
        half_made = f"{path}.new"
        try:
            with tempfile.TemporaryDirectory(prefix=f"{vm_id}.", dir=folder) as directory:
                _write(directory, said["file"])
                _MAKERS[device](directory, half_made, said.get("volId", ""))
            os.chmod(half_made, 0o600)
            os.rename(half_made, path)
        except OSError as error:
            raise Failed(action=f"making a {device} from files", reason=error) from error
        finally:
            _remove(half_made)
    return path


def remove(folder: str, vm_id: str) -> None:
    """Remove all media of a machine, and what a crash has left of one that was being made."""
    for path in made(folder, vm_id):
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            _remove(path)


def _check_names(files: Struct, device: str, where: str) -> None:
    seen: set[str] = set()
    for name in files:
        parts = name.split("/")
        strange = len(parts) > DEEPEST or any(part in ("", ".", "..") or len(part) > LONGEST_NAME for part in parts)
        if strange or not name.isprintable() or (device == "floppy" and any(map(_UNFIT_FOR_FAT.search, parts))):
            raise Invalid(what=f"{where}.file", reason=f"cannot be the name of a file on a {device}: {name!r:.100}")
        # FAT and Joliet tell no capitals from small letters.
        seen.add(name.lower())
    folders = {name.rsplit("/", up)[0] for name in seen for up in range(1, name.count("/") + 1)}
    if len(seen) < len(files) or seen & folders:
        raise Invalid(what=f"{where}.file", reason="two files have the same name, or one that of a folder")


def _content(name: str, content: object, where: str) -> bytes:
    try:
        return binascii.a2b_base64(re.sub(r"\s", "", content), strict_mode=True)  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise Invalid(what=f"{where}.file.{name:.60}", reason=f"not base64: {error}") from None


def encoded(content: bytes) -> str:
    """Return the content of a file as a payload has it."""
    return binascii.b2a_base64(content, newline=False).decode()


def _write(directory: str, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = f"{directory}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "xb") as file:
            file.write(_content(name, content, "vmPayload"))


def _make_cd(directory: str, path: str, label: str) -> None:
    program = next(filter(None, map(shutil.which, _ISO_MAKERS)), None)
    if program is None:
        raise Unsupported(what="a CD from files", reason=f"none of these is installed: {', '.join(_ISO_MAKERS)}")
    named = ["-V", label] if label else []
    _run([program, "-quiet", "-J", "-r", *named, "-o", path, directory])


def _make_floppy(directory: str, path: str, label: str) -> None:
    program = shutil.which("mtools")
    if program is None:
        raise Unsupported(what="a floppy from files", reason="mtools is not installed")
    named = ["-v", label] if label else []
    _run([program, "-c", "mformat", "-C", "-f", str(FLOPPY_KIB), *named, "-i", path, "::"])
    entries = [f"{directory}/{name}" for name in sorted(os.listdir(directory))]
    _run([program, "-c", "mcopy", "-s", "-D", "s", "-i", path, *entries, "::"])


_MAKERS = {"cdrom": _make_cd, "floppy": _make_floppy}


def _run(argv: list[str]) -> None:
    ran = programs.run(argv, timeout=TIMEOUT, env={**os.environ, "LC_ALL": "C.UTF-8"})
    if ran.code:
        raise Failed(action=f"making a medium with {os.path.basename(argv[0])}", reason=ran.reason())


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
