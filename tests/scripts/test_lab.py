"""scripts/lab, as far as it goes without a virtual host: its command line, its network, and what goes into the hosts."""

from __future__ import annotations

import re
import socket
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.virtualhost import image
from scripts.virtualhost.__main__ import parse
from scripts.virtualhost.payload import pack
from scripts.virtualhost.switch import Switch

ROOT = Path(__file__).parents[2]
ALL, FIRST, SECOND = b"\xff" * 6, bytes.fromhex("525400770101"), bytes.fromhex("525400770201")
PATIENCE = 60.0


class Card:
    """What QEMU does with the options of a network."""

    def __init__(self, options: str) -> None:
        given = dict(part.split("=", 1) for part in options.split(",") if "=" in part)
        self._there = given["remote.path"]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(PATIENCE)
        self._socket.bind(given["local.path"])

    def send(self, to: bytes, sender: bytes, text: bytes) -> None:
        self._socket.sendto(to + sender + text, self._there)

    def receive(self) -> bytes:
        return self._socket.recv(65536)[12:]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def cards() -> Iterator[list[Card]]:
    with tempfile.TemporaryDirectory(prefix="vd-", dir="/tmp") as base:
        switch = Switch(Path(base))
        cards = [Card(switch.plug(f"card-{number}")) for number in range(3)]
        switch.start()
        yield cards
        switch.close()
        for card in cards:
            card.close()


def test_a_frame_for_all_reaches_all_others_and_one_for_a_known_card_that_alone(cards: list[Card]) -> None:
    first, second, third = cards
    first.send(ALL, FIRST, b"who is there?")
    assert second.receive() == third.receive() == b"who is there?"
    second.send(FIRST, SECOND, b"I am")
    assert first.receive() == b"I am"
    first.send(SECOND, FIRST, b"for you")
    assert second.receive() == b"for you"
    second.send(ALL, SECOND, b"the end")
    # Nobody has got what was not for him, nor his own words.
    assert first.receive() == third.receive() == b"the end"


def test_a_card_that_is_gone_costs_the_others_nothing(cards: list[Card]) -> None:
    first, second, third = cards
    third.close()
    first.send(ALL, FIRST, b"hello")
    first.send(b"x", b"", b"")
    first.send(ALL, FIRST, b"again")
    assert [second.receive(), second.receive(), second.receive()] == [b"hello", b"", b"again"]


def test_the_checkout_goes_in_at_the_same_path_without_what_nobody_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    packages = checkout / ".cache/venv.1/lib/python3/site-packages"
    for place in ("msgspec", "mypy", "ruff-1.dist-info"):
        (packages / place).mkdir(parents=True)
        (packages / place / "file").touch()
    for place in ("vdsmd/code.py", ".git/objects", ".cache/lab/image", ".cache/guest/vmlinuz"):
        (checkout / place).parent.mkdir(parents=True, exist_ok=True)
        (checkout / place).touch()
    (checkout / ".venv").symlink_to(".cache/venv.1")
    monkeypatch.delenv("VDSMD_CACHE", raising=False)
    pack(checkout, tmp_path / "tar")
    with tarfile.open(tmp_path / "tar") as archive:
        files = {f"/{entry.name}" for entry in archive if not entry.isdir()}
        assert {entry.uid for entry in archive if entry.isfile()} == {0}
    wanted = {".venv", "vdsmd/code.py", ".cache/guest/vmlinuz", ".cache/venv.1/lib/python3/site-packages/msgspec/file"}
    assert files == {str(checkout / name) for name in wanted}


@pytest.mark.parametrize(
    ("given", "hosts", "rest"),
    [
        (["run"], 1, []),
        (["run", "--hosts", "2"], 2, []),
        (["run", "--", "-k", "reboot", "--hosts"], 1, ["-k", "reboot", "--hosts"]),
    ],
)
def test_what_follows_the_dashes_is_for_pytest(given: list[str], hosts: int, rest: list[str]) -> None:
    options, arguments = parse(given)
    assert (options.hosts, arguments) == (hosts, rest)


@pytest.mark.parametrize("given", [[], ["boot"], ["run", "--hosts", "0"], ["run", "-k", "x"], ["shell", "--", "-x"]])
def test_a_wrong_command_line_is_refused(given: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        parse(given)
    assert refused.value.code == 2


def test_the_recipe_names_packages() -> None:
    lines = (image.RECIPE / "packages").read_text(encoding="utf-8").splitlines()
    names = [line.split()[0] for line in lines if not line.startswith("#")]
    assert "systemd" in names and len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", name) for name in names)
