"""Strategies: whatever a caller of the XML-RPC API can send, and things that look much like parameters."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from drivers.vm.devices import KINDS
from drivers.vm.legacy import Legacy
from drivers.vm.params import Machine

WORDS = [
    "true",
    "false",
    "0",
    "1",
    "2",
    "-1",
    "c",
    "pv",
    "vnc",
    "qxl",
    "spice",
    "none",
    "virtio",
    "scsi",
    "ide",
    "sata",
    "cow",
]
WORDS += [
    "disk",
    "cdrom",
    "lun",
    "floppy",
    "bridge",
    "user",
    "ethernet",
    "/a",
    "/dev/b",
    "00:1a:4a:16:01:51",
    "network",
    "1e3",
    "x,y",
]


def values() -> st.SearchStrategy[Any]:
    """Any tree of values."""
    leaves = st.one_of(
        st.sampled_from(WORDS), st.integers(), st.floats(), st.booleans(), st.text(max_size=8), st.binary(max_size=2)
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=8,
    )


def parameters() -> st.SearchStrategy[dict[str, Any]]:
    """Parameters of `create` whose keys have a meaning, with likely and unlikely values."""
    top = _struct(Machine, Legacy)
    return st.builds(lambda more, devices: {**more, **devices}, top, _devices()).map(
        lambda said: {**said, "vmId": "0b6a2e5c-3f0b-4b0e-9e57-0f5a8d7c1e11", "memSize": 1}
    )


def _devices() -> st.SearchStrategy[dict[str, Any]]:
    kinds = [_struct(view).map(lambda said, kind=kind: {**said, "type": kind}) for kind, view in KINDS.items()]
    return st.just({}) | st.lists(st.one_of(kinds), max_size=5).map(lambda devices: {"devices": devices})


def _struct(*views: type[msgspec.Struct]) -> st.SearchStrategy[dict[str, Any]]:
    names = [field.encode_name for view in views for field in msgspec.structs.fields(view)]
    likely = st.sampled_from([*WORDS, 1, 0, True, False, "", {}, [], {"model": "none"}, {"type": "pci", "slot": 3}])
    return st.dictionaries(st.sampled_from(names), st.one_of(likely, likely, likely, values()), max_size=6)
