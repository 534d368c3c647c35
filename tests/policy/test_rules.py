"""Rules: whose policy is in force, and what clients may set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from state.directory import StateDirectory
from vdsmd.api.codes import code_of
from vdsmd.policy.language import PolicyError
from vdsmd.policy.rules import MomFailed, Rules, forms


class Place:
    def __init__(self, path: Path) -> None:
        self.operators = path / "mom.d"
        self.operators.mkdir()
        self.folder = StateDirectory(str(path / "state"))
        self.rules = Rules(self.folder, str(self.operators), "01-parameters")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_is_shipped_alone_is_nothing_to_follow(place: Place) -> None:
    assert not place.rules.any()
    assert list(place.rules.texts()) == ["00-defines", "01-parameters", "02-balloon", "03-ksm"]


def test_an_operators_policy_takes_the_place_of_the_shipped_one(place: Place) -> None:
    (place.operators / "02-balloon.policy").write_text("(debug 1)")
    (place.operators / "50-own.policy").write_text("(debug 2)")
    (place.operators / "README").write_text("not one")
    assert place.rules.any()
    texts = place.rules.texts()
    assert (texts["02-balloon"], texts["50-own"]) == ("(debug 1)", "(debug 2)")
    assert "03-ksm" in texts and "README" not in texts


def test_a_policy_that_is_set_takes_the_place_of_the_rules(place: Place) -> None:
    place.rules.set_parameters({"ksmEnabled": True})
    place.rules.set_policy("(if ksmEnabled (debug 1) 0)")
    assert list(place.rules.texts()) == ["00-defines", "01-parameters", "default"]
    assert not [each for each in forms(place.rules.texts()).values() if isinstance(each, PolicyError)]
    place.rules.set_policy("")
    assert "default" not in place.rules.texts() and "02-balloon" in place.rules.texts()


@pytest.mark.parametrize(
    ("value", "literal"),
    [(True, "1"), ("false", "0"), (3, "3.0"), (0.5, "0.5"), ("-7", "-7.0"), ("some text", '"some text"'), ("", '""')],
)
def test_parameters(place: Place, value: Any, literal: str) -> None:
    place.rules.set_parameters({"name": value})
    assert place.rules.texts()["01-parameters"] == f"(defvar name {literal})\n"
    place.rules.set_parameters({})
    assert place.rules.texts()["01-parameters"] == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"a b": 1},
        {"": 1},
        {"a)": 1},
        {"null": 1},
        {"Host": 1},
        {"a": [1]},
        {"a": {}},
        {"a": 'say "no"'},
        {"a": "two\nlines"},
    ],
)
def test_parameters_that_are_none_change_nothing(place: Place, wrong: dict[str, Any]) -> None:
    place.rules.set_parameters({"good": 1})
    with pytest.raises(MomFailed) as raised:
        place.rules.set_parameters({"other": 2, **wrong})
    assert code_of(raised.value) == 54
    assert place.rules.texts()["01-parameters"] == "(defvar good 1.0)\n"


def test_text_that_is_no_policy_changes_nothing(place: Place) -> None:
    place.rules.set_policy("(debug 1)")
    with pytest.raises(MomFailed, match="line 1: unknown is not defined"):
        place.rules.set_policy("(debug unknown)")
    assert place.rules.texts()["default"] == "(debug 1)"


def test_a_broken_policy_of_an_operator_does_not_keep_clients_from_theirs(place: Place) -> None:
    (place.operators / "02-balloon.policy").write_text("(")
    place.rules.set_parameters({"balloonEnabled": True})
    found = forms(place.rules.texts())
    assert isinstance(found["02-balloon"], PolicyError)
    assert isinstance(found["03-ksm"], list)
