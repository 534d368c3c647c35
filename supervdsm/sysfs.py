"""Numbers and texts in sysfs.

It promises that several numbers are set together: when the kernel refuses one, those before it are put back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from supervdsm.errors import ActionError, Unsupported
from supervdsm.meanings import meaning


def read(path: str) -> str | None:
    """Return the text, without the space around it; None where there is no such file, or the device has none to give."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def number(path: str) -> int:
    """Return the number in it. Raises Unsupported where there is none."""
    text = read(path)
    if text is None or not text.isdigit():
        raise Unsupported(f"this host has no {path}")
    return int(text)


def write(path: str, value: int) -> None:
    """Raises what the kernel's refusal means."""
    with meaning(f"{path} = {value}"):
        fd = os.open(
            path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC
        )  # never O_CREAT: it is there, or the host cannot do it
        try:
            os.write(fd, f"{value}\n".encode())
        finally:
            os.close(fd)


def write_all(directory: str, values: Mapping[str, int]) -> None:
    """Set the files to these numbers, in this order; all of them or, if that can be, none."""
    before = {name: number(f"{directory}/{name}") for name in values}
    done: list[str] = []
    try:
        for name, value in values.items():
            if value != before[name]:
                write(f"{directory}/{name}", value)
                done.append(name)
    except ActionError:
        for name in reversed(done):
            write(f"{directory}/{name}", before[name])
        raise
