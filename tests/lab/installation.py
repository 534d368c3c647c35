"""vdsmd as packages would install it: a release of its own below /usr/lib/vdsmd, the units, the user, the configuration.

It promises that what is installed is this checkout, and that `remove` leaves no trace but the user. For other hosts it is a
command: `python -m tests.lab.installation install|remove`, with the options as JSON on standard input.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from state.release import VERSION

ROOT = Path(__file__).resolve().parents[2]
PACKAGING = ROOT / "packaging"
HOME = Path("/usr/lib/vdsmd")
CURRENT = HOME / "current"
CONFIG = Path("/etc/vdsm/vdsm.conf")
UNITS = Path("/etc/systemd/system")
CODE = ("vdsmd", "state", "drivers", "supervdsm")
WRITTEN = ("/run/vdsm", "/var/lib/vdsm", "/var/log/vdsm", "/rhev", "/etc/vdsm")

Options = Mapping[str, Mapping[str, object]]


def release(version: str = VERSION) -> Path:
    """Put the checkout's code and its Python packages into a release of that version, and return where. It is not in force."""
    target = HOME / "releases" / version
    library = target / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    library.mkdir(parents=True)
    # Links to the same files: nobody writes to them, and there are thousands.
    packages = [path for path in Path(sysconfig.get_path("purelib")).iterdir() if "__editable__" not in path.name]
    run("cp", "-al", *packages, library)
    run("cp", "-a", *(ROOT / name for name in CODE), library)
    identity = library / "state" / "release.py"
    text = identity.read_text(encoding="utf-8")
    identity.write_text(re.sub(r'^VERSION = ".*"$', f'VERSION = "{version}"', text, flags=re.M), encoding="utf-8")
    (target / "bin").mkdir()
    (target / "bin" / "python").symlink_to("/usr/bin/python3")
    (target / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n", encoding="utf-8")
    script = target / "bin" / "vdsmctl"
    lines = [f"#!{CURRENT}/bin/python", "import sys", "from vdsmd.ctl.main import main", "sys.exit(main())", ""]
    script.write_text("\n".join(lines), encoding="utf-8")
    script.chmod(0o755)
    run(target / "bin" / "python", "-m", "compileall", "-q", *(library / name for name in CODE))
    return target


def flip(target: Path) -> None:
    """Put a release in force: one rename."""
    new = HOME / "current.new"
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.rename(CURRENT)


def configure(options: Options) -> None:
    CONFIG.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for section, keys in options.items():
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in keys.items()), ""]
    CONFIG.write_text("\n".join(lines), encoding="utf-8")


def install(options: Options) -> None:
    """Install all of it, and start nothing."""
    flip(release())
    configure(options)
    run("systemd-sysusers", PACKAGING / "vdsmd.sysusers")
    for unit in PACKAGING.glob("*.service"):
        shutil.copy(unit, UNITS)
    run("systemctl", "daemon-reload")


def drop_in(unit: str, text: str) -> None:
    """Change a unit as an operator would. An empty text takes the change back."""
    folder = UNITS / f"{unit}.d"
    shutil.rmtree(folder, ignore_errors=True)
    if text:
        folder.mkdir()
        (folder / "test.conf").write_text(text, encoding="utf-8")
    run("systemctl", "daemon-reload")


def remove() -> None:
    """Take it all away, processes of its user included."""
    units = [unit.name for unit in PACKAGING.glob("*.service")]
    run("systemctl", "disable", "--now", *units, check=False)
    for unit in units:
        # What the unit's KillMode leaves: guests.
        group = Path(f"/sys/fs/cgroup/system.slice/{unit}/cgroup.kill")
        if group.exists():
            group.write_text("1", encoding="ascii")
    run("systemctl", "reset-failed", *units, check=False)
    for unit in units:
        (UNITS / unit).unlink(missing_ok=True)
        shutil.rmtree(UNITS / f"{unit}.d", ignore_errors=True)
    run("systemctl", "daemon-reload")
    for place in (*WRITTEN, HOME):
        shutil.rmtree(place, ignore_errors=True)


def run(*command: str | os.PathLike[str], check: bool = True) -> str:
    """Run a command and return what it said. Fails the test when it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


if __name__ == "__main__":
    given = json.load(sys.stdin)
    install(given) if sys.argv[1] == "install" else remove()
