"""The contract: facts that engines rely on, as data."""

from __future__ import annotations

import pytest

from vdsmd.api import contract

TYPES = {
    "uuid", "string", "int", "boolean", "boolean-like", "truthy", "number", "size", "struct", "list", "ignored",
    "list of uuid", "list of string", "list of struct", "int or string", "struct or string", "sectors or size",
}  # fmt: skip


def test_all_verbs_are_there() -> None:
    verbs = contract.verbs()
    assert len(verbs) == 158
    assert sum(facts.storage for facts in verbs.values()) == 91
    for name in ("create", "list", "getVdsCapabilities", "setupNetworks", "createVolume", "getTaskStatus", "fenceNode"):
        assert name in verbs


@pytest.mark.parametrize("facts", contract.verbs().values(), ids=list(contract.verbs()))
def test_facts_are_whole(facts: contract.Facts) -> None:
    assert facts.doc.endswith(".")
    assert "\n" not in facts.doc
    assert facts.group
    assert {parameter.type for parameter in facts.parameters} <= TYPES
    optional = [parameter.optional for parameter in facts.parameters]
    assert optional == sorted(optional), "a parameter that must be given follows one that need not"
    names = [parameter.name for parameter in facts.parameters]
    assert len(names) == len(set(names))
    assert not facts.task or "uuid" in facts.reply


@pytest.mark.parametrize(
    ("name", "takes", "refuses"),
    [
        ("ping", [0], [1]),
        ("list", [0, 1, 2], [3]),
        ("shutdown", [1, 3, 4, 6], [0, 7]),
        ("merge", [2, 4, 5, 6], [0, 1, 3, 7]),
        ("createVolume", [9, 11, 12], [8, 13]),
        ("prepareImage", [3, 4, 5], [2, 6]),
    ],
)
def test_arity(name: str, takes: list[int], refuses: list[int]) -> None:
    facts = contract.verbs()[name]
    assert all(facts.takes(count) for count in takes)
    assert not any(facts.takes(count) for count in refuses)


@pytest.mark.parametrize(
    ("code", "name"),
    [(0, "ok"), (1, "noVM"), (4, "exist"), (44, "noimpl"), (99, "recovery"), (309, "StoragePoolUnknown")],
)
def test_codes_have_names(code: int, name: str) -> None:
    assert contract.code_name(code) == name


def test_an_unknown_code_has_none() -> None:
    assert contract.code_name(-1) == ""
    assert len(contract.load().codes) == 428
