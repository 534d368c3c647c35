"""Introspection, and that the verbs we have agree with the contract."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import vdsmd.api
from vdsmd.api import contract, introspection, wire
from vdsmd.api.table import TABLE, Verb

for module in pkgutil.iter_modules(vdsmd.api.__path__):
    importlib.import_module(f"vdsmd.api.{module.name}")

KNOWN = [verb for name, verb in sorted(TABLE.items()) if name in contract.verbs()]


def test_what_is_listed() -> None:
    listed = introspection.answer("system.listMethods", [])
    assert listed == sorted(set(listed))
    assert {"ping", "create", "getVolumeInfo", "system.listMethods", "system.methodHelp"} <= set(listed)
    assert "system.multicall" not in listed
    assert not [name for name in listed if name in TABLE and TABLE[name].local]


def test_all_that_is_listed_has_help_and_a_signature() -> None:
    for name in introspection.answer("system.listMethods", []):
        assert introspection.answer("system.methodHelp", [name])
        signature = introspection.answer("system.methodSignature", [name])
        assert set(signature) <= {"struct", "array", "string", "int", "boolean", "double", "base64"}


def test_help_says_what_is_not_built() -> None:
    assert introspection.answer("system.methodHelp", ["getVGList"]).endswith("Not built yet: answers code 44.")
    assert introspection.answer("system.methodHelp", ["reset"]).endswith("in any release: answers code 44.")
    assert "Not built" not in introspection.answer("system.methodHelp", ["ping"])


def test_signatures() -> None:
    assert introspection.answer("system.methodSignature", ["ping"]) == ["struct"]
    assert introspection.answer("system.methodSignature", ["getVolumesList"]) == [
        "struct",
        "string",
        "string",
        "string",
    ]


def test_questions_that_are_none() -> None:
    for args in ([], ["a", "b"]):
        with pytest.raises(wire.WrongArity):
            introspection.answer("system.methodHelp", args)
    strange: list[object] = ["noSuchVerb", 5, []]
    for question in strange:
        with pytest.raises(wire.UnknownVerb):
            introspection.answer("system.methodSignature", [question])


@pytest.mark.parametrize("verb", [TABLE[name] for name in sorted(TABLE)], ids=sorted(TABLE))
def test_a_verb_is_whole(verb: Verb) -> None:
    names = [parameter.name for parameter in wire.parameters(verb)]
    assert introspection.help_of(verb)
    assert verb.key is None or verb.key.partition(".")[0] in names


@pytest.mark.parametrize("verb", KNOWN, ids=[verb.name for verb in KNOWN])
def test_a_verb_agrees_with_the_contract(verb: Verb) -> None:
    facts = contract.verbs()[verb.name]
    ours = wire.parameters(verb)
    theirs = list(facts.parameters)
    while theirs and theirs[-1].type == "ignored":
        theirs.pop()
    assert [parameter.name for parameter in ours] == [parameter.name for parameter in theirs]
    newest = [parameter.optional for parameter in theirs]
    # A verb that takes an older form, too, can be called with fewer.
    fewest = min(facts.arity[0], *(least for least, _ in facts.older), len(theirs))
    both = [optional or number >= fewest for number, optional in enumerate(newest)]
    assert [parameter.optional for parameter in ours] in (newest, both)
    assert verb.gated is not facts.storage
    assert verb.message == ("OK" if facts.storage else "Done")
    assert verb.alive is (verb.name in ("ping", "list", "getVdsCapabilities"))
    assert not verb.local


def test_nothing_but_block_storage_is_missing() -> None:
    missing = {name for name, facts in contract.verbs().items() if name not in TABLE and not facts.never}
    assert missing <= {
        *("createVG", "getVGInfo", "getVGList", "removeVG", "resizePV", "discoverSendTargets"),
        *("getDeviceInfo", "getDeviceList", "getDevicesVisibility"),
    }
