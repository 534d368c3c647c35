"""Images over HTTP on the management port of a real daemon: a pool, a volume, up, down, and a re-exec meanwhile."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drivers.storage.contract import BLANK
from tests.api.server import Answer, Client
from tests.api.streams_stand import head, status
from tests.drivers.storage.images_stand import MIB, RAW, SPARSE, new_id
from tests.running import PATIENCE, Running
from tests.until import until

SD = "5d000000-0000-4000-8000-00000000000c"
POOL = "00000002-0002-0002-0002-00000000000c"
SIZE = 16 * MIB


def finished(running: Running, task_id: str) -> str:
    """Wait for a task's end; return its result."""

    def ended() -> str:
        told: dict[str, Any] = running.must("getTaskStatus", task_id)["taskStatus"]
        assert told["taskState"] == "finished"
        return str(told["taskResult"])

    return until(ended, PATIENCE, "the task to end")


def connect(running: Running, base: Path) -> None:
    running.must("connectStorageServer", 4, BLANK, [{"id": new_id(), "connection": str(base)}])


@pytest.fixture
def running(daemon: Callable[..., Running], tmp_path: Path) -> Running:
    """A daemon that is the SPM of a pool with one local domain."""
    running = daemon()
    base = tmp_path / "local"
    base.mkdir()
    base.chmod(0o777)
    connect(running, base)
    running.must("createStorageDomain", 4, SD, "d", str(base), 1, 3)
    running.must("createStoragePool", 0, POOL, "pool", SD, [SD], 1)
    running.must("connectStoragePool", POOL, 1, "", SD, 1)
    task = running.must("spmStart", POOL, -1, -1, -1, False, 250, 3)["uuid"]
    assert finished(running, task) == "success"
    return running


def volume(running: Running) -> tuple[str, str]:
    image, name = new_id(), new_id()
    arguments = (SD, POOL, image, str(SIZE), RAW, SPARSE, 2, name, "", BLANK, BLANK)
    assert finished(running, running.must("createVolume", *arguments)["uuid"]) == "success"
    return image, name


def client(running: Running) -> Client:
    return Client(socket.create_connection(("127.0.0.1", running.port), PATIENCE))


def got(running: Running, image: str) -> Answer:
    with client(running) as taking:
        return taking.send(head("GET", image, sd=SD, pool=POOL)).answer()


def request(image: str, name: str) -> bytes:
    return head("PUT", image, name, sd=SD, pool=POOL, Content_Length=SIZE)


def state(running: Running) -> dict[str, Any]:
    told: dict[str, Any] = running.must("vdsmd.status")["info"]
    return told


@pytest.mark.slow
def test_up_and_down_and_a_re_exec_meanwhile(running: Running) -> None:
    image, name = volume(running)
    data = os.urandom(SIZE)
    with client(running) as bringing:
        bringing.send(request(image, name) + data[: SIZE // 2])
        until(lambda: "carries an image" in state(running)["owners"]["tasks"], PATIENCE)
        before = running.generation
        os.kill(running.pid, signal.SIGHUP)
        until(lambda: any("carries" in why for why in state(running)["reexec"]["waits_for"]), PATIENCE)
        with client(running) as other:
            assert status(other.send(head("GET", image, sd=SD, pool=POOL)).answer())[0] == 503
        bringing.send(data[SIZE // 2 :])
        answer = bringing.answer()
        assert status(answer) == (200, 0)
    until(lambda: running.generation == before + 1, PATIENCE)
    assert finished(running, answer.headers["task-id"]) == "success"
    answer = got(running, image)
    assert (answer.status, hashlib.sha256(answer.body).digest()) == (206, hashlib.sha256(data).digest())
    assert finished(running, answer.headers["task-id"]) == "success"
    told = running.must("getAllTasks")["tasks"][answer.headers["task-id"]]
    assert (told["verb"], told["tag"]) == ("uploadImageToStream", "hsm")


@pytest.mark.slow
def test_a_crash_in_the_middle_leaves_what_was_there(running: Running, daemon: Callable[..., Running]) -> None:
    image, name = volume(running)
    with client(running) as bringing:
        bringing.send(request(image, name) + os.urandom(SIZE // 2))
        until(lambda: "carries an image" in state(running)["owners"]["tasks"], PATIENCE)
        running.kill()
        with pytest.raises((AssertionError, OSError)):
            bringing.answer()
    running = daemon(again=running)
    tasks = until(lambda: running.must("getAllTasks")["tasks"], PATIENCE)
    (carrying,) = (task for task, told in tasks.items() if told["verb"] == "downloadImageFromStream")
    assert finished(running, carrying) == "cleanSuccess"
    answer = got(running, image)
    assert answer.body == bytes(SIZE)


@pytest.mark.slow
def test_what_a_reboot_leaves_is_removed_when_the_domain_is_seen_again(
    running: Running, daemon: Callable[..., Running], tmp_path: Path
) -> None:
    image, name = volume(running)
    folder = tmp_path / "local" / SD / "images" / image
    other = folder / f"{name}.part"
    with client(running) as bringing:
        bringing.send(request(image, name) + os.urandom(SIZE // 2))
        (part,) = until(lambda: list(folder.glob(f"{name}.*.part")), PATIENCE)
        running.kill()
    other.write_bytes(b"of another host, which is at work on the volume now")
    shutil.rmtree(running.run_dir)  # as a reboot does
    running = daemon(again=running)
    assert part.exists() and running.must("getAllTasks")["tasks"] == {}
    connect(running, tmp_path / "local")
    running.must("connectStoragePool", POOL, 1, "", SD, 1)
    until(lambda: not part.exists(), PATIENCE, "what was left to be removed")
    until(lambda: running.must("getAllTasks")["tasks"] == {}, PATIENCE, "the task that did it to be cleared")
    assert other.exists() and not list((running.lib_dir / "parts").iterdir())
    assert part.with_name(name).read_bytes() == bytes(SIZE)


@pytest.mark.slow
def test_a_stock_client(running: Running) -> None:
    image, name = volume(running)
    headers = {"Storage-Pool-Id": POOL, "Storage-Domain-Id": SD, "Image-Id": image, "Volume-Id": name}
    data = os.urandom(SIZE)
    stock = http.client.HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE)
    stock.request("PUT", "/", data, headers)
    answer = stock.getresponse()
    assert answer.status == 200
    answer.read()
    stock.request("GET", "/", headers={**headers, "Range": f"bytes=0-{MIB - 1}"})
    answer = stock.getresponse()
    assert answer.status == 206
    assert answer.read() == data[:MIB]
    stock.request("GET", "/")
    answer = stock.getresponse()
    assert answer.status == 400
    assert b"Storage-Pool-Id" in answer.read()
    stock.close()
