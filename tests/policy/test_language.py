"""The language: what is a policy, what is none, and what one can compute."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsmd.policy import evaluate
from vdsmd.policy.check import Known
from vdsmd.policy.evaluate import Round
from vdsmd.policy.language import DEEPEST, LONGEST, PolicyError, read
from vdsmd.policy.shipped import POLICIES
from vdsmd.policy.world import Guest, Host


class Stand:
    """A host with two guests, of which only the first tells of its memory."""

    def __init__(self) -> None:
        self.host = Host()
        self.host.look({"memFree": 512, "ksmState": True, "ksmPages": 100}, memory=1 << 20, processors=4)
        self.telling, self.silent = Guest("telling"), Guest("silent")
        self.telling.look({"vmName": "one", "memoryStats": {"mem_unused": "1000"}, "vcpuCount": "2"})
        self.silent.look({"vmName": "two"})
        self.failures: list[str] = []

    def follow(self, text: str) -> None:
        policy = read(text)
        Known().check(policy)
        Round(self.host, [self.telling, self.silent], self.failures.append).follow(policy)

    def value(self, expression: str) -> Any:
        """Return what an expression is, rounded, by way of a control."""
        self.follow(f'(Host.Control "ksm_run" {expression}\n)')
        ((_deed, _names),) = self.host.deeds() or [(("", ({"run": 1},)), [])]
        return _deed[1][0]["run"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("(+ 1 2 39)", 42),
        ("(- 50 4 4)", 42),
        ("(- -42)", 42),
        ("(* 2 21)", 42),
        ("(/ 84 2)", 42),
        ("(min 42 99)", 42),
        ("(max 1 42 7)", 42),
        ("(abs -42)", 42),
        ("(* 42 (< 1 2))", 42),
        ("(* 42 (>= 2 2))", 42),
        ('(* 42 (== "a" "a"))', 42),
        ("(* 42 (!= 1 2))", 42),
        ("(if (not 0) 42 7)", 42),
        ("(if (null? Host.nothing) 42 7)", 42),
        ("(if (and 1 (or 0 1)) 42 7)", 42),
        ("(if 0 7 42) # not 7", 42),
        ("{ (defvar x 40) (set x (+ x 2)) x }", 42),
        ("{ (def twice (x) (* 2 x)) (twice 21) }", 42),
        ("{ (def f () 42) (f) }", 42),
        ("(+ Host.cpu_count 38)", 42),
        ('(+ (Host.StatAvg "ksm_pages_to_scan") -58)', 42),
        ('{ (Host.SetVar "v" 42) (Host.GetVar "v") }', 42),
        ("4.2e1", 42),
    ],
)
def test_what_expressions_are(expression: str, value: float) -> None:
    assert Stand().value(expression) == value


def test_what_a_function_defines_is_its_own() -> None:
    stand = Stand()
    assert stand.value("{ (defvar x 42) (def f () (defvar x 7)) (f) x }") == 42
    assert stand.value("{ (defvar x 7) (def f () (set x 42)) (f) x }") == 42


def test_a_guest_that_it_cannot_be_followed_for_keeps_nobody_from_anything() -> None:
    stand = Stand()
    stand.follow('(with Guests g (g.Control "balloon_target" (+ 0 g.mem_unused)))')
    assert stand.telling.deeds() == [(("setBalloonTarget", ("telling", 1000)), ["balloon_target"])]
    assert stand.silent.deeds() == []
    assert stand.failures == ["two: line 1: something in this computation is not known"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\n\n(+ 1", "line 3: ( is never closed"),
        ("(+ 1 2}", "line 1: } closes nothing"),
        (")", "line 1: ) closes nothing"),
        ('(debug "a\n")', "line 1: a text that does not end"),
        ("(debug $x)", "line 1: neither a number nor a name"),
        ("()", "line 1: a form begins with a name"),
        ("(1 2)", "line 1: a form begins with a name"),
        ("(foo 1)", "line 1: there is no function foo"),
        ("(+ 1 y)", "line 1: y is not defined"),
        ("(if 1)", "line 1: if takes 2 to 3 arguments, and not 1"),
        ("(abs 1 2)", "line 1: abs takes 1 arguments, and not 2"),
        ("(defvar Host 1)", "line 1: defvar needs a name of your own"),
        ("(set a.b 1)", "line 1: set needs a name of your own"),
        ("(def f x 1)", "line 1: the parameters of a function are names in parentheses"),
        ("(def f (a) a) (f 1 2)", "line 1: f takes 1 arguments, and not 2"),
        ("(with Hosts h 1)", "line 1: with goes over Guests"),
        ('(Host.Explode "x")', "line 1: Explode cannot be asked"),
        ('(nobody.Stat "x")', "line 1: nobody is not defined"),
        ("(" * (DEEPEST + 1), "line 1: more than"),
        (" " * (LONGEST + 1), "line 1: a policy has"),
    ],
)
def test_what_is_no_policy(text: str, reason: str) -> None:
    with pytest.raises(PolicyError) as raised:
        Stand().follow(text)
    assert str(raised.value).startswith(reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(/ 1 0)", "division by zero"),
        ('(+ 1 "a")', "computes with numbers"),
        ('(Host.Control "vcpu_quota" 1)', "no control 'vcpu_quota'"),
        ('(Host.Control "ksm_run" "a")', "a number only"),
        ('(Host.Control "ksm_run" (* 1e300 1e300))', "a number only"),
        ('(Host.Control "ksm_run" null)', "not known"),
        ("(Host.Control 1 2)", "in quotes"),
        ('(defvar x 1) (x.Stat "y")', "neither the host nor a guest"),
        ("(f) (def f () 1)", "not defined yet"),
        ("(set x 1) (defvar x 2)", "not defined here"),
        ("(def f () (f)) (f)", "calls itself too often"),
    ],
)
def test_what_cannot_be_followed(text: str, reason: str) -> None:
    with pytest.raises(PolicyError, match=reason):
        Stand().follow(text)


def test_a_policy_that_takes_too_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "STEPS", 1000)
    with pytest.raises(PolicyError, match="too long"):
        Stand().follow("(def f (n) (if (> n 0) { (f (- n 1)) (f (- n 1)) })) (f 20)")
    with pytest.raises(PolicyError, match="too long"):
        Stand().follow("(def f (n) (if (> n 0) { (f (- n 1)) (f (- n 1)) })) (with Guests g (f 20))")


@given(st.text(alphabet='(){}"# \nabHost.Guests+-*/<=0123defvarwith', max_size=200))
def test_any_text_is_a_policy_or_is_refused(text: str) -> None:
    stand = Stand()
    try:
        stand.follow(text)
    except PolicyError as error:
        assert str(error).startswith("line ")


def test_what_is_shipped_can_be_followed() -> None:
    known = Known()
    for text in POLICIES.values():
        known.check(read(text))
