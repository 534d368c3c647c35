"""vdsmctl over TLS: both sides prove who they are, with certificates laid out as the configuration says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.running import Running

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=120)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return a trust store for 127.0.0.1."""
    for folder in ("keys", "certs"):
        (tmp_path / folder).mkdir()
    ca, ca_key = tmp_path / "certs" / "cacert.pem", tmp_path / "ca.key"
    cert, key = tmp_path / "certs" / "vdsmcert.pem", tmp_path / "keys" / "vdsmkey.pem"
    request, names = tmp_path / "request", tmp_path / "names"
    names.write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("req", "-x509", *KEY, "-keyout", ca_key, "-out", ca, "-subj", "/CN=a test's authority", "-days", "2")
    openssl("req", *KEY, "-keyout", key, "-out", request, "-subj", "/CN=a test's host")
    openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-out", cert, "-days", "2", "-extfile", names)
    return tmp_path


def ctl(running: Running, host: str, *words: str) -> subprocess.CompletedProcess[str]:
    url = f"https://{host}:{running.port}"
    command = [sys.executable, "-m", "vdsmd.ctl.main", "--config", str(running.config), "--url", url, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


def test_tls(daemon: Callable[..., Running], store: Path) -> None:
    running = daemon(config={"vars": {"ssl": "true", "trust_store_path": store}})
    ran = ctl(running, "127.0.0.1", "host", "ping")
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr

    # 127.1 is the same address under a name that the certificate does not have.
    ran = ctl(running, "127.1", "host", "ping")
    assert ran.returncode == 1
    assert "CERTIFICATE_VERIFY_FAILED" in ran.stderr
    assert ctl(running, "127.1", "--any-name", "host", "ping").stdout == "done\n"

    ran = ctl(running, "127.0.0.1", "--key", "/nowhere", "host", "ping")
    assert ran.returncode == 2
    assert "key=/nowhere" in ran.stderr
