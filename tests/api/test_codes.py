"""Codes: each meaning of an error has its number, and a new one has that of the meaning it is a case of."""

from __future__ import annotations

import pytest

from drivers import errors
from vdsmd.api import codes, contract


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (errors.NoSuchVm(vm="x"), 1, "noVM"),
        (errors.VmExists(vm="x"), 4, "exist"),
        (errors.NoWayToShutDown(vm="x"), 4, "exist"),
        (errors.MissingParameter(name="vmId"), 11, "MissParam"),
        (errors.Failed(action="x", reason="y"), 16, "unexpected"),
        (errors.TicketFailed(vm="x", reason="y"), 18, "ticketErr"),
        (errors.NotResponding(what="x", reason="y"), 19, "nonresp"),
        (errors.Busy(what="x", reason="y"), 40, "unavail"),
        (errors.DestroyFailed(vm="x", reason="y"), 42, "destroyErr"),
        (errors.NotBuilt(verb="x"), 44, "noimpl"),
        (errors.HardwareUnknown(reason="y"), 57, "hwInfoErr"),
        (errors.Unsupported(what="x", reason="y"), 75, "unsupportedOperationErr"),
        (errors.Invalid(what="x", reason="y"), 91, "InvalidParameter"),
        (errors.NotFound(kind="x", name="y"), 91, "InvalidParameter"),
        (errors.Recovering(reason="x"), 99, "recovery"),
        (errors.DriverError(reason="x"), 16, "unexpected"),
        (ValueError("x"), 16, "unexpected"),
    ],
)
def test_codes(error: Exception, code: int, name: str) -> None:
    assert codes.code_of(error) == code
    assert contract.code_name(code) == name


def test_the_text_that_clients_compare() -> None:
    assert str(errors.NoSuchVm(vm="x")) == "Virtual machine does not exist"


def test_a_case_of_a_meaning_needs_no_number_of_its_own() -> None:
    class Odd(errors.TicketFailed):
        message = "odd"

    assert codes.code_of(Odd()) == 18


def test_every_number_used_is_in_the_contract() -> None:
    used = {value for name, value in vars(codes).items() if name.isupper() and isinstance(value, int)}
    assert {code for code in used if code >= 0} <= set(contract.load().codes)
