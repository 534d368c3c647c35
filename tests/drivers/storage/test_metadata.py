"""Metadata of domains: what other implementations wrote is read, what is written here they can read, and damage is told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drivers.errors import DriverError
from drivers.storage.contract import Class, Domain, Type
from drivers.storage.domains import metadata
from drivers.storage.errors import (
    DescriptionTooLong,
    MetadataInvalid,
    MetadataKeyMissing,
    SealBroken,
    UnsupportedVersion,
)

UUID = "5a1d5a0e-6d2f-4a0b-9a57-0e5ac2cc8d11"
POOL = "00000002-0002-0002-0002-0000000000f1"

FOREIGN = f"""\
CLASS=Data
DESCRIPTION=nfs &#228; one
IOOPTIMEOUTSEC=10
LEASERETRIES=3
LEASETIMESEC=60
LOCKPOLICY=
LOCKRENEWALINTERVALSEC=5
MASTER_VERSION=7
POOL_DESCRIPTION=Default
POOL_DOMAINS={UUID}:Active
POOL_SPM_ID=2
POOL_SPM_LVER=31
POOL_UUID={POOL}
REMOTE_PATH=server.example:/export/one
ROLE=Master
SDUUID={UUID}
TYPE=NFS
VERSION=3
"""


def sealed(text: str) -> bytes:
    """Seal lines of ASCII as the format says, without the code under test."""
    lines = "".join(sorted(text.splitlines()))
    return f"{text}_SHA_CKSUM={hashlib.sha1(lines.encode()).hexdigest()}\n".encode()


def test_a_foreign_domain_is_read() -> None:
    fields = metadata.decode(sealed(FOREIGN), UUID)
    domain = metadata.domain(fields, UUID, "/somewhere")
    assert (domain.type, domain.cls, domain.version) == (Type.NFS, Class.DATA, 3)
    assert metadata.info(fields, domain) == {
        "uuid": UUID,
        "type": "NFS",
        "class": "Data",
        "name": "nfs \xe4 one",
        "role": "Master",
        "pool": [POOL],
        "version": "3",
        "remotePath": "server.example:/export/one",
        "lver": 31,
        "spm_id": 2,
        "master_ver": 7,
    }


NEWER = (
    FOREIGN.replace("CLASS=", "ALIGNMENT=8388608\nBLOCK_SIZE=4096\nCLASS=").replace("VERSION=3", "VERSION=5")
).replace("TYPE=NFS", "TYPE=GLUSTERFS")
OLDER = FOREIGN.replace("LOCKPOLICY=", "LOCKPOLICY=ON").replace("TYPE=NFS", "TYPE=LOCALFS")


@pytest.mark.parametrize("seal", [sealed, str.encode])
@pytest.mark.parametrize(
    ("text", "type_", "version", "block_size", "alignment"),
    [
        (OLDER.replace("VERSION=3", "VERSION=0"), Type.LOCALFS, 0, 512, 1 << 20),
        (OLDER.replace("VERSION=3", "VERSION=2"), Type.LOCALFS, 2, 512, 1 << 20),
        (FOREIGN.replace("TYPE=NFS", "TYPE=SHAREDFS"), Type.POSIXFS, 3, 512, 1 << 20),
        (FOREIGN.replace("VERSION=3", "VERSION=4"), Type.NFS, 4, 512, 1 << 20),
        (NEWER, Type.GLUSTERFS, 5, 4096, 8 << 20),
    ],
)
def test_domains_of_all_versions_are_read(
    seal: Callable[[str], bytes], text: str, type_: Type, version: int, block_size: int, alignment: int
) -> None:
    text = text.replace("MASTER_VERSION", "LOCKX_OF_OTHERS=a=b,c:d\nMASTER_VERSION")
    fields = metadata.decode(seal(text), UUID)
    found = metadata.domain(fields, UUID, "")
    assert (found.type, found.version, found.block_size, found.alignment) == (type_, version, block_size, alignment)
    told = metadata.info(fields, found)
    assert (told["version"], told["type"], told["pool"]) == (str(version), type_.name, [POOL])
    assert metadata.encode(fields) == sealed(text)


def test_what_is_written_is_byte_for_byte_the_format() -> None:
    assert metadata.encode(metadata.decode(sealed(FOREIGN), UUID)) == sealed(FOREIGN)


def test_unknown_keys_are_kept() -> None:
    text = FOREIGN.replace("MASTER_VERSION", "FUTURE_KEY=a=b c\nMASTER_VERSION")
    fields = metadata.decode(sealed(text), UUID)
    assert fields["FUTURE_KEY"] == "a=b c"
    assert b"FUTURE_KEY=a=b c\n" in metadata.encode(fields)


def test_a_missing_checksum_is_no_error_and_a_wrong_one_is() -> None:
    assert metadata.decode(FOREIGN.encode(), UUID)["VERSION"] == "3"
    with pytest.raises(SealBroken):
        metadata.decode(sealed(FOREIGN).replace(b"LEASERETRIES=3", b"LEASERETRIES=4"), UUID)


def test_an_empty_file_is_empty_metadata() -> None:
    assert metadata.decode(b"", UUID) == {}
    with pytest.raises(MetadataKeyMissing):
        metadata.domain({}, UUID, "")


def test_text_that_is_not_ascii_is_sealed_as_references() -> None:
    raw = FOREIGN.replace("&#228;", "\xe4")
    seal = sealed(FOREIGN).splitlines()[-1].decode()
    assert metadata.decode(f"{raw}{seal}\n".encode(), UUID)["DESCRIPTION"] == "nfs \xe4 one"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"VERSION": "1"}, UnsupportedVersion),
        ({"VERSION": "99"}, UnsupportedVersion),
        ({"VERSION": "three"}, MetadataInvalid),
        ({"VERSION": "9" * 4000}, MetadataInvalid),
        ({"TYPE": "FLOPPY"}, MetadataInvalid),
        ({"CLASS": ""}, MetadataInvalid),
        ({"SDUUID": POOL}, MetadataInvalid),
        ({"BLOCK_SIZE": "x"}, MetadataInvalid),
    ],
)
def test_fields_that_make_no_sense(change: dict[str, str], error: type[Exception]) -> None:
    fields = metadata.decode(sealed(FOREIGN), UUID) | change
    with pytest.raises(error):
        metadata.domain(fields, UUID, "")


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"just words\n", b"=value\n", b"A=1\0B=2\n", b"\x7fELF" + b"\0" * 60 + b"x"]
)
def test_garbage(data: bytes) -> None:
    with pytest.raises(MetadataInvalid):
        metadata.decode(data, UUID)


def test_descriptions() -> None:
    with pytest.raises(DescriptionTooLong):
        metadata.description("x" * 51)
    assert metadata.description("x" * 50) == "x" * 50
    with pytest.raises(DriverError):
        metadata.description("\ud800")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@given(texts)
def test_any_description_comes_back(text: str) -> None:
    fields = {"DESCRIPTION": metadata.description(text)}
    read = metadata.decode(metadata.encode(fields), UUID)
    assert metadata.unspelled(read["DESCRIPTION"]) == metadata.shown(text.strip())


keys = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="="), min_size=1, max_size=12)
values = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=40)


@given(st.dictionaries(keys, values, max_size=8))
def test_any_fields_come_back(fields: dict[str, str]) -> None:
    fields.pop(metadata.CHECKSUM, None)
    read = metadata.decode(metadata.encode(fields), UUID)
    assert metadata.encode(read) == metadata.encode(fields)
    assert read.keys() == fields.keys()


@given(st.binary(max_size=300), st.integers(0, 700))
def test_damage_is_told_or_does_no_harm(noise: bytes, at: int) -> None:
    """Whatever a disk does to the file: an error of ours, or fields that everything can be asked of."""
    data = sealed(FOREIGN)
    try:
        fields = metadata.decode(data[:at] + noise + data[at + len(noise) :], UUID)
        told: dict[str, Any] = metadata.info(fields, metadata.domain(fields, UUID, ""))
    except DriverError:
        return
    assert told["uuid"] == UUID


@example(98, 1)
@example(98, ord("\n") ^ ord(" "))
@given(st.integers(0, 600), st.integers(1, 255))
def test_no_flipped_byte_is_believed(at: int, flip: int) -> None:
    data = bytearray(sealed(FOREIGN))
    at %= len(data)
    data[at] ^= flip
    try:
        fields = metadata.decode(bytes(data), UUID)
    except DriverError:
        return
    assert metadata.encode(fields) == sealed(FOREIGN) or f"\n{metadata.CHECKSUM}=".encode() not in bytes(data)


def test_a_new_domain_has_all_that_others_look_for() -> None:
    domain = Domain(uuid=UUID, path="", type=Type.LOCALFS, cls=Class.ISO, version=5, remote_path="/data")
    fields = metadata.fresh(domain, "name")
    assert metadata.domain(metadata.decode(metadata.encode(fields), UUID), UUID, "") == domain
    needed = {
        "LOCKPOLICY",
        "LOCKRENEWALINTERVALSEC",
        "LEASETIMESEC",
        "IOOPTIMEOUTSEC",
        "LEASERETRIES",
        "POOL_UUID",
        "ROLE",
    }
    assert needed <= fields.keys()
