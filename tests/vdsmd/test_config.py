"""The configuration: defaults, and errors that name file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsmd.config import Config, ConfigError, load


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "vdsm.conf"
    path.write_text(text)
    return str(path)


def test_defaults(tmp_path: Path) -> None:
    config = load(write(tmp_path, ""))
    assert config.vars.ssl is True and config.addresses.management_port == 54321
    assert config.paths.run_dir == "/var/run/vdsm" and config.libvirt.uri == "auto"


def test_values_and_unknown_options(tmp_path: Path) -> None:
    text = "[vars]\nssl = False\nof_a_later_release = 1\nvm_sample_interval: 2.5\n[addresses]\nmanagement_port=0\n[irs]\nx=1\n"
    config = load(write(tmp_path, text))
    assert (config.vars.ssl, config.vars.vm_sample_interval, config.addresses.management_port) == (False, 2.5, 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[vars]\n\n# a comment\nssl = maybe\n", "line 4: [vars] ssl = maybe: expected true or false"),
        ("[x]\nssl=no\n[vars]\nSSL = 7\n", "line 4: [vars] ssl = 7: expected true or false"),
        (
            "[addresses]\nmanagement_port = http\n",
            "line 2: [addresses] management_port = http: expected a whole number",
        ),
        (
            "[addresses]\nmanagement_port = -1\n",
            "line 2: [addresses] management_port = -1: expected a number that is not",
        ),
        ("[libvirt]\nvirt_type = xen\n", "line 2: [libvirt] virt_type = xen: expected one of auto, kvm, qemu"),
        ("[vars]\nssl\n", "[line 2]: 'ssl"),
        ("ssl = true\n", "line: 1"),
        ("[vars]\nssl = true\nssl = false\n", "[line 3]: option 'ssl' in section 'vars' already exists"),
    ],
)
def test_errors_name_file_line_and_key(tmp_path: Path, text: str, told: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert told in str(caught.value) and path in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.conf: cannot be read: .*No such file"):
        load(str(tmp_path / "none.conf"))


@given(text=st.text(max_size=200))
def test_no_text_breaks_it(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("c") / "vdsm.conf"
    path.write_text("[vars]\n" + text.replace("\x00", ""), encoding="utf-8", errors="replace")
    try:
        assert isinstance(load(str(path)), Config)
    except ConfigError as error:
        assert str(path) in str(error)
