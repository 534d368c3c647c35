"""Reserve huge pages for guests, and give them back.

It promises all that were asked for or none: a kernel that finds fewer gets those back.
"""

from __future__ import annotations

from supervdsm.errors import Failed, Invalid, Unsupported
from supervdsm.locks import alone
from supervdsm.registry import VDSMD, Context, action
from supervdsm.sysfs import number, read, write

MOST = 1 << 20


@action("hugepages.reserve", callers=(VDSMD,), slow=True, timeout=120)
def reserve(context: Context, count: int, size: int = 2048, node: int | None = None) -> int:
    """Reserve `count` more pages of `size` KiB, on one NUMA node if given. Return how many there are then.

    Raises Invalid, Unsupported (no such size or node here) and Failed (there is not enough memory in one piece).
    """
    directory = _directory(context, count, size, node)
    with alone(context, "hugepages"):  # it is a reading, then a writing: two at once would lose one
        before = number(f"{directory}/nr_hugepages")
        _check_memory(context, count, size)
        write(f"{directory}/nr_hugepages", before + count)
        now = number(f"{directory}/nr_hugepages")
        if now < before + count:
            write(f"{directory}/nr_hugepages", before)
            raise Failed(f"the kernel found memory for {now - before} of {count} huge pages of {size} KiB")
        return now


@action("hugepages.release", callers=(VDSMD,), slow=True, timeout=120)
def release(context: Context, count: int, size: int = 2048, node: int | None = None) -> int:
    """Give back up to `count` pages of `size` KiB: those in use stay. Return how many there are then.

    Raises Invalid and Unsupported.
    """
    directory = _directory(context, count, size, node)
    with alone(context, "hugepages"):
        free = number(f"{directory}/free_hugepages")
        write(f"{directory}/nr_hugepages", max(0, number(f"{directory}/nr_hugepages") - min(count, free)))
        return number(f"{directory}/nr_hugepages")


def _directory(context: Context, count: int, size: int, node: int | None) -> str:
    if not 1 <= count <= MOST:
        raise Invalid(f"huge pages: count must be from 1 to {MOST}")
    if size < 1 or (node is not None and node < 0):
        raise Invalid("huge pages: size and node must not be negative")
    place = "kernel/mm" if node is None else f"devices/system/node/node{node}"
    directory = f"{context.sysfs}/{place}/hugepages/hugepages-{size}kB"
    if read(f"{directory}/nr_hugepages") is None:
        raise Unsupported(f"this host has no huge pages of {size} KiB{'' if node is None else f' on node {node}'}")
    return directory


def _check_memory(context: Context, count: int, size: int) -> None:
    """Raise before the kernel starts to push everything else out for what cannot succeed."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    if count * size > available:
        raise Failed(f"{count} huge pages of {size} KiB are more than the memory that is available ({available} KiB)")
