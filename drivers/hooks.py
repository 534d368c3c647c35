"""Hooks: an operator's scripts, run at points of what the daemon does, which may change what it does or forbid it.

A point is a folder of that name below the hooks' folder; every executable file in it is run, in the order of their names,
with the path of a file that holds the data in its environment; what it leaves there goes to the next one, and back to the
daemon. It promises that a script that fails, hangs or writes nonsense ends as an error with its name in it, and that a host
without scripts pays one look at a folder. What only a script needs is imported when the first one runs (`vdsmd.deferred` has
imported it by then).

A script finds `_hook_domxml` or `_hook_json` (the file), `vmId`, the properties of the device and of the machine (the machine's
win) and, if it is in Python, the modules in MODULES. What it leaves must be text, and where it was given JSON, JSON of the same
kind, without null and without whole numbers of more than 32 bits, which the wire does not have.

Exit status of a script: 0 went well; 1 failed, the others still run; 2 failed, and no other runs; anything else counts as 1.
Source of the points, of the environment and of these numbers: the management API of vdsm 3.3 to 3.6.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from drivers.errors import DriverError, Failed, NotResponding

log = logging.getLogger("hooks")

XML, JSON = "_hook_domxml", "_hook_json"
"""Variables that hold the path of the data."""
MODULES = "/usr/share/vdsm"
STOP = 2
TIMEOUT = 60.0
LARGEST = 16 << 20
LEADING = ("LD_", "PYTHON", "BASH_", "PERL5", "RUBY", "NODE_", "GCONV_PATH", "PATH", "HOME", "ENV", "IFS", "SHELLOPTS")
"""How variables begin that say which code a script runs: for the operator to set, and not for whoever may name properties."""
TICK = 1_000_000_000
"""Nanoseconds within which two changes of a folder may bear the same time, with much room."""

_AROUND = {
    XML: (
        "device_create device_destroy device_migrate_destination device_migrate_source disk_hotplug disk_hotunplug "
        "memory_hotplug nic_hotplug nic_hotunplug set_num_of_cpus update_device vm_cont vm_dehibernate vm_destroy "
        "vm_hibernate vm_migrate_destination vm_migrate_source vm_pause vm_set_ticket vm_start"
    ),
    JSON: "get_all_vm_stats get_caps get_stats get_vm_stats ifcfg_write network_setup",
}
_SINGLE = {
    XML: "after_nic_hotplug_fail after_nic_hotunplug_fail after_update_device_fail after_vdsm_stop before_vdsm_start",
    JSON: "after_hostdev_list_by_caps after_network_setup_fail",
}
POINTS: dict[str, str] = {
    **{
        f"{when}_{name}": kind
        for kind, names in _AROUND.items()
        for name in names.split()
        for when in ("before", "after")
    },
    **{name: kind for kind, names in _SINGLE.items() for name in names.split()},
}
"""Every point, and the variable that its scripts find their data by."""
_LENIENT = {"before_vm_destroy", "before_vm_set_ticket", "before_vdsm_start"}
"""What cannot be forbidden although it has not happened yet."""
_NEVER = ("before_ifcfg_write", "after_ifcfg_write")
"""Points of the API that never come here: networks are not written into files of the distribution's own."""


class HookFailed(Failed):
    message = "Hook {point} failed: {reason}"
    wire = "hookError"


class Hooks:
    """The scripts of one folder. `run` is for worker threads; the others are quick."""

    def __init__(
        self, folder: str, *, note: Callable[..., None] = lambda name, **fields: None, timeout: float = TIMEOUT
    ) -> None:
        self.folder = folder
        self._note = note
        self._seen: frozenset[str] = frozenset()
        self._seen_at = 0
        self._timeout = timeout
        self._never = set(_NEVER)

    def has(self, point: str) -> bool:
        """Say whether there is any script at the point. Quick: a name that does not exist costs microseconds."""
        return bool(self._scripts(point))

    def around(self, name: str) -> bool:
        """Say whether there is any script before or after what is called `name` in its points.

        For what is called by the thousand: as a rule it costs one look at the time of the hooks' folder. Loop's thread.
        """
        points = self._folders()
        before, after = f"before_{name}", f"after_{name}"
        return (before in points and self.has(before)) or (after in points and self.has(after))

    def run(
        self,
        point: str,
        data: str = "",
        *,
        vm_id: str = "",
        custom: Mapping[str, str] | None = None,
        device: Mapping[str, str] | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> str:
        """Run the scripts of the point over `data` (XML or JSON, as the point has it) and return what they made of it.

        `custom`: the machine's custom properties, `device`: the device's; both become variables, the machine's win. Raises
        HookFailed when a script before something fails; after something, a failure is logged, and the data are as they were.
        """
        scripts = self._scripts(point)
        if not scripts:
            return data
        properties = {**_texts(device or {}), **_texts(custom or {}), **(extra or {})}
        env = {**os.environ, "PYTHONPATH": _modules(), **properties, "vmId": vm_id}
        try:
            return self._run(point, scripts, data, env)
        except (DriverError, OSError) as error:  # no room for the data, most likely
            failure = error if isinstance(error, DriverError) else HookFailed(point=point, reason=error)
            if point.startswith("before_") and point not in _LENIENT:
                raise failure from error
            log.error("%s", failure)
            return data

    def run_json(self, point: str, value: Any, **context: Any) -> Any:
        """Do as `run`, for a value that goes over the wire."""
        if not self.has(point):
            return value
        text = self.run(point, msgspec.json.encode(value).decode(), **context)
        try:
            made = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            log.error("What a hook left is no JSON and is ignored point=%s error=%s", point, error)
            return value
        if type(made) is not type(value) or (_unfit(made) and not _unfit(value)):
            log.error("What a hook left cannot be answered and is ignored point=%s", point)
            return value
        return made

    def listing(self) -> dict[str, dict[str, dict[str, str]]]:
        """Return the scripts as capabilities tell them: by point and name, their MD5 sum."""
        found: dict[str, dict[str, dict[str, str]]] = {}
        for point in sorted(POINTS):
            sums = {os.path.basename(path): {"md5": _md5(path)} for path in self._scripts(point)}
            if sums:
                found[point] = sums
        self._warn(found)
        return found

    def _warn(self, found: Iterable[str]) -> None:
        never = self._never.intersection(found)
        self._never -= never
        for point in never:
            log.warning("These hooks never run: no such files are written on this host point=%s", point)

    def _folders(self) -> frozenset[str]:
        """Return the names in the hooks' folder. They are remembered, but not while it may change again in the same tick."""
        try:
            changed = os.stat(self.folder).st_mtime_ns
            if changed == self._seen_at:
                return self._seen
            names = frozenset(os.listdir(self.folder))
        except OSError:
            return frozenset()
        if time.time_ns() - changed > TICK:
            self._seen, self._seen_at = names, changed
        return names

    def _scripts(self, point: str) -> list[str]:
        if point not in POINTS:
            return []
        folder = os.path.join(self.folder, point)
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            return []
        paths = [os.path.join(folder, name) for name in names]
        return [path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)]

    def _run(self, point: str, scripts: list[str], data: str, env: dict[str, str]) -> str:
        import tempfile  # as the module says

        failed: list[str] = []
        with tempfile.TemporaryDirectory(prefix="hook-", ignore_cleanup_errors=True) as folder:
            path = os.path.join(folder, "data")
            with open(path, "w", encoding="utf-8") as file:
                file.write(data)
            for script in scripts:
                code, reason = self._one(script, {**env, POINTS[point]: path})
                failed += [f"{os.path.basename(script)}: {reason}"] if code else []
                if code == STOP:
                    break
            left, trouble = _left(path)
            if failed or trouble:
                reason = "; ".join(failed) or trouble
                self._note("hook.failed", point=point, reason=reason)
                raise HookFailed(point=point, reason=reason)
            return left

    def _one(self, script: str, env: dict[str, str]) -> tuple[int, str]:
        from drivers import programs  # as the module says

        begun = time.monotonic()
        try:
            ran = programs.run([script], env=env, timeout=self._timeout)
        except (Failed, NotResponding) as error:
            log.error("%s", error)
            return 1, str(error)
        log.info("Hook ran script=%s code=%d ms=%.0f", script, ran.code, (time.monotonic() - begun) * 1000)
        for line in ran.err.decode(errors="replace").splitlines()[:100]:
            log.info("Hook says script=%s: %s", script, line)
        return ran.code, ran.reason()


def _texts(properties: Mapping[str, object]) -> dict[str, str]:
    """Return what can be a variable, and leads no script astray. No script can have been written for the rest."""
    return {
        str(name): str(value)
        for name, value in properties.items()
        if name and "=" not in str(name) and "\0" not in f"{name}{value}" and not str(name).startswith(LEADING)
    }


def _modules() -> str:
    return ":".join(filter(None, (os.environ.get("PYTHONPATH"), MODULES)))


def _left(path: str) -> tuple[str, str]:
    """Return what is in the file, and what is wrong with that. By its name: a script may have put another file in its place."""
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > LARGEST:
            return "", f"what was left is no file, or has more than {LARGEST >> 20} MiB"
        with open(path, encoding="utf-8") as file:
            return file.read(), ""
    except (OSError, UnicodeDecodeError) as error:
        return "", f"what was left cannot be read: {error}"


def _unfit(value: Any) -> bool:
    """Say whether there is something in it that the wire has no form for: nothing at all, or a number of more than 32 bits."""
    if isinstance(value, dict):
        return any(map(_unfit, value.values()))
    if isinstance(value, list):
        return any(map(_unfit, value))
    return value is None or (isinstance(value, int) and not -(2**31) <= value < 2**31)


def _md5(path: str) -> str:
    import hashlib  # as the module says

    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError:
        return ""
