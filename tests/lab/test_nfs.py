"""Storage domains on a real NFS server, whose root is nobody here: made, watched, and left alone by the server for a while."""

from __future__ import annotations

import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import OPTIONS
from tests.lab.installation import Options, run
from tests.lab.other import HOST, boot_id, fall_silent, speak_again, ssh
from tests.lab.service import PATIENCE, Service
from tests.until import until
from vdsmd.api import codes

pytestmark = [pytest.mark.lab(hosts=2), pytest.mark.slow, pytest.mark.timeout(1500)]

NFS = 1
BLANK = "00000000-0000-0000-0000-000000000000"
DATA, ISO = "5a1d5a0e-6d2f-4a0b-9a57-0e5ac2cc8d11", "5a1d5a0e-6d2f-4a0b-9a57-0e5ac2cc8d22"
PLACES = ("/srv/nfs/data_1", "/srv/nfs/iso_1", "/srv/nfs/more")
ANSWERS_WITHIN = 10
"""Seconds that a domain has to answer, as configured here."""
GIVES_UP_WITHIN = 120
"""Seconds after which a server that is not there must have been given up: twice as many as are configured by default."""
QUICK = ("ping", "list", "getVdsStats", "repoStats", "getAllVmStats", "getVdsCapabilities")
ROUNDS = 60
REPORT = Path("/var/log/lab/nfs.txt")


@pytest.fixture(scope="module")
def options() -> Options:
    return {**OPTIONS, "irs": {"process_pool_timeout": ANSWERS_WITHIN, "sd_health_check_delay": 2}}


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """Have the other host export directories as NFS servers do: root is nobody there, and the daemon's user owns them."""
    until(boot_id, PATIENCE, "the other host to answer, whatever tests before have done with it")
    # After a start NFS 4 lets nobody open a file until clients of before have had their time.
    ssh("printf '[nfsd]\\nlease-time=10\\ngrace-time=10\\n' >/etc/nfs.conf.d/lab.conf; systemctl start nfs-server")
    for place in PLACES:
        ssh(f"mkdir -p {place} && chown 36:36 {place} && chmod 0700 {place}")
        ssh(f"exportfs -o rw,sync,no_subtree_check,root_squash 10.77.0.1:{place}")
    try:
        yield
    finally:
        speak_again()
        ssh(f"exportfs -ua; systemctl stop nfs-server; rm -rf /etc/nfs.conf.d/lab.conf {' '.join(PLACES)}", check=False)
        # What mount(8) has started here for NFS 3.
        run("systemctl", "stop", "rpc-statd.service", "rpcbind.socket", "rpcbind.service", check=False)


@pytest.fixture
def storage(service: Service, server: None) -> Iterator[Service]:
    """Return the service, with a data and an ISO domain that it watches."""
    for place, uuid, cls, version in ((PLACES[0], DATA, 1, 5), (PLACES[1], ISO, 2, 0)):
        assert connect(service, place) == 0, service.log()
        service.must("createStorageDomain", NFS, uuid, "name", remote(place), cls, version)
        service.must("startMonitoringDomain", uuid, 1)
    ssh(f"touch {PLACES[1]}/{ISO}/images/11111111-1111-1111-1111-111111111111/some.iso")
    until(lambda: valid(service, DATA) and valid(service, ISO), PATIENCE, "both to be valid")
    try:
        yield service
    finally:
        speak_again()
        until(lambda: valid(service, DATA), PATIENCE, "it to be valid again")
        for place, uuid in ((PLACES[0], DATA), (PLACES[1], ISO)):
            service.call("stopMonitoringDomain", uuid)
            service.call("formatStorageDomain", uuid, "false")
            disconnect(service, place)


def remote(place: str) -> str:
    return f"{HOST}:{place}"


def connect(service: Service, place: str, **more: str) -> int:
    """Return the status of the connection."""
    return _status(service, "connectStorageServer", place, more)


def disconnect(service: Service, place: str) -> int:
    return _status(service, "disconnectStorageServer", place, {})


def _status(service: Service, verb: str, place: str, more: dict[str, str]) -> int:
    told = service.must(verb, NFS, BLANK, [{"id": DATA, "connection": remote(place), **more}])
    return int(told["statuslist"][0]["status"])


def valid(service: Service, uuid: str) -> bool:
    return bool(service.must("repoStats").get(uuid, {}).get("valid"))


def helpers(service: Service) -> set[str]:
    children = service.must("vdsmd.status")["info"]["children"]
    return {child["name"] for child in children if child["name"].startswith("storage/")}


def taken(call: Callable[[], Any]) -> tuple[float, Any]:
    """Make a call; return the seconds that it took, and the answer."""
    begun = time.monotonic()
    answer = call()
    return time.monotonic() - begun, answer


def slowest(service: Service, title: str) -> dict[str, float]:
    """Ask what has nothing to do with storage again and again; return, and note, how long nearly all took: the 99th percentile,
    in seconds."""
    found: dict[str, float] = {}
    with service.proxy() as proxy:
        for verb in QUICK:
            times = sorted(taken(lambda verb=verb: ask(proxy, verb))[0] for _ in range(ROUNDS))  # type: ignore[misc]
            found[verb] = times[int(len(times) * 0.99)]
    tell(f"{title}: " + ", ".join(f"{verb} {seconds * 1000:.0f} ms" for verb, seconds in found.items()))
    return found


def ask(proxy: xmlrpc.client.ServerProxy, verb: str) -> None:
    reply: Any = getattr(proxy, verb)()
    assert reply["status"]["code"] == 0, reply


def tell(text: str) -> None:
    print(text)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    with REPORT.open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


@pytest.mark.parametrize("version", ["3", "4.2"])
def test_it_is_all_the_daemons_own(service: Service, server: None, version: str) -> None:
    place = PLACES[2]
    assert connect(service, place, protocol_version=version) == 0, service.log()
    assert connect(service, place, protocol_version=version) == 0, "connecting again changes nothing"
    service.must("createStorageDomain", NFS, DATA, "name", remote(place), 1, 5)
    info = service.must("getStorageDomainInfo", DATA)["info"]
    assert (info["type"], info["class"], info["version"], info["remotePath"]) == ("NFS", "Data", "5", remote(place))
    assert int(service.must("getStorageDomainStats", DATA)["stats"]["diskfree"]) > 0
    assert set(ssh(f"find {place} -printf '%U\\n'").split()) == {"36"}
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        [mount] = [line for line in mounts if remote(place) in line]
    assert f"vers={version}" in mount and "nosuid" in mount and "nodev" in mount and ",soft," in mount
    service.must("formatStorageDomain", DATA, "false")
    assert disconnect(service, place) == 0
    assert remote(place) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def test_a_server_that_goes_and_comes_back(storage: Service) -> None:
    """Calls on its domains end, all others stay quick, a re-exec is carried out, and afterwards all is as before."""
    before, with_helpers = slowest(storage, "before the server vanishes"), helpers(storage)
    info = storage.must("getStorageDomainInfo", DATA)["info"]
    fall_silent()
    try:
        with ThreadPoolExecutor(3) as pool:
            calls = [("getStorageDomainInfo", DATA), ("getStorageDomainStats", DATA), ("getFileStats", ISO)]
            asked = [pool.submit(taken, lambda call=call: storage.call(*call)) for call in calls]  # type: ignore[misc]
            during = slowest(storage, "while calls hang")
            for call, answer in zip(calls, asked, strict=True):
                assert_refused(call[0], *answer.result())
        until(lambda: not valid(storage, DATA) and not valid(storage, ISO), PATIENCE, "the loss to be told")
        generation = storage.generation
        storage.systemctl("reload")
        until(lambda: storage.generation == generation + 1, PATIENCE, "the re-exec")
        slowest(storage, "after a re-exec, while it is away")
        assert not valid(storage, DATA)
        assert_refused("getStorageDomainStats", *taken(lambda: storage.call("getStorageDomainStats", DATA)))
    finally:
        speak_again()
    seconds, _ = taken(lambda: until(lambda: valid(storage, DATA) and valid(storage, ISO), PATIENCE, "both to be back"))
    tell(f"valid again {seconds:.0f} s after the server has come back")
    assert storage.must("getStorageDomainInfo", DATA)["info"] == info
    assert len(storage.must("getFileStats", ISO)["fileStats"]) == 1
    until(
        lambda: helpers(storage) <= with_helpers or len(helpers(storage)) <= len(with_helpers),
        PATIENCE,
        "no more helpers",
    )
    # Not how quick they are, which depends on the machine: only that none has waited for storage.
    assert max(before.values()) < ANSWERS_WITHIN and max(during.values()) < ANSWERS_WITHIN


def assert_refused(verb: str, seconds: float, answer: dict[str, Any]) -> None:
    tell(f"{verb}: code {answer['status']['code']} after {seconds:.1f} s")
    assert answer["status"]["code"] == codes.number("StorageDomainAccessError"), answer
    assert seconds < 4 * ANSWERS_WITHIN + 20


def test_storage_can_be_given_up_while_its_server_is_away(storage: Service) -> None:
    fall_silent()
    try:
        seconds, status = taken(lambda: connect(storage, PLACES[2]))
        tell(f"connecting storage of a server that is away: status {status} after {seconds:.0f} s")
        assert status == codes.number("MountError") and seconds < GIVES_UP_WITHIN
        storage.must("stopMonitoringDomain", ISO)
        seconds, status = taken(lambda: disconnect(storage, PLACES[1]))
        tell(f"disconnecting it: status {status} after {seconds:.0f} s")
        assert status == 0 and seconds < GIVES_UP_WITHIN
        assert remote(PLACES[1]) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    finally:
        speak_again()
    assert connect(storage, PLACES[1]) == 0
    assert len(storage.must("getFileStats", ISO)["fileStats"]) == 1
    assert connect(storage, PLACES[2]) == 0 and disconnect(storage, PLACES[2]) == 0
