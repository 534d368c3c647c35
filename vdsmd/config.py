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
    # MiB of the host's memory that virtual machines cannot have: for the host, and beyond that.
    host_mem_reserve: int = 256
    extra_mem_reserve: int = 65
    # MiB that a virtual machine takes beyond its own memory.
    guest_ram_overhead: int = 65
    # Network cards with these names are not shown.
    hidden_nics: str = "w*,usb*"
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


class Libvirt(msgspec.Struct, frozen=True, kw_only=True):
    # auto, qemu:///system, qemu:///embed?root=DIR or test:///default.
    uri: str = "auto"
    # auto takes kvm where it really works, else qemu (software emulation, slow).
    virt_type: Literal["auto", "kvm", "qemu"] = "auto"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration. `path` is the file it was read from."""

    path: str
    vars: Vars = Vars()
    addresses: Addresses = Addresses()
    paths: Paths = Paths()
    libvirt: Libvirt = Libvirt()


SECTIONS: dict[str, type[msgspec.Struct]] = {
    "vars": Vars,
    "addresses": Addresses,
    "paths": Paths,
    "libvirt": Libvirt,
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
