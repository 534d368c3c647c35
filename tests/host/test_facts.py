"""HostFacts as an owner: it samples in a worker, answers from memory, and goes on over a re-exec where it stood."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from drivers.base import Host
from drivers.errors import HardwareUnknown, NotResponding
from drivers.vm.contract import Identity, Virt
from state import records
from state.children import ChildTable
from state.directory import StateDirectory
from state.fds import FdTable
from tests.host.hosts import Layout, server
from tests.until import until
from vdsmd.config import Config, Vars
from vdsmd.host import facts
from vdsmd.host.facts import HostFacts
from vdsmd.loop import Loop
from vdsmd.workers import Workers

OFTEN = Config(path="", vars=Vars(host_sample_stats_interval=0))
SELDOM = Config(path="", vars=Vars(host_sample_stats_interval=3600))


class Guests:
    """Stands for the VM driver."""

    def __init__(self, *statuses: str) -> None:
        self._statuses = list(statuses)

    def statuses(self) -> list[str]:
        return self._statuses

    def committed(self) -> int:
        return 577

    def virt(self) -> Virt:
        return Virt(kvm=True, machines=["pc"])


class Bench:
    """A loop with workers, and what a driver is lent. `turn_until` keeps the loop going."""

    def __init__(self, base: Path) -> None:
        self.loop = Loop()
        self.workers = Workers(self.loop)
        fds = FdTable()
        self.host = Host(
            fds=fds,
            children=ChildTable(fds),
            checkpoints=StateDirectory(str(base / "checkpoints")),
            run_dir=str(base),
            lib_dir=str(base),
            log_dir=str(base),
            submit=self.workers.submit,
            later=self.loop.call_later,
            in_loop=self.loop.call_threadsafe,
            event=lambda name, **fields: None,
        )

    def turn_until(self, fact: Callable[[], Any], what: str) -> Any:
        def look() -> Any:
            self.loop.turn(0.01)
            return fact()

        return until(look, 60, what)

    def close(self) -> None:
        self.workers.stop(time.monotonic() + 60)
        self.loop.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def laid_out(tmp_path: Path) -> Layout:
    return server(tmp_path / "host")


def make(bench: Bench, laid_out: Layout, config: Config = SELDOM, *statuses: str) -> HostFacts:
    return HostFacts(bench.host, config, Guests(*statuses), root=str(laid_out.root))


def test_a_cold_start_has_statistics_at_once(bench: Bench, laid_out: Layout) -> None:
    host = make(bench, laid_out, SELDOM, "Up", "Up", "Down", "Migration Source", "Migration Destination")
    host.recover()
    info = host.statistics()
    assert info["cpuUser"] == "10.00"
    assert (info["vmCount"], info["vmActive"], info["vmMigrating"], info["memCommitted"]) == (5, 2, 2, 577)
    assert (info["incomingVmMigrations"], info["outgoingVmMigrations"]) == (1, 1)
    assert time.strptime(info["dateTime"], "%Y-%m-%dT%H:%M:%S GMT")


def test_it_samples_again_and_again(bench: Bench, laid_out: Layout) -> None:
    host = make(bench, laid_out, OFTEN)
    host.recover()
    host.start()
    laid_out.write("/proc/loadavg", "3.00 1 1 1/1 1\n")
    bench.turn_until(lambda: host.statistics()["cpuLoad"] == "3.00", "the next sample")
    laid_out.write("/proc/loadavg", "4.00 1 1 1/1 1\n")
    bench.turn_until(lambda: host.statistics()["cpuLoad"] == "4.00", "the one after it")
    host.quiesce(time.monotonic())


def test_a_failed_sample_keeps_the_last_and_sampling_goes_on(
    bench: Bench, laid_out: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    host = make(bench, laid_out, OFTEN)
    host.recover()
    laid_out.write("/proc/stat", "cpu not a number\n")
    host.start()
    bench.turn_until(lambda: "could not be sampled" in caplog.text, "a failure to be logged")
    assert host.statistics()["cpuUser"] == "10.00"
    laid_out.write("/proc/stat", "cpu  400 0 100 800 0 0 0 0\n")
    bench.turn_until(lambda: host.statistics()["cpuUser"] != "10.00", "the next sample")
    host.quiesce(time.monotonic())


def test_after_quiesce_nothing_is_sampled_until_start(bench: Bench, laid_out: Layout) -> None:
    host = make(bench, laid_out, OFTEN)
    host.recover()
    host.start()
    host.quiesce(time.monotonic())
    bench.turn_until(lambda: not bench.workers.busy, "running samples to end")
    host.quiesce(time.monotonic())
    before = msgspec.to_builtins(host.snapshot())
    for _ in range(10):
        bench.loop.turn(0.02)
    assert msgspec.to_builtins(host.snapshot()) == before
    host.start()
    bench.turn_until(lambda: msgspec.to_builtins(host.snapshot()) != before, "sampling to go on")
    host.quiesce(time.monotonic())


def test_a_reexec_keeps_the_generation_and_the_statistics(bench: Bench, laid_out: Layout) -> None:
    old = make(bench, laid_out)
    old.recover()
    entry = records.encode(old.snapshot())
    new = make(bench, laid_out)
    new.restore(records.decode(HostFacts.record, entry, "host"))
    assert new.generation_id == old.generation_id
    stable = {
        key: value for key, value in old.statistics().items() if key not in ("dateTime", "elapsedTime", "statsAge")
    }
    assert stable.items() <= new.statistics().items()


def test_rates_go_on_over_a_reexec(bench: Bench, laid_out: Layout) -> None:
    old = make(bench, laid_out)
    old.recover()
    entry = records.encode(old.snapshot())
    laid_out.write("/proc/stat", "cpu  200 0 100 800 0 0 0 0\n")
    new = make(bench, laid_out, OFTEN)
    new.restore(records.decode(HostFacts.record, entry, "host"))
    new.start()
    bench.turn_until(lambda: new.statistics()["cpuUser"] == "100.00", "the share over the exec")
    new.quiesce(time.monotonic())


def test_a_cold_start_has_a_new_generation(bench: Bench, laid_out: Layout) -> None:
    first, second = make(bench, laid_out), make(bench, laid_out)
    first.recover()
    second.recover()
    assert first.generation_id != second.generation_id


def test_capabilities_and_hardware(bench: Bench, laid_out: Layout) -> None:
    host = make(bench, laid_out)
    host.start()
    info = host.capabilities("")
    assert (info["kvmEnabled"], info["emulatedMachines"], info["cpuThreads"]) == ("true", ["pc"], "8")
    with pytest.raises(HardwareUnknown):
        host.hardware()
    laid_out.write("/sys/class/dmi/id/sys_vendor", "A Vendor\n")
    assert host.hardware() == {"systemManufacturer": "A Vendor"}
    host.quiesce(time.monotonic())


def test_what_guests_are_told_of_it(bench: Bench, laid_out: Layout) -> None:
    host = make(bench, laid_out)
    host.start()
    laid_out.write("/etc/os-release", "ID=nobodys\n")
    assert host.identity() == Identity()
    laid_out.write("/etc/vdsm/vdsm.id", "11111111-2222-3333-4444-555555555555\n")
    laid_out.write("/etc/os-release", 'ID=debian\nVERSION_ID="12"\n')
    told = Identity(host_uuid="11111111-2222-3333-4444-555555555555", os_name="Debian", os_version="12")
    assert host.identity() == told
    host.quiesce(time.monotonic())


def test_before_start_a_verb_waits_for_it(bench: Bench, laid_out: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    host = make(bench, laid_out)
    answers: list[Any] = []
    bench.workers.submit(lambda: host.capabilities(""), lambda result, error: answers.append(error or result))
    host.start()
    bench.turn_until(lambda: answers, "the answer")
    assert answers[0]["cpuThreads"] == "8"
    monkeypatch.setattr(facts, "READY_WITHIN", 0.0)
    with pytest.raises(NotResponding):
        make(bench, laid_out).capabilities("")


def test_a_changed_configuration(bench: Bench, laid_out: Layout) -> None:
    host = make(bench, laid_out)
    host.start()
    assert set(host.capabilities("")["nics"]) == {"ens1", "ens2"}
    host.reload(Config(path="", vars=Vars(hidden_nics="ens*, w*", guest_ram_overhead=99)))
    info = host.capabilities("")
    assert (info["nics"], info["guestOverhead"]) == ({}, "99")
    host.quiesce(time.monotonic())


def test_importing_it_imports_nothing_that_is_slow() -> None:
    code = "import sys, vdsmd.host.facts; sys.exit(any(name in sys.modules for name in ('psutil', 'vdsmd.host.links')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
