"""The configuration: an INI file with defaults, checked whole before any of it is used.

It promises that an error names the file, the line and the key, and that a configuration is accepted entirely or not at all.
The comment above an option is its manual.
"""

from __future__ import annotations

import configparser
import os
import re
from typing import Any, Literal, get_args

import msgspec

DEFAULT_PATH = "/etc/vdsm/vdsm.conf"
TRUE = ("1", "yes", "true", "on")
FALSE = ("0", "no", "false", "off")


class ConfigError(Exception):
    """The configuration cannot be used. The text says which file, which line, which key, and why."""


class Vars(msgspec.Struct, frozen=True, kw_only=True):
    # Mutual TLS on the management port. Without it, anyone who reaches the port is root on this host.
    ssl: bool = True
    # Where keys/vdsmkey.pem, certs/vdsmcert.pem and certs/cacert.pem lie.
    trust_store_path: str = "/etc/pki/vdsm"
    # Seconds after which a silent connection is closed.
    vds_responsiveness_timeout: float = 60
    # Seconds after which a verb that waits for a virtual machine is answered for.
    vm_command_timeout: float = 60
    # Seconds between two samples of all virtual machines' statistics.
    vm_sample_interval: float = 15
    # Seconds between two samples of the host's statistics.
    host_sample_stats_interval: float = 15
    # The network card models of virtual machines that name none.
    nic_model: str = "rtl8139,pv"
    # The bridge of network cards that are asked for in the old way (macAddr) without naming one.
    default_bridge: str = "engine"
    # The cache mode of virtual machines' disks: none, writethrough or writeback.
    qemu_drive_cache: Literal["none", "writethrough", "writeback"] = "none"
    # Seconds a guest gets to shut down when its user is asked, and when the system shuts down.
    user_shutdown_timeout: int = 30
    sys_shutdown_timeout: int = 120
    # Seconds that the agent in a guest may be silent before what it said of the guest's use of memory is not shown any more.
    guest_agent_timeout: float = 30
    # Seconds a guest gets to let go of a device that is unplugged.
    hotunplug_timeout: float = 30
    # The most MiB a second that the replication of one disk transfers. 0: as many as it can.
    replication_bandwidth: int = 0
    # How many virtual machines leave for other hosts at a time; more wait.
    max_outgoing_migrations: int = 2
    # The most MiB a second that one migration transfers. 0: as many as it can.
    migration_max_bandwidth: int = 52
    # Milliseconds for which a guest may stand still at the end of its migration, unless the caller says otherwise. It gets
    # there in so many steps, over so many seconds for each GiB of its memory: a guest that needs less does not stand longer.
    migration_downtime: int = 500
    migration_downtime_steps: int = 5
    migration_downtime_delay: float = 100
    # Seconds after which a migration that comes no nearer to its end is given up. 0: never.
    migration_progress_timeout: float = 240
    # Seconds that a migration may take for each GiB of the guest's memory. 0: as long as it likes.
    migration_max_time_per_gib_mem: float = 64
    # Seconds between two looks at a migration.
    migration_monitor_interval: float = 10
    # Seconds that a virtual machine which is on its way here is waited for.
    migration_destination_timeout: float = 21600
    # Seconds that the other host may take to get ready for a virtual machine.
    migration_listener_timeout: float = 30
    # MiB of the host's memory that virtual machines cannot have: for the host, and beyond that.
    host_mem_reserve: int = 256
    extra_mem_reserve: int = 65
    # MiB that a virtual machine takes beyond its own memory.
    guest_ram_overhead: int = 65
    # Count each thread of a processor as a core.
    report_host_threads_as_cores: bool = False
    # Tell engines that KVM works here, whether it does or not. Where it does not, virtual machines run by emulation.
    fake_kvm_support: bool = False
    # Network cards, bonds and VLANs with these names are not shown.
    hidden_nics: str = "w*,usb*"
    hidden_bonds: str = ""
    hidden_vlans: str = ""
    # Devices with these names are shown as network cards although they are none.
    fake_nics: str = "dummy_*,veth_*"
    # Answer one request per connection (HTTP/1.0) when off.
    xmlrpc_http11: bool = True
    # Size in MiB at which a console log is rotated, and how many old ones are kept.
    console_max_mb: float = 16
    console_keep: int = 5
    # Size in MiB at which a file of the event journal is full, and how many full ones are kept.
    events_max_mb: float = 4
    events_keep: int = 5
    # The least severe messages that are logged: DEBUG, INFO, WARNING or ERROR.
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    # Seconds a rehearsal may take before the re-exec is refused.
    rehearsal_timeout: float = 60
    # Seconds a new run may take to serve before it becomes the previous release again. 0: ten times what the rehearsal has
    # just taken, and at least 1.2.
    takeover_timeout: float = 0
    # Seconds that must lie between two re-execs; a request before that is refused. 0: as often as one likes.
    reexec_min_interval: float = 0
    # MiB that must be free where the state directory lies, or a re-exec is refused.
    state_min_free_mb: float = 4
    # Seconds that running calls get to end before the re-exec is refused.
    quiesce_timeout: float = 10


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    management_ip: str = "0.0.0.0"
    # 0 picks a free one; <run_dir>/endpoints.json says which.
    management_port: int = 54321


class Paths(msgspec.Struct, frozen=True, kw_only=True):
    # Everything that the daemon writes lies under these. run_dir should be on a tmpfs.
    run_dir: str = "/var/run/vdsm"
    lib_dir: str = "/var/lib/vdsm"
    log_dir: str = "/var/log/vdsm"
    repository: str = "/rhev/data-center"
    # Where an operator's scripts lie: a folder for each point at which they run.
    hooks: str = "/usr/libexec/vdsm/hooks"


class Libvirt(msgspec.Struct, frozen=True, kw_only=True):
    # auto, qemu:///system, qemu:///embed?root=DIR or test:///default.
    uri: str = "auto"
    # auto takes kvm where it really works, else qemu (software emulation, slow).
    virt_type: Literal["auto", "kvm", "qemu"] = "auto"


class Mom(msgspec.Struct, frozen=True, kw_only=True):
    # Run the policy engine, once it has a policy, or parameters of one.
    enabled: bool = True
    # Where an operator's policies lie (NAME.policy). One of the same name takes the place of one that is shipped.
    policy_dir: str = "/etc/vdsm/mom.d"
    # The name under which the parameters of setMOMPolicyParameters come into force; policies are in the order of their names.
    tuning_policy: str = "01-parameters"
    # Seconds between two rounds of the policies.
    interval: float = 10


class Irs(msgspec.Struct, frozen=True, kw_only=True):
    # Options of NFS mounts, beside those that a connection asks for.
    nfs_mount_options: str = "soft,nosharecache"
    # Seconds, 180 at most, after which mounting storage is given up, because its server is away. A re-exec waits for as long.
    mount_timeout: float = 60
    # Seconds that one call on a storage domain may take before it is said not to answer.
    process_pool_timeout: float = 60
    # How many calls on one storage domain run at a time, and how many more wait.
    process_pool_max_slots_per_domain: int = 10
    process_pool_max_queued_slots_per_domain: int = 10
    # Seconds after which the helper process of a storage domain that nobody uses is ended.
    max_ioprocess_idle_time: float = 60
    # Seconds between two checks of a monitored storage domain.
    sd_health_check_delay: float = 10
    # How many storage domains a storage pool may have.
    maximum_domains_in_pool: int = 100
    # Seconds that one I/O of sanlock may take, from which all its times follow; the same on all hosts of a pool. 0: its own
    # default, 10. Less is for tests: a host on busy storage would lose its leases.
    sanlock_io_timeout: int = 0
    # How many tasks there may be, ended ones included, and how many of them at work at once.
    max_tasks: int = 500
    thread_pool_size: int = 10
    # Milliseconds that a task waits for what other tasks have, an image mostly. Then it fails.
    task_resource_default_timeout: int = 120000
    # What qcow2 volumes are like on domains up to version 3: 0.10 for hosts of any age, or 1.1. Later domains have 1.1.
    qcow2_compat: Literal["0.10", "1.1"] = "0.10"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration. `path` is the file it was read from."""

    path: str
    vars: Vars = Vars()
    addresses: Addresses = Addresses()
    paths: Paths = Paths()
    libvirt: Libvirt = Libvirt()
    irs: Irs = Irs()
    mom: Mom = Mom()


SECTIONS: dict[str, type[msgspec.Struct]] = {
    "vars": Vars,
    "addresses": Addresses,
    "paths": Paths,
    "libvirt": Libvirt,
    "irs": Irs,
    "mom": Mom,
}


def load(path: str) -> Config:
    """Read and check the file. Options that this release does not know are left alone: other releases may. Raises
    ConfigError."""
    path = os.path.abspath(path)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text, source=path)
    except configparser.Error as error:
        raise ConfigError(" ".join(str(error).split())) from error
    return Config(path=path, **{name: _section(parser, name, path, text) for name in SECTIONS})


def _section(parser: configparser.ConfigParser, name: str, path: str, text: str) -> Any:
    given = dict(parser[name]) if name in parser else {}
    kind = SECTIONS[name]
    values = {}
    hints = kind.__annotations__
    for option in kind.__struct_fields__:
        if option in given:
            try:
                values[option] = _value(hints[option], given[option])
            except ValueError as error:
                line = _line(text, name, option)
                raise ConfigError(f"{path}, line {line}: [{name}] {option} = {given[option]}: {error}") from error
    return kind(**values)


def _value(hint: str, text: str) -> Any:
    if hint == "bool":
        if text.lower() not in TRUE + FALSE:
            raise ValueError("expected true or false")
        return text.lower() in TRUE
    if hint in ("int", "float"):
        return _number(hint, text)
    if hint.startswith("Literal"):
        words = get_args(eval(hint, {"Literal": Literal}))  # our own annotation, written above
        if text not in words:
            raise ValueError(f"expected one of {', '.join(words)}")
    return text


def _number(hint: str, text: str) -> int | float:
    try:
        value = int(text) if hint == "int" else float(text)
    except ValueError:
        raise ValueError("expected a whole number" if hint == "int" else "expected a number") from None
    if not 0 <= value < 1e9:
        raise ValueError("expected a number that is not negative, below 1000000000")
    return value


def _line(text: str, section: str, option: str) -> int:
    """Return the number of the line that sets the option; the parser does not keep it."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        heading = re.match(r"\[(.+?)\]", line)
        if heading:
            inside = heading[1] == section
        elif inside and re.match(rf"{re.escape(option)}\s*[=:]", line.strip(), re.IGNORECASE):
            return number
    return 0
