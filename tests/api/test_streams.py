"""PUT and GET: images come and go whole, or not at all, and nobody else notices."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.api.server import PATIENCE, Client
from tests.api.streams_stand import Shore, head, put, status
from tests.certificates import authority, certificate, trust_store
from tests.drivers.storage.images_stand import COW, MIB, PREALLOCATED, RAW, create, new_id
from tests.until import until
from vdsmd.api import tls
from vdsmd.api.contract import numbers
from vdsmd.api.http import Limits

pytestmark = pytest.mark.slow


def number(name: str) -> int:
    return numbers()[name]


SIZE = 4 * MIB
DATA = random.Random(7).randbytes(MIB) + bytes(2 * MIB) + random.Random(8).randbytes(MIB)
UNREAL = "99999999-0000-4000-8000-000000000001"


@pytest.fixture
def shore(tmp_path: Path) -> Iterator[Shore]:
    with Shore(tmp_path) as shore:
        yield shore


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# What works


@pytest.mark.parametrize("allocation", [2, PREALLOCATED])
def test_what_was_put_is_there(shore: Shore, allocation: int) -> None:
    image, volume = shore.volume(RAW, SIZE, allocation=allocation)
    before = descriptors()
    with shore.client() as client:
        answer = client.send(put(image, volume, DATA)).answer()
        assert status(answer) == (200, 0)
        assert client.ended()
    assert shore.file(image, volume).read_bytes() == DATA
    holes = 2 * MIB if allocation == 2 else 0
    assert shore.file(image, volume).stat().st_blocks * 512 <= SIZE - holes + 64 * 1024
    task = shore.task(answer)
    assert (task.state, task.verb) == ("finished", "downloadImageFromStream")
    assert shore.parts() == []
    assert until(lambda: descriptors() <= before)


def test_what_is_there_can_be_got(shore: Shore) -> None:
    image, volume = shore.volume(RAW, SIZE)
    shore.file(image, volume).write_bytes(DATA)
    before = descriptors()
    with shore.client() as client:
        answer = client.send(head("GET", image)).answer()
        assert answer.status == 206
        assert answer.headers["content-range"] == f"bytes 0-{SIZE - 1}/{SIZE}"
        assert answer.body == DATA
        assert client.ended()
    assert shore.task(answer).state == "finished"
    assert until(lambda: descriptors() <= before)


@pytest.mark.parametrize(
    ("headers", "count"),
    [
        ({"Range": "bytes=0-0"}, 1),
        ({"Range": "bytes=0-1048576"}, MIB + 1),
        ({"Range": f"bytes=0-{SIZE * 2}"}, SIZE),
        ({"Size": "1000"}, 1000),
        ({"Size": "1000", "Range": "bytes=0-99"}, 100),
    ],
)
def test_a_part_from_the_beginning(shore: Shore, headers: dict[str, str], count: int) -> None:
    image, volume = shore.volume(RAW, SIZE)
    shore.file(image, volume).write_bytes(DATA)
    with shore.client() as client:
        answer = client.send(head("GET", image, volume, **cast(dict[str, Any], headers))).answer()
        assert (answer.status, answer.body) == (206, DATA[:count])


def test_a_body_shorter_than_the_volume(shore: Shore) -> None:
    image, volume = shore.volume(RAW, SIZE)
    shore.file(image, volume).write_bytes(DATA[::-1])
    with shore.client() as client:
        assert status(client.send(put(image, "", b"short")).answer()) == (200, 0)
    assert shore.file(image, volume).read_bytes() == b"short" + bytes(SIZE - 5)


def test_cow(shore: Shore, tmp_path: Path) -> None:
    image, volume = shore.volume(COW, SIZE)
    raw, cow = tmp_path / "raw", tmp_path / "cow"
    raw.write_bytes(DATA)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, cow], check=True)
    with shore.client() as client:
        assert status(client.send(put(image, volume, cow.read_bytes())).answer()) == (200, 0)
    with shore.client() as client:
        assert client.send(head("GET", image, volume)).answer().body == cow.read_bytes()
    subprocess.run(["qemu-img", "compare", raw, shore.file(image, volume)], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(shore: Shore, tmp_path: Path) -> None:
    """It waits for `100 Continue` with a body of this size."""
    image, volume = shore.volume(RAW, SIZE)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(DATA)
    lines = head("GET", image, volume).decode().split("\r\n")[1:-2]
    named = [word for line in lines for word in ("-H", line)]
    command = ["curl", "-sS", "--noproxy", "*", "--fail", *named]
    url = f"http://127.0.0.1:{shore.port}/any/path"
    subprocess.run([*command, "-T", source, "-H", "Expect: 100-continue", url], check=True, timeout=PATIENCE)
    subprocess.run([*command, "-o", target, url], check=True, timeout=PATIENCE)
    assert target.read_bytes() == DATA


def test_under_tls(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    authority(keys, "ours")
    certificate(keys, "host", "ours")
    certificate(keys, "engine", "ours")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(keys / "ours.pem")
    context.load_cert_chain(keys / "engine.pem", keys / "engine.key")
    store = trust_store(tmp_path / "pki", keys, "host", "ours")
    with Shore(tmp_path, tls=tls.server_context(str(store))) as shore:
        image, volume = shore.volume(RAW, SIZE)

        def connect() -> Client:
            return Client(context.wrap_socket(socket.create_connection(("127.0.0.1", shore.port), PATIENCE)))

        with connect() as client:
            assert status(client.send(put(image, volume, DATA)).answer()) == (200, 0)
        assert shore.file(image, volume).read_bytes() == DATA
        with connect() as client:
            assert client.send(head("GET", image, volume)).answer().body == DATA
        with connect() as client:
            client.send(head("PUT", image, volume, Content_Length=SIZE) + DATA[:MIB])
        assert shore.quiet()
        assert shore.file(image, volume).read_bytes() == DATA


def test_a_byte_at_a_time(shore: Shore) -> None:
    image, volume = shore.volume(RAW, SIZE)
    with shore.client() as client:
        for byte in put(image, volume, b"slowly"):
            client.send(bytes([byte]))
        assert status(client.answer()) == (200, 0)
    assert shore.file(image, volume).read_bytes() == b"slowly" + bytes(SIZE - 6)


def test_calls_go_on_meanwhile(shore: Shore) -> None:
    image, volume = shore.volume(RAW, SIZE)
    with shore.client() as client, shore.client() as other:
        client.send(head("PUT", image, volume, Content_Length=SIZE) + DATA[:MIB])
        until(lambda: shore.streams.going)
        assert [other.call("verb", number)["args"] for number in range(50)] == [[number] for number in range(50)]
        client.send(DATA[MIB:])
        assert status(client.answer()) == (200, 0)


def test_a_call_and_then_an_image_on_one_connection(shore: Shore) -> None:
    image, volume = shore.volume(RAW, SIZE)
    with shore.client() as client:
        assert client.call("verb", 1)["args"] == [1]
        assert status(client.send(put(image, volume, DATA)).answer()) == (200, 0)


# What is refused


@pytest.mark.parametrize(
    ("request_of", "answer"),
    [
        (lambda i, v: head("PUT", i, v), (411, 11)),
        (lambda i, v: head("PUT", i, v, Transfer_Encoding="chunked") + b"1\r\nx\r\n0\r\n\r\n", (411, 11)),
        (lambda i, v: head("PUT", i, v, Content_Length=0), (400, 1000)),
        (lambda i, v: put(i, v, b"x", Size=2), (400, 1000)),
        (lambda i, v: put(i, v, b"x", Size="many"), (400, 1000)),
        (lambda i, v: put("", v, b"x"), (400, 11)),
        (lambda i, v: put(i, v, b"x", sd=""), (400, 11)),
        (lambda i, v: put(i, v, b"x", pool=""), (400, 11)),
        (lambda i, v: put("../../etc", v, b"x"), (400, 1000)),
        (lambda i, v: put(i, "../passwd", b"x"), (400, 1000)),
        (lambda i, v: put(i, v, bytes(SIZE + 1)), (500, 1000)),
        (lambda i, v: put(i, v, b"x", sd=UNREAL), (500, 358)),
        (lambda i, v: put(i, v, b"x", pool=UNREAL), (500, 309)),
        (lambda i, v: put(UNREAL, v, b"x"), (500, 268)),
        (lambda i, v: put(i, UNREAL, b"x"), (500, 201)),
        (lambda i, v: head("GET", i, UNREAL), (500, 201)),
        (lambda i, v: head("GET", UNREAL), (500, 268)),
        (lambda i, v: head("GET", ""), (400, 11)),
        (lambda i, v: head("GET", i, v, Range="bytes=1-5"), (400, 1000)),
        (lambda i, v: head("GET", i, v, Range="bytes=0-1,4-5"), (400, 1000)),
        (lambda i, v: head("GET", i, v, Range="bytes=0-"), (400, 1000)),
        (lambda i, v: head("GET", i, v, Size="-1"), (400, 1000)),
    ],
)
def test_what_makes_no_sense(shore: Shore, request_of: Callable[[str, str], bytes], answer: tuple[int, int]) -> None:
    image, volume = shore.volume(RAW, SIZE)
    shore.file(image, volume).write_bytes(DATA)
    before = descriptors()
    with shore.client() as client:
        assert status(client.send(request_of(image, volume)).answer()) == answer
    assert shore.quiet()
    assert shore.file(image, volume).read_bytes() == DATA
    assert until(lambda: descriptors() <= before)


@pytest.mark.parametrize("method", ["HEAD", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods(shore: Shore, method: str) -> None:
    with shore.client() as client:
        client.send(f"{method} / HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n".encode())
        assert client.answer().status == 405


def test_cow_that_is_none(shore: Shore) -> None:
    image, volume = shore.volume(COW, SIZE)
    before = shore.file(image, volume).read_bytes()
    with shore.client() as client:
        answer = client.send(put(image, volume, DATA)).answer()
    assert status(answer) == (500, number("VolumeAccessError"))
    assert shore.task(answer).state == "recovered"
    assert shore.file(image, volume).read_bytes() == before
    assert shore.parts() == []


def test_cow_that_is_too_large(shore: Shore, tmp_path: Path) -> None:
    image, volume = shore.volume(COW, SIZE)
    cow = tmp_path / "cow"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", cow, str(SIZE * 2)], check=True)
    with shore.client() as client:
        answer = client.send(put(image, volume, cow.read_bytes())).answer()
    assert answer.status == 500
    assert b"a disk of" in answer.body


def test_what_others_stem_from_is_not_written(shore: Shore) -> None:
    image, volume = shore.volume(COW, SIZE)
    shore.farm.done(create(shore.farm, image, new_id(), COW, size=SIZE, parent=volume))
    with shore.client() as client:
        answer = client.send(put(image, volume, b"x")).answer()
    assert status(answer) == (500, number("NonLeafVolumeNotWritable"))


def test_only_so_many_at_once(tmp_path: Path) -> None:
    with Shore(tmp_path, Limits(streams=1)) as shore:
        image, volume = shore.volume(RAW, SIZE)
        with shore.client() as client, shore.client() as other:
            client.send(head("PUT", image, volume, Content_Length=SIZE))
            until(lambda: shore.streams.going)
            assert status(other.send(head("GET", image)).answer()) == (503, 40)
            client.send(DATA)
            assert status(client.answer()) == (200, 0)


# What goes wrong on the way


def begun(shore: Shore, client: Client, image: str, volume: str, sent: int = MIB) -> str:
    """Begin a PUT and stop in the middle of it; return the task, of which the child is at work."""
    client.send(head("PUT", image, volume, Content_Length=SIZE) + DATA[:sent])
    until(lambda: any(task.command for task in shore.farm.tasks.unfinished()), PATIENCE)
    until(shore.parts, PATIENCE)
    return shore.farm.tasks.unfinished()[0].task_id


def undone(shore: Shore, task_id: str, image: str, volume: str, data: bytes) -> bool:
    task = shore.farm.ended(task_id)
    assert (task.state, bool(task.error)) == ("recovered", True), task
    assert shore.file(image, volume).read_bytes() == data
    return shore.parts() == []


@pytest.mark.parametrize("abruptly", [False, True])
def test_a_client_that_leaves_in_the_middle(shore: Shore, abruptly: bool) -> None:
    image, volume = shore.volume(RAW, SIZE)
    before = descriptors()
    with shore.client() as client:
        task_id = begun(shore, client, image, volume)
        if abruptly:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert undone(shore, task_id, image, volume, bytes(SIZE))
    assert "client left" in shore.farm.tasks.get(task_id).message
    assert shore.quiet()
    assert until(lambda: descriptors() <= before)


def test_a_body_that_is_too_short(shore: Shore) -> None:
    image, volume = shore.volume(RAW, SIZE)
    with shore.client() as client:
        task_id = begun(shore, client, image, volume)
        client.sock.shutdown(socket.SHUT_WR)
        assert status(client.answer()) == (400, 250)
    assert undone(shore, task_id, image, volume, bytes(SIZE))


def test_a_client_that_falls_silent(tmp_path: Path) -> None:
    with Shore(tmp_path, Limits(silence=0.3, sweep=0.05)) as shore:
        image, volume = shore.volume(RAW, SIZE)
        with shore.client() as client:
            client.send(head("PUT", image, volume, Content_Length=SIZE) + DATA[:MIB])
            answer = client.answer()
            assert status(answer) == (408, 250)
        assert undone(shore, answer.headers["task-id"], image, volume, bytes(SIZE))
        with shore.client() as client:
            shore.file(image, volume).write_bytes(b"")
            os.truncate(shore.file(image, volume), 64 * MIB)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.send(head("GET", image, volume))
            assert shore.quiet()
            assert [task.state for task in shore.farm.tasks.all()][-1] == "recovered"


def test_a_client_that_does_not_take_it_all(shore: Shore) -> None:
    image, volume = shore.volume(RAW, SIZE)
    os.truncate(shore.file(image, volume), 64 * MIB)
    before = descriptors()
    with shore.client() as client:
        client.send(head("GET", image, volume))
        client.sock.recv(1000)
    assert shore.quiet()
    task = shore.farm.tasks.all()[-1]
    assert (task.state, "client left" in task.message) == ("recovered", True), task
    assert until(lambda: descriptors() <= before)


def test_a_task_that_is_stopped(shore: Shore) -> None:
    image, volume = shore.volume(RAW, SIZE)
    with shore.client() as client:
        task_id = begun(shore, client, image, volume)
        shore.farm.tasks.stop(task_id)
        answer = client.answer()
        assert answer.status == 500
        assert answer.headers["task-id"] == task_id
    assert undone(shore, task_id, image, volume, bytes(SIZE))


def test_a_child_that_is_killed(shore: Shore) -> None:
    image, volume = shore.volume(RAW, SIZE)
    with shore.client() as client:
        task_id = begun(shore, client, image, volume)
        until(lambda: len(shore.farm.workers_of(task_id)) == 2)
        os.kill(shore.farm.workers_of(task_id)[1], signal.SIGKILL)
        assert client.answer().status == 500
    assert undone(shore, task_id, image, volume, bytes(SIZE))


def test_a_volume_that_is_cut_under_a_download(shore: Shore) -> None:
    image, volume = shore.volume(RAW, SIZE)
    os.truncate(shore.file(image, volume), 128 * MIB)
    with shore.client() as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.send(head("GET", image, volume))
        going = until(shore.farm.tasks.unfinished, PATIENCE)[0]
        until(lambda: shore.farm.tasks.get(going.task_id).progress > 0, PATIENCE)
        os.truncate(shore.file(image, volume), MIB)
        with pytest.raises(AssertionError, match="the connection ended"):
            client.answer()
    assert shore.quiet()


# A re-exec, and a crash


def test_a_re_exec_waits_for_what_is_carried(shore: Shore) -> None:
    image, volume = shore.volume(RAW, SIZE)
    tasks, ground = shore.farm.tasks, shore.farm.ground
    with shore.client() as client, shore.client() as other:
        begun(shore, client, image, volume)
        ground.inside(tasks.settle)
        assert "from or to a client" in str(ground.inside(tasks.unsafe))
        assert other.send(head("GET", image)).answer().status == 503
        client.send(DATA[MIB:])
        answer = client.answer()
        assert status(answer) == (200, 0)
    until(lambda: ground.inside(tasks.unsafe) is None, PATIENCE)
    assert shore.file(image, volume).read_bytes() == DATA
    ground.inside(tasks.resume)
    with shore.client() as client:
        assert client.send(head("GET", image)).answer().body == DATA


def test_what_has_not_begun_ends_when_a_re_exec_is_wanted(shore: Shore) -> None:
    """It waits for another task, which goes on only afterwards."""
    image, volume = shore.volume(RAW, SIZE)
    tasks, ground = shore.farm.tasks, shore.farm.ground
    with shore.client() as client, shore.client() as other:
        begun(shore, client, image, volume)
        other.send(put(image, volume, DATA))
        until(lambda: len(tasks.unfinished()) == 2, PATIENCE)
        until(lambda: tasks.unfinished()[1].state == "acquiring", PATIENCE)
        ground.inside(tasks.settle)
        assert status(other.answer()) == (500, number("TaskAborted"))
        client.send(DATA[MIB:])
        assert status(client.answer()) == (200, 0)
    assert until(lambda: ground.inside(tasks.unsafe) is None, PATIENCE)


def test_without_descriptors(shore: Shore) -> None:
    image, volume = shore.volume(RAW, SIZE)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = descriptors()
    with shore.client() as client, shore.client() as other:
        assert client.call("verb")["name"] == "verb"
        assert other.call("verb")["name"] == "verb"
        shore.farm.ground.inside(lambda: None)  # it has seen that nobody else wants to be accepted
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # all are taken that are open now
        try:
            answer = client.send(head("GET", image, volume)).answer()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert answer.status == 503
        assert status(other.send(put(image, volume, DATA)).answer()) == (200, 0)
    assert until(lambda: descriptors() <= before)


def test_a_failure_ends_also_while_a_re_exec_waits(shore: Shore) -> None:
    image, volume = shore.volume(RAW, SIZE)
    tasks, ground = shore.farm.tasks, shore.farm.ground
    with shore.client() as client:
        task_id = begun(shore, client, image, volume)
        ground.inside(tasks.settle)
    assert undone(shore, task_id, image, volume, bytes(SIZE))
    assert until(lambda: ground.inside(tasks.unsafe) is None, PATIENCE)


def test_a_crash_in_the_middle(shore: Shore) -> None:
    image, volume = shore.volume(RAW, SIZE)
    with shore.client() as client:
        task_id = begun(shore, client, image, volume)
        shore.close_rim()
        shore.farm.crash()
        shore.open()
    assert undone(shore, task_id, image, volume, bytes(SIZE))
    with shore.client() as client:
        assert status(client.send(put(image, volume, DATA)).answer()) == (200, 0)


def test_many_clients(shore: Shore) -> None:
    volumes = [shore.volume(RAW, SIZE) for _ in range(6)]
    found: dict[int, bool] = {}

    def one(number: int) -> None:
        image, volume = volumes[number]
        data = bytes([number + 1]) * SIZE
        with shore.client() as client:
            assert status(client.send(put(image, volume, data)).answer()) == (200, 0)
        with shore.client() as client:
            found[number] = client.send(head("GET", image, volume)).answer().body == data

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == dict.fromkeys(range(6), True)
