"""The helper's configuration: the little that it needs of the daemon's own file.

It promises that whom it works for, and where, comes from here alone and never from a caller.
"""

from __future__ import annotations

import configparser
import grp
import os
import pwd
import stat
from typing import NamedTuple

from supervdsm.registry import Context

DEFAULT_PATH = "/etc/vdsm/vdsm.conf"
PATHS = {
    "run_dir": "/var/run/vdsm",
    "lib_dir": "/var/lib/vdsm",
    "log_dir": "/var/log/vdsm",
    "repository": "/rhev/data-center",
}

# In [supervdsm]: where the fence agents are, and root's own directory for work that no caller may see half done.
OWN_PLACES = {"fence_agents_dir": "fence_agents", "private_dir": "private_dir"}


class ConfigError(Exception):
    """The configuration cannot be used. The text says which file, which option, and why."""


class Settings(NamedTuple):
    path: str
    context: Context
    # The section [supervdsm]. `user`: whom the daemons run as. `group`: their group; by default kvm where there is one, else
    # the user's own.
    groups: tuple[int, ...]
    # Seconds after which a helper whose loop does not turn ends itself, to be replaced. Longer than any quick action.
    watchdog: float = 20
    # Seconds for the code on disk to be rehearsed, and for slow actions to end, before a replacement is refused.
    rehearsal_timeout: float = 60
    quiesce_timeout: float = 10
    # With --spawn: how many times in a row vdsmd may die young before we give up.
    restarts: int = 10


def load(path: str, *, own: bool = False) -> Settings:
    """Read the file. `own`: work for the user that we are, whatever it says. Raises ConfigError."""
    path = os.path.abspath(path)
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with open(path, encoding="utf-8") as file:
            _check_owner(path, os.fstat(file.fileno()))
            parser.read_file(file, path)
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    given = dict(parser["supervdsm"]) if "supervdsm" in parser else {}
    user, gid = _own() if own else _user(path, given.get("user", "vdsm"), given.get("group"))
    places = {name: parser.get("paths", name, fallback=usual) for name, usual in PATHS.items()}
    for name, place in places.items():
        if not place.startswith("/") or ".." in place.split("/"):
            raise ConfigError(f"{path}: [paths] {name} = {place}: expected an absolute path without ..")
    own_places = {field: given[name] for name, field in OWN_PLACES.items() if name in given}
    context = Context(uid=user.pw_uid, gid=gid, user=user.pw_name, **places, **own_places)
    numbers = {name: _number(path, name, given[name]) for name in Settings._field_defaults if name in given}
    return Settings(path, context, _groups(user, gid), **numbers)  # type: ignore[arg-type]


def _check_owner(path: str, told: os.stat_result) -> None:
    """Raise when somebody else than root could write there whom root is to work for."""
    others = stat.S_IWOTH | (stat.S_IWGRP if told.st_gid else 0)
    if told.st_uid not in (0, os.geteuid()) or told.st_mode & others:
        raise ConfigError(
            f"{path} can be written by others than root (user {told.st_uid}, group {told.st_gid}, mode"
            f" {stat.S_IMODE(told.st_mode):o}): chown root:root it, and chmod 644"
        )


def _own() -> tuple[pwd.struct_passwd, int]:
    return pwd.getpwuid(os.getuid()), os.getgid()


def _user(path: str, name: str, group: str | None) -> tuple[pwd.struct_passwd, int]:
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(
            f"{path}: [supervdsm] user = {name}: there is no such user: make it"
            f" (useradd --system --gid kvm {name}), or name another"
        ) from None
    try:
        return user, grp.getgrnam(group or "kvm").gr_gid
    except KeyError:
        if group:
            raise ConfigError(f"{path}: [supervdsm] group = {group}: there is no such group") from None
        return user, user.pw_gid


def _groups(user: pwd.struct_passwd, gid: int) -> tuple[int, ...]:
    return tuple(sorted({gid, *os.getgrouplist(user.pw_name, user.pw_gid)}))


def _number(path: str, name: str, text: str) -> float:
    kind = int if name == "restarts" else float
    try:
        value = kind(text)
    except ValueError:
        value = -1
    if not 0 < value < 1e6:
        raise ConfigError(f"{path}: [supervdsm] {name} = {text}: expected a number above 0, below 1000000")
    return value
