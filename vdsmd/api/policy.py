"""Verbs about how this host's memory is shared out: KSM, and the policy engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.errors import Failed
from supervdsm.client import ActionError
from vdsmd.api.table import Reply, verb
from vdsmd.api.wire import Struct

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon

KSM = ("run", "sleep_millisecs", "pages_to_scan", "merge_across_nodes")


class KsmFailed(Failed):
    message = "KSM could not be tuned: {reason}"
    wire = "ksmErr"


@verb("setKsmTune", cli="host ksm")
def set_ksm_tune(daemon: Daemon, tuningParams: Struct) -> Reply:
    """Tune KSM, the kernel's sharing of equal pages.

    All that is given is set, or nothing. `run` 0 stops it, 1 runs it, 2 stops it and takes all sharing back;
    `pages_to_scan` and `sleep_millisecs` say how fast it looks; `merge_across_nodes` (0 or 1) can be changed only while
    nothing is shared.
    """
    given = {name: _number(name, value) for name, value in tuningParams.items()}
    try:
        daemon.helper.call("ksm.tune", timeout=60.0, **given)
    except ActionError as error:
        raise KsmFailed(reason=error) from error
    return {}


@verb("setMOMPolicy", cli="host policy")
def set_mom_policy(daemon: Daemon, policy: str) -> Reply:
    """Have the policy engine follow this text instead of its own rules.

    It is in the language of MOM's policies. An empty one takes that back. Text that is no policy is answered with code 54,
    and changes nothing.
    """
    daemon.policy.set_policy(policy)
    return {}


@verb("setMOMPolicyParameters", cli="host policy-parameters")
def set_mom_policy_parameters(daemon: Daemon, key_value_store: Struct) -> Reply:
    """Set variables of the policies.

    Names, and numbers, truth values or texts. They take the place of those that were set before. The rules that are shipped
    know balloonEnabled, ksmEnabled and ksmMergeAcrossNodes.
    """
    daemon.policy.set_parameters(key_value_store)
    return {}


def _number(name: str, value: object) -> int:
    if name not in KSM:
        raise KsmFailed(reason=f"{name[:50]!r} is none of {', '.join(KSM)}")
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if not isinstance(value, int):
        raise KsmFailed(reason=f"{name} is not a number")
    return int(value)
