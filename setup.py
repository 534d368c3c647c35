"""Package metadata. The one place where dependencies are named and pinned."""

from __future__ import annotations

import runpy
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

RUNTIME = [
    "msgspec>=0.20,<0.23",
    "httptools>=0.6.4,<0.10",
    "lxml>=5.3,<7",
    "psutil>=6,<8",
    "python-daemon>=3.1,<4",
    # Of the privileged helper alone.
    "pyroute2>=0.9.5,<0.10",
    # libvirt's binding belongs to the system's libvirt: scripts/setup takes python3-libvirt from the distribution.
]

TEST = [
    "pytest>=8.3,<10",
    "pytest-xdist>=3.6,<4",
    "pytest-timeout>=2.3,<3",
    "hypothesis>=6.120,<7",
    "mfusepy>=3,<4",
    "mypy>=2.4,<3",
    # A formatter's next minor release may format differently.
    "ruff>=0.17.6,<0.18",
    "lxml-stubs>=0.5.1,<0.6",
    "types-psutil>=6,<8",
]

# For `scripts/bench fuzz`. It is large, and its wheels are for some versions of Python only.
FUZZ = ["atheris>=2.3,<4"]

setup(
    name="vdsmd",
    version=runpy.run_path(str(HERE / "state" / "release.py"))["VERSION"],
    description="A node agent for KVM hosts that is upgraded in place while its guests keep running",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["vdsmd*", "state*", "drivers*", "supervdsm*"]),
    package_data={"supervdsm": ["*.sh"]},
    install_requires=RUNTIME,
    extras_require={"test": TEST, "fuzz": FUZZ},
    entry_points={
        "console_scripts": [
            "vdsmd = vdsmd.__main__:main",
            "vdsmctl = vdsmd.ctl.main:main",
            "supervdsm = supervdsm.__main__:main",
        ]
    },
)
