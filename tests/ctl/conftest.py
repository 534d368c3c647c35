"""Fixtures: a served run directory, and vdsmctl in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.ctl.serving import Server
from vdsmd.ctl import main


class Ran(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a configuration whose run directory has a path short enough for a socket."""
    base = tmp_path_factory.mktemp("c")
    path = base / "vdsm.conf"
    path.write_text(f"[paths]\nrun_dir = {base}\n[vars]\ntrust_store_path = {base}/pki\n")
    return path


@pytest.fixture
def server(config: Path) -> Iterator[Server]:
    server = Server(config.parent)
    yield server
    server.close()


@pytest.fixture
def run(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Give a function that runs vdsmctl and returns its exit status and what it wrote."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(*words: str) -> Ran:
        try:
            status = main.main(["--config", str(config), *words])
        except SystemExit as ended:  # argparse ends us itself
            status = int(ended.code or 0)
        written = capsys.readouterr()
        return Ran(status, written.out, written.err)

    return run
