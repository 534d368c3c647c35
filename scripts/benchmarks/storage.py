"""Copies, uploads and downloads against plain programs in the same run, volumes made per second, and lists of a full domain."""

from __future__ import annotations

import argparse
import http.client
import os
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from drivers.storage.volume_metadata import Allocation, Format, VolumeRole, encode, fresh
from scripts.benchmarks.client import Client, percentile, request
from scripts.benchmarks.lab import Lab, say, until

BLANK = "00000000-0000-0000-0000-000000000000"
COW, RAW, SPARSE, DATA_DISK = 4, 5, 2, 2
MIB = 1 << 20
CHUNK = MIB
VERSION = 3


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mib", type=int, default=1024, help="size of what is copied and carried (default: 1024)")
    where = "where the domain lies (default: /dev/shm, where all rounds are alike)"
    parser.add_argument("--directory", default="/dev/shm", help=where)
    parser.add_argument("--rounds", type=int, default=5, help="rounds, ours and theirs in turn (default: 5)")
    parser.add_argument("--made", type=int, default=200, help="volumes to be made (default: 200)")
    parser.add_argument("--listed", type=int, default=2000, help="volumes of the domain that is listed (default: 2000)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    base = Path(tempfile.mkdtemp(prefix="vb-", dir=options.directory))
    base.chmod(0o755)
    try:
        with Lab(uri="test:///default") as lab, pool(lab, base) as place:
            return {"mib": options.mib, "directory": options.directory, **_measured(place, options)}
    finally:
        shutil.rmtree(base)


def _measured(place: Place, options: argparse.Namespace) -> dict[str, Any]:
    _warm(place.base / "warm", 3 * options.mib)
    source = place.base / "source"
    _fill(source, options.mib)
    image, volume = place.make(options.mib * MIB)
    shutil.copyfile(source, place.file(image, volume))
    return {
        "copy": _copies(place, (image, volume), options),
        "carry": _carried(place, source, (image, volume), options),
        "make": _made(place, options.made),
        "list": _listed(place, options.listed),
    }


class Place:
    """A storage domain in a pool of which the daemon is the SPM."""

    def __init__(self, lab: Lab, base: Path) -> None:
        self.base = base
        """A directory for all that is measured, on one file system."""
        self.root = base / "domain"
        self.client = Client(lab.port)
        self.port = lab.port
        self.sd, self.pool = str(uuid.uuid4()), str(uuid.uuid4())

    def open(self) -> None:
        must, base = self.client.must, str(self.root)
        self.root.mkdir()
        self.connection = {"id": str(uuid.uuid4()), "connection": base}
        must("connectStorageServer", 4, BLANK, [self.connection])
        must("createStorageDomain", 4, self.sd, "bench", base, 1, VERSION)
        must("createStoragePool", 0, self.pool, "bench", self.sd, [self.sd], 1)
        must("connectStoragePool", self.pool, 1, "", self.sd, 1)
        self.finished([must("spmStart", self.pool, -1, -1, -1, False, 250, VERSION)["uuid"]])

    def close(self) -> None:
        self.client.must("spmStop", self.pool)
        self.client.must("disconnectStoragePool", self.pool, 1, "")
        self.client.must("disconnectStorageServer", 4, BLANK, [self.connection])

    def finished(self, tasks: list[str]) -> None:
        """Wait until the tasks have ended, well, and clear them."""
        for task in tasks:
            status = self.end_of(task)
            if status["taskResult"] != "success":
                raise RuntimeError(f"task {task}: {status}")
        for task in tasks:
            self.client.must("clearTask", task)

    def end_of(self, task: str) -> dict[str, Any]:
        """Wait until the task has ended; return its status."""
        status = until(lambda: self._ended(task), "a task to end")
        assert status is not None
        return status

    def _ended(self, task: str) -> dict[str, Any] | None:
        status: dict[str, Any] = self.client.must("getTaskStatus", task)["taskStatus"]
        return status if status["taskState"] == "finished" else None

    def begin(self, size: int, form: int = RAW) -> tuple[str, str, str]:
        """Begin to make a volume in an image of its own; return both ids, and the task."""
        image, volume = str(uuid.uuid4()), str(uuid.uuid4())
        kind = (str(size), form, SPARSE, DATA_DISK)
        task = self.client.must("createVolume", self.sd, self.pool, image, *kind, volume, "", BLANK, BLANK)["uuid"]
        return image, volume, task

    def make(self, size: int) -> tuple[str, str]:
        image, volume, task = self.begin(size)
        self.finished([task])
        return image, volume

    def delete(self, images: list[str]) -> None:
        while images:
            self.finished([self.client.must("deleteImage", self.sd, self.pool, images.pop(), False, False)["uuid"]])

    def file(self, image: str, volume: str) -> Path:
        return self.root / self.sd / "images" / image / volume


@contextmanager
def pool(lab: Lab, base: Path) -> Iterator[Place]:
    place = Place(lab, base)
    place.open()
    try:
        yield place
    finally:
        place.close()


def _fill(path: Path, mib: int) -> None:
    """Write data without a hole in them, and without a pattern."""
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))


def _warm(path: Path, mib: int) -> None:
    """Have so much memory touched before anything is measured."""
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(b"\1" * MIB)
    path.unlink()


def _timed(deed: Callable[[], object]) -> float:
    """Return how long it takes, once the disks are quiet."""
    os.sync()
    time.sleep(0.5)
    begun = time.perf_counter()
    deed()
    return time.perf_counter() - begun


def _told(times: dict[str, list[float]], mib: int) -> dict[str, Any]:
    """Return MiB a second of each, and ours against the plain one: of the quickest rounds, which others disturbed least."""
    best = {name: min(took) for name, took in times.items()}
    told: dict[str, Any] = {f"{name}_mib_per_second": round(mib / took) for name, took in best.items()}
    every = {name: [round(mib / took) for took in rounds] for name, rounds in times.items()}
    told["ratio"] = round(best["plain"] / best["ours"], 2)
    return told | {"longer_ms": round((best["ours"] - best["plain"]) * 1000), "rounds": every}


# Copies


def _copies(place: Place, source: tuple[str, str], options: argparse.Namespace) -> dict[str, Any]:
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    target = place.base / "target"
    made: list[str] = []
    command = ["qemu-img", "convert", "-f", "raw", "-O", "raw", str(place.file(*source)), str(target)]
    for number in range(options.rounds):
        # In turn, and each on the room that was just freed: a virtual machine's memory is slow when it is first touched.
        deeds = [
            ("plain", lambda: subprocess.run(command, check=True)),
            ("ours", lambda: made.append(_copy(place, source))),
        ]
        for name, deed in deeds if number % 2 == 0 else deeds[::-1]:
            times[name].append(_timed(deed))
            say(f"  copy, {name}: {options.mib / times[name][-1]:.0f} MiB a second")
            target.unlink(missing_ok=True)
            place.delete(made)
    return _told(times, options.mib)


def _copy(place: Place, source: tuple[str, str]) -> str:
    """Have a task copy the image; return the new one."""
    image, volume = str(uuid.uuid4()), str(uuid.uuid4())
    ids = (place.sd, place.pool, BLANK, *source, image, volume)
    place.finished([place.client.must("copyImage", *ids, "", BLANK, 8, RAW, SPARSE)["uuid"]])
    return image


# Uploads and downloads


def _carried(place: Place, source: Path, target: tuple[str, str], options: argparse.Namespace) -> dict[str, Any]:
    times: dict[str, dict[str, list[float]]] = {way: {"plain": [], "ours": []} for way in ("upload", "download")}
    pings: dict[str, list[float]] = {"idle": _pinged(place, lambda: time.sleep(2))}
    got = place.base / "got"
    for number in range(options.rounds):
        got.unlink(missing_ok=True)
        deeds: list[tuple[str, str, Callable[[], object]]] = [
            ("upload", "plain", lambda: _plain_copy(source, got)),
            ("upload", "ours", lambda: _upload(place, source, target)),
            ("download", "plain", lambda: _plain_copy(place.file(*target), got)),
            ("download", "ours", lambda: _download(place, target, got)),
        ]
        for way, name, deed in deeds if number % 2 == 0 else [*deeds[1::-1], *deeds[:1:-1]]:
            during = way if name == "ours" else "copy"
            took = pings.setdefault(during, [])
            took += _pinged(place, lambda way=way, name=name, deed=deed: times[way][name].append(_timed(deed)))  # type: ignore[misc]
            say(f"  {way}, {name}: {options.mib / times[way][name][-1]:.0f} MiB a second")
    _download(place, target, got)
    if got.read_bytes() != source.read_bytes():
        raise RuntimeError("what came back is not what was sent")
    quick = {f"ping_p99_ms_{name}": round(percentile(took, 0.99) * 1000, 1) for name, took in pings.items()}
    return {way: _told(times[way], options.mib) for way in times} | quick


def _plain_copy(source: Path, target: Path) -> None:
    """Copy as a client would by hand, to the medium."""
    with source.open("rb") as read, target.open("wb") as written:
        while data := read.read(CHUNK):
            written.write(data)
        written.flush()
        os.fsync(written.fileno())


def _headers(place: Place, target: tuple[str, str]) -> dict[str, str]:
    image, volume = target
    ids = {"Storage-Pool-Id": place.pool, "Storage-Domain-Id": place.sd, "Image-Id": image, "Volume-Id": volume}
    return ids


def _upload(place: Place, source: Path, target: tuple[str, str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", place.port, blocksize=CHUNK)
    size = source.stat().st_size
    with source.open("rb") as body:
        connection.request("PUT", "/", body, {**_headers(place, target), "Content-Length": str(size)})
        _expect(connection.getresponse(), 200)
    connection.close()


def _download(place: Place, target: tuple[str, str], path: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", place.port)
    connection.request("GET", "/", headers=_headers(place, target))
    answer = _expect(connection.getresponse(), 206)
    with path.open("wb") as file:
        shutil.copyfileobj(answer, file, CHUNK)
        file.flush()
        os.fsync(file.fileno())
    connection.close()


def _expect(answer: http.client.HTTPResponse, status: int) -> http.client.HTTPResponse:
    if answer.status != status:
        raise RuntimeError(f"answered {answer.status}: {answer.read()!r}")
    return answer


def _pinged(place: Place, deed: Callable[[], object]) -> list[float]:
    """Return how long each `ping` of another client took while the deed was done."""
    took: list[float] = []
    over = threading.Event()

    def ping() -> None:
        client, sent = Client(place.port, keep_alive=True), request("ping", keep_alive=True)
        while not over.wait(0.002):
            begun = time.perf_counter()
            client.exchange(sent)
            took.append(time.perf_counter() - begun)

    thread = threading.Thread(target=ping)
    thread.start()
    try:
        deed()
    finally:
        over.set()
        thread.join()
    return took


# Volumes


def _made(place: Place, count: int) -> dict[str, Any]:
    """Make volumes, each in an image of its own: all asked for at once, and one after the other."""
    told: dict[str, Any] = {"volumes": count}
    for name, form in (("raw", RAW), ("cow", COW)):
        begun = time.perf_counter()
        tasks = [place.begin(MIB, form)[2] for _ in range(count)]
        for task in tasks:
            place.end_of(task)
        told[f"{name}_per_second"] = round(count / (time.perf_counter() - begun), 1)
        place.finished(tasks)
        say(f"  make, {name}: {told[f'{name}_per_second']} volumes a second")
    took = [_timed_alone(place) for _ in range(20)]
    return told | {"one_p50_ms": round(percentile(took, 0.5) * 1000, 1)}


def _timed_alone(place: Place) -> float:
    begun = time.perf_counter()
    place.make(MIB)
    return time.perf_counter() - begun


def _listed(place: Place, count: int) -> dict[str, Any]:
    """Time the lists of a domain that has so many volumes, each in an image of its own."""
    there = len(place.client.must("getVolumesList", place.sd, place.pool)["uuidlist"])
    for _ in range(max(0, count - there)):
        _put_volume(place)
    told: dict[str, Any] = {"volumes": max(count, there)}
    for verb, key in (("getVolumesList", "uuidlist"), ("getImagesList", "imageslist")):
        arguments = (place.sd, place.pool) if verb == "getVolumesList" else (place.sd,)
        took = []
        for _ in range(10):
            begun = time.perf_counter()
            found = place.client.must(verb, *arguments)[key]
            took.append(time.perf_counter() - begun)
        if len(found) != told["volumes"]:
            raise RuntimeError(f"{verb} tells of {len(found)}")
        told[f"{verb}_p50_ms"] = round(percentile(took, 0.5) * 1000, 1)
        say(f"  {verb}, {len(found)} volumes: {told[f'{verb}_p50_ms']} ms")
    return told


def _put_volume(place: Place) -> None:
    """Put a volume there as its task would, but for the time that takes."""
    image, volume = str(uuid.uuid4()), str(uuid.uuid4())
    made = fresh(domain=place.sd, image=image, capacity=MIB, format=Format.RAW, allocation=Allocation.SPARSE)
    legal = msgspec.structs.replace(made, role=VolumeRole.LEAF, legality="LEGAL")
    file = place.file(image, volume)
    file.parent.mkdir()
    file.with_name(f"{volume}.meta").write_bytes(encode(legal, VERSION))
    file.with_name(f"{volume}.lease").touch()
    file.touch()
