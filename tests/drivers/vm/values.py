"""Strategies: whatever a caller of the XML-RPC API can send, and parameters that make sense more often than not."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from drivers.vm.conf.devices import KINDS
from drivers.vm.conf.legacy import Legacy
from drivers.vm.conf.params import Machine

VM = "0b6a2e5c-3f0b-4b0e-9e57-0f5a8d7c1e11"
WORDS = [
    "/a",
    "/dev/b",
    "pv",
    "virtio",
    "qxl",
    "std",
    "scsi",
    "usb",
    "i6300esb",
    "true",
    "1",
    "x,y",
    "",
    "q35",
    "a<&>'\"ä",
]
MAC = "00:1a:4a:16:01:51"


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
    """Parameters of `create`, most of which make sense."""
    kinds: list[st.SearchStrategy[Any]] = [
        st.builds(dict, _struct(view), type=st.just(kind)) for kind, view in KINDS.items()
    ]
    devices: st.SearchStrategy[Any] = st.just({}) | st.fixed_dictionaries(
        {"devices": st.lists(st.one_of(kinds), max_size=5)}
    )
    given = st.fixed_dictionaries({}, optional=_fields(Machine) | _fields(Legacy))
    spoilt = st.one_of(
        st.just({}), st.just({}), st.dictionaries(st.sampled_from(sorted(_fields(Machine))), values(), max_size=1)
    )
    return st.builds(
        lambda *parts: {key: value for part in parts for key, value in part.items()},
        *(given, devices, spoilt, st.just({"vmId": VM, "memSize": "64", "vmType": "kvm"})),
    )


def _struct(view: type[msgspec.Struct]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=_fields(view))


def _fields(view: type[msgspec.Struct]) -> dict[str, st.SearchStrategy[Any]]:
    info = inspect.type_info(view)
    assert isinstance(info, inspect.StructType)
    return {field.encode_name: _fitting(field.type) for field in info.fields if field.name != "devices"}


def _fitting(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Values that fit a type, in all the forms that callers give them."""
    match kind:
        case inspect.StructType():
            return st.deferred(lambda: _struct(kind.cls))
        case inspect.UnionType():
            return st.one_of([_fitting(one) for one in kind.types])
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.BoolType():
            return st.sampled_from([True, False, "true", "False", "1", 0])
        case inspect.IntType():
            numbers = st.integers(kind.ge or 0, 8)
            return numbers | numbers.map(str)
        case inspect.StrType():
            return st.sampled_from(["", "c", MAC, "kvm"]) if kind.pattern else st.sampled_from(WORDS)
        case inspect.DictType():
            return st.dictionaries(
                st.sampled_from(["type", "slot", "unit", "k"]), st.sampled_from(["pci", "drive", "0", "3"])
            )
        case inspect.ListType():
            return st.lists(_fitting(kind.item_type), max_size=2)
        case _:
            return values()
