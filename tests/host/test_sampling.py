"""Statistics from two samples: every figure worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.host.hosts import Layout, server
from vdsmd.api.xmlrpc import decode_reply, encode_reply
from vdsmd.host import sampling
from vdsmd.host.facts import Link, Sample, Shown
from vdsmd.host.files import Files

SHOWN = Shown()


def test_processor_shares_are_over_the_time_between(tmp_path: Path) -> None:
    host = server(tmp_path)
    before = sampling.take(host.files, SHOWN)
    host.write("/proc/stat", "cpu  140 10 110 820 10 5 5 10 0 0\ncpu0 200 0 100 800 0 0 0 0 0 0\n")
    found = sampling.statistics(host.files, before, sampling.take(host.files, SHOWN))
    # 110 ticks went by: 50 user and nice, 20 system and interrupts, 30 idle and waiting, 10 stolen.
    assert (found["cpuUser"], found["cpuSys"], found["cpuIdle"]) == ("45.45", "18.18", "27.27")
    assert found["cpuStatistics"] == {"0": {"nodeIndex": 0, "cpuUser": "100.00", "cpuSys": "0.00", "cpuIdle": "0.00"}}
    assert found["cpuLoad"] == "1.25"


def test_without_time_between_nothing_is_divided_by_it(tmp_path: Path) -> None:
    sample = sampling.take(server(tmp_path).files, SHOWN)
    found = sampling.statistics(Files(str(tmp_path)), sample, sample)
    assert (found["cpuUser"], found["cpuIdle"], found["rxRate"]) == ("0.00", "100.00", "0.00")


def test_the_first_sample_tells_the_time_since_boot(tmp_path: Path) -> None:
    host = server(tmp_path)
    found = sampling.statistics(host.files, Sample(), sampling.take(host.files, SHOWN))
    assert (found["cpuUser"], found["cpuSys"], found["cpuIdle"]) == ("10.00", "10.00", "80.00")
    assert found["bootTime"] == "1700000000"


def test_network_rates_are_shares_of_the_links_speed(tmp_path: Path) -> None:
    fast = {"a": Link(rx=0, speed=1000, up=True), "b": Link(rx=0, speed=100), "br": Link(kind="bridges")}
    later = {
        "a": Link(rx=125_000_000, tx=62_500_000, speed=1000, up=True),
        "b": Link(rx=0, tx=0, speed=100),
        "br": Link(kind="bridges", rx=125_000_000),
        "new": Link(rx=999_999_999, speed=1000),
    }
    found = sampling.statistics(Files(str(tmp_path)), Sample(at=10, links=fast), Sample(at=12, links=later))
    assert (found["network"]["a"]["rxRate"], found["network"]["a"]["txRate"]) == ("50.00", "25.00")
    assert (found["network"]["a"]["state"], found["network"]["b"]["state"]) == ("up", "down")
    # What has just appeared has no rate yet; what does not tell its speed counts as 1000 Mb/s.
    assert found["network"]["new"]["rxRate"] == "0.00"
    assert found["network"]["br"]["speed"] == "1000"
    # The host: 1 Gb moved in 2 s over nics of 1000 + 100 + 1000 Mb/s; bridges would count it twice.
    assert found["rxRate"] == "23.81"


def test_a_counter_that_began_anew_is_no_negative_rate(tmp_path: Path) -> None:
    before = Sample(at=1, links={"a": Link(rx=5000)}, own=[9, 9], ksmd=7)
    after = Sample(at=2, links={"a": Link(rx=10)}, own=[1, 1])
    found = sampling.statistics(Files(str(tmp_path)), before, after)
    assert (found["network"]["a"]["rxRate"], found["cpuUserVdsmd"], found["ksmCpu"]) == ("0.00", "0.00", "0.00")


def test_memory_in_mebibytes(tmp_path: Path) -> None:
    host = server(tmp_path)
    host.write("/sys/kernel/mm/ksm/pages_sharing", "512\n")
    found = sampling.statistics(host.files, Sample(), Sample(at=1))
    assert (found["memUsed"], found["memAvailable"], found["memFree"]) == ("50", 4096, 2048)
    assert (found["swapTotal"], found["swapFree"], found["anonHugePages"]) == (2048, 1024, "200")
    assert found["memShared"] == 512 * sampling.PAGE_KIB // 1024
    assert found["numaNodeMemFree"]["1"] == {"memFree": 1024, "memPercent": 75}


@pytest.mark.parametrize(("text", "state"), [("always [madvise] never", "madvise"), ("", "never")])
def test_huge_pages(text: str, state: str, tmp_path: Path) -> None:
    host = Layout(tmp_path)
    host.write("/sys/kernel/mm/transparent_hugepage/enabled", text)
    assert sampling.statistics(host.files, Sample(), Sample(at=1))["thpState"] == state


def test_free_space_of_what_cannot_hang_us(tmp_path: Path) -> None:
    host = Layout(tmp_path)
    for path in ("/tmp", "/var/log/core"):
        host.make(path)
    host.write("/proc/self/mounts", "dev / ext4 rw 0 0\nserver:/logs /var/log nfs4 rw 0 0\n")
    assert set(sampling.statistics(host.files, Sample(), Sample(at=1))["diskStats"]) == {"/tmp", "/var/run/vdsm/"}
    host.write(
        "/proc/self/mounts", "dev / ext4 rw 0 0\nserver:/logs /var/log nfs4 rw 0 0\ntmpfs /var/log tmpfs rw 0 0\n"
    )
    found = sampling.statistics(host.files, Sample(), Sample(at=1))["diskStats"]
    # Where something would be if it is not there.
    assert set(found) == {"/tmp", "/var/log", "/var/log/core", "/var/run/vdsm/"}
    assert all(int(stats["free"]) > 0 for stats in found.values())


@pytest.mark.parametrize("root", ["/", "empty"])
def test_any_host_has_an_answer_that_can_be_sent(root: str, tmp_path: Path) -> None:
    files = Files(root if root == "/" else str(tmp_path))
    found = sampling.statistics(files, Sample(), sampling.take(files, SHOWN))
    assert decode_reply(encode_reply(found)) == found
