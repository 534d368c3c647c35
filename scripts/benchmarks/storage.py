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
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from drivers.storage.images.volume_metadata import Allocation, Format, VolumeRole, encode, fresh
from scripts.benchmarks import endurance, silence
from scripts.benchmarks.client import Client, percentile, request
from scripts.benchmarks.lab import Lab, say
from scripts.benchmarks.place import COW, MIB, PAUSE, RAW, VERSION, Place, fill, pool

CHUNK = MIB


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mib", type=int, default=1024, help="size of what is copied and carried (default: 1024)")
    where = "where the domain lies (default: /dev/shm, where all rounds are alike)"
    parser.add_argument("--directory", default="/dev/shm", help=where)
    parser.add_argument("--rounds", type=int, default=5, help="rounds, ours and theirs in turn (default: 5)")
    parser.add_argument("--made", type=int, default=200, help="volumes to be made (default: 200)")
    parser.add_argument("--listed", type=int, default=2000, help="volumes of the domain that is listed (default: 2000)")
    instead = parser.add_mutually_exclusive_group()
    endure = "instead of all that: one copy (--mib 4096) through re-execs and a SIGKILL of the daemon"
    instead.add_argument("--endurance", action="store_true", help=endure)
    hang = "instead of all that: a domain that stops answering, and what that costs the others"
    instead.add_argument("--silence", action="store_true", help=hang)


def run(options: argparse.Namespace) -> dict[str, Any]:
    if options.silence:
        return silence.measure()
    base = Path(tempfile.mkdtemp(prefix="vb-", dir=options.directory))
    base.chmod(0o755)
    try:
        launcher = endurance.slowly(base, options.mib) if options.endurance else []
        with Lab(uri="test:///default", launcher=launcher) as lab, pool(lab, base) as place:
            measure = _endured if options.endurance else _measured
            return {"mib": options.mib, "directory": options.directory, **measure(place, options)}
    finally:
        shutil.rmtree(base)


def _endured(place: Place, options: argparse.Namespace) -> dict[str, Any]:
    return endurance.endure(place, options.mib)


def _measured(place: Place, options: argparse.Namespace) -> dict[str, Any]:
    _warm(place.base / "warm", 3 * options.mib)
    source = place.base / "source"
    fill(source, options.mib)
    image, volume = place.make(options.mib * MIB)
    shutil.copyfile(source, place.file(image, volume))
    return {
        "copy": _copies(place, (image, volume), options) | {"of_1_mib_ms": _small(place)},
        "carry": _carried(place, source, (image, volume), options),
        "make": _made(place, options.made),
        "list": _listed(place, options.listed),
    }


def _warm(path: Path, mib: int) -> None:
    """Have so much memory touched before anything is measured."""
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(b"\1" * MIB)
    path.unlink()


def _timed(deed: Callable[[], float | object]) -> float:
    """Return how long it takes, once the disks are quiet. A deed that returns a time (of the epoch) had ended then."""
    os.sync()
    time.sleep(0.5)
    begun, at = time.perf_counter(), time.time()
    ended = deed()
    return ended - at if isinstance(ended, float) else time.perf_counter() - begun


def _told(times: dict[str, list[float]], mib: int) -> dict[str, Any]:
    """Return MiB a second of each, and ours against the plain one: of the quickest rounds, which others disturbed least."""
    best = {name: min(took) for name, took in times.items()}
    told: dict[str, Any] = {f"{name}_mib_per_second": round(mib / took) for name, took in best.items()}
    every = {name: [round(mib / took) for took in rounds] for name, rounds in times.items()}
    told["ratio"] = round(best["plain"] / best["ours"], 2)
    told["ratio_of_medians"] = round(median(times["plain"]) / median(times["ours"]), 2)
    return told | {"longer_ms": round((best["ours"] - best["plain"]) * 1000), "rounds": every}


# Copies


def _copies(place: Place, source: tuple[str, str], options: argparse.Namespace) -> dict[str, Any]:
    """`plain` leaves what it has copied in memory; `synced` and ours have it on the medium."""
    times: dict[str, list[float]] = {"plain": [], "synced": [], "ours": []}
    target = place.base / "target"
    made: list[tuple[str, str]] = []
    convert, files = ["qemu-img", "convert", "-f", "raw", "-O", "raw"], [str(place.file(*source)), str(target)]
    for number in range(options.rounds):
        # In turn, and each on the room that was just freed: a virtual machine's memory is slow when it is first touched.
        deeds: list[tuple[str, Callable[[], float | object]]] = [
            ("plain", lambda: subprocess.run([*convert, *files], check=True)),
            ("synced", lambda: subprocess.run([*convert, "-t", "writeback", *files], check=True)),
            ("ours", lambda: _copy(place, source, made)),
        ]
        for name, deed in deeds if number % 2 == 0 else deeds[::-1]:
            times[name].append(_timed(deed))
            say(f"  copy, {name}: {options.mib / times[name][-1]:.0f} MiB a second")
            target.unlink(missing_ok=True)
            place.finished([task for _, task in made])
            place.delete([image for image, _ in made])
            made.clear()
    return _told(times, options.mib)


def _small(place: Place, rounds: int = 20) -> dict[str, float]:
    """Return what a copy costs that has hardly anything to copy, in ms: the median."""
    source, target = place.make(MIB), place.base / "target"
    fill(place.file(*source), 1)
    command = ["qemu-img", "convert", "-f", "raw", "-O", "raw", str(place.file(*source)), str(target)]
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(rounds):
        begun = time.perf_counter()
        subprocess.run(command, check=True)
        times["plain"].append(time.perf_counter() - begun)
        image, _volume, task = place.copy(source)
        place.end_of(task)
        times["ours"].append(time.perf_counter() - begun - times["plain"][-1])
        place.finished([task])
        place.delete([image])
    return {name: round(median(took) * 1000, 1) for name, took in times.items()}


def _copy(place: Place, source: tuple[str, str], made: list[tuple[str, str]]) -> float:
    """Have a task copy the image; note the new one, and the task. Return when it had ended."""
    image, _volume, task = place.copy(source)
    place.end_of(task, PAUSE)
    made.append((image, task))
    return place.when_ended(task)


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
