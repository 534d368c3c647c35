"""Rules: which policies are in force, and what clients may set of them.

They are followed in the order of their names: those that are shipped, each replaced by one of the same name in the operator's
folder, and among them the parameters. What setMOMPolicy sets takes the place of all but the definitions and the parameters.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from drivers.errors import Failed
from state.directory import StateDirectory
from vdsmd.policy.check import Known
from vdsmd.policy.language import LONGEST, Node, PolicyError, read
from vdsmd.policy.shipped import DEFINITIONS, POLICIES

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
SUFFIX = ".policy"
PARAMETERS, POLICY = "parameters", "default"
"""Files in which the daemon leaves what clients have set."""
MOST_PARAMETERS = 1000


class MomFailed(Failed):
    message = "The policy cannot be set: {reason}"
    wire = "momErr"


class Rules:
    """What is in force is read anew each time. `folder`: where the daemon leaves what clients set."""

    def __init__(self, folder: StateDirectory, policy_dir: str, tuning_policy: str) -> None:
        self._folder = folder
        self._policy_dir = policy_dir
        self._tuning = tuning_policy

    def any(self) -> bool:
        """Whether there is anything to follow but what is shipped, which does nothing by itself."""
        return bool(self._folder.names()) or bool(self._operators())

    def texts(self, *, parameters: str | None = None, policy: str | None = None) -> dict[str, str]:
        """Return all policies by name, in their order. What is given is taken instead of what was set."""
        set_policy = self._left(POLICY) if policy is None else policy
        texts = POLICIES | self._operators()
        if set_policy:
            texts = {DEFINITIONS: texts[DEFINITIONS], POLICY: set_policy}
        texts[self._tuning] = self._left(PARAMETERS) if parameters is None else parameters
        return dict(sorted(texts.items()))

    def set_policy(self, text: str) -> None:
        """Have it followed from now on; '' takes it back. Raises MomFailed, and then changes nothing."""
        self._check(POLICY, self.texts(policy=text))
        self._write(POLICY, text)

    def set_parameters(self, given: Mapping[str, object]) -> None:
        """Have these be the parameters. Raises MomFailed, and then changes nothing."""
        text = _defining(given)
        self._check(self._tuning, self.texts(parameters=text))
        self._write(PARAMETERS, text)

    def _check(self, name: str, texts: dict[str, str]) -> None:
        """Raise MomFailed when the policy `name` cannot be meant, whatever the others are."""
        known = Known()
        for each, text in texts.items():
            try:
                known.check(read(text))
            except PolicyError as error:
                if each == name:
                    raise MomFailed(reason=error) from error

    def _write(self, name: str, text: str) -> None:
        try:
            self._folder.write(name, text.encode())
        except (OSError, UnicodeEncodeError) as error:
            raise MomFailed(reason=error) from error

    def _left(self, name: str) -> str:
        return (self._folder.read(name) or b"").decode()

    def _operators(self) -> dict[str, str]:
        try:
            names = [name for name in os.listdir(self._policy_dir) if name.endswith(SUFFIX)]
        except OSError:
            return {}
        return {name.removesuffix(SUFFIX): _text(os.path.join(self._policy_dir, name)) for name in names}


def forms(texts: Mapping[str, str]) -> dict[str, list[Node] | PolicyError]:
    """Return what the texts say, by name; for one that cannot be followed, why."""
    known = Known()
    found: dict[str, list[Node] | PolicyError] = {}
    for name, text in texts.items():
        try:
            found[name] = policy = read(text)
            known.check(policy)
        except PolicyError as error:
            found[name] = error
    return found


def _defining(given: Mapping[str, object]) -> str:
    """Return the policy that sets these variables."""
    if len(given) > MOST_PARAMETERS:
        raise MomFailed(reason=f"more than {MOST_PARAMETERS} parameters")
    return "".join(f"(defvar {_checked(name)} {_literal(name, value)})\n" for name, value in given.items())


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise MomFailed(reason=f"not a name: {name[:50]!r}")
    return name


def _literal(name: str, value: object) -> str:
    """Return a value as a policy has it. Truth values and numbers may come as text."""
    if isinstance(value, bool) or str(value).lower() in ("true", "false"):
        return str(int(str(value).lower() == "true"))
    if isinstance(value, int | float) or (isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d+)?", value)):
        return f"{float(value)!r}"
    if not isinstance(value, str) or '"' in value or not value.isprintable():
        raise MomFailed(reason=f"{name} is neither a number, nor a truth value, nor plain text")
    return f'"{value}"'


def _text(path: str) -> str:
    """Return the file's text; of one that cannot be read, what says so when it is followed."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(LONGEST + 1)
    except OSError:
        return "(unreadable)"
