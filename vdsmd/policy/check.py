"""Checking a policy before it is followed: does it say anything that cannot be meant?

It promises that a policy that passes uses no name that is not defined somewhere, and no form with too few parts or too many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vdsmd.policy.evaluate import METHODS, ON_ANYTHING, OPERATIONS
from vdsmd.policy.language import BLOCK, Form, Name, Node, PolicyError

Counts = dict[str, tuple[int, int]]
"""How few and how many arguments a function takes."""

GIVEN = frozenset({"Host", "Guests", "null"})
SPECIAL: Counts = {
    "def": (3, 3),
    "defvar": (2, 2),
    "let": (2, 2),
    "set": (2, 2),
    "if": (2, 3),
    "and": (1, 99),
    "or": (1, 99),
    "with": (3, 3),
}
NAMING = ("def", "defvar", "let", "set")
"""Forms whose second part is a name, and not what it stands for."""


class Known:
    """All names of the policies that are followed together, in their order."""

    def __init__(self) -> None:
        self.variables: set[str] = set(GIVEN)
        self.functions: Counts = {name: (low, high) for name, (_, low, high) in (OPERATIONS | ON_ANYTHING).items()}

    def check(self, policy: list[Node]) -> None:
        """Learn the policy's names, and check it. Raises PolicyError."""
        for form in _forms(policy):
            self._learn(form)
        for node in policy:
            self._node(node)

    def _learn(self, form: Form) -> None:
        _check_shape(form)
        if form.head == "def":
            _def, name, parameters, _body = form.parts
            assert isinstance(name, Name)
            assert isinstance(parameters, Form)
            names = [each.text for each in parameters.parts if isinstance(each, Name)]
            self.functions[name.text] = (len(names), len(names))
            self.variables |= set(names)
        elif form.head in ("defvar", "let", "with"):
            name = form.parts[2 if form.head == "with" else 1]
            assert isinstance(name, Name)
            self.variables.add(name.text)

    def _node(self, node: Node) -> None:
        if isinstance(node, Name):
            if node.base not in self.variables:
                raise PolicyError(node.line, f"{node.base} is not defined")
        elif isinstance(node, Form):
            self._form(node)

    def _form(self, form: Form) -> None:
        head = form.parts[0] if form.parts else None
        if not isinstance(head, Name):
            raise PolicyError(form.line, "a form begins with a name")
        if head.text == "def":
            self._node(form.parts[3])
            return
        if head.member:
            self._node(head)
            _check_count(form, *(2 * (METHODS.get(head.member, -1),)), what=head.member)
        elif head.text in self.functions:
            _check_count(form, *self.functions[head.text], what=head.text)
        elif head.text not in SPECIAL and head.text != BLOCK:
            raise PolicyError(form.line, f"there is no function {head.text}")
        for part in form.parts[2 if head.text in NAMING and head.text != "set" else 1 :]:
            self._node(part)


def _forms(nodes: Iterable[Node]) -> Iterator[Form]:
    for node in nodes:
        if isinstance(node, Form):
            yield node
            yield from _forms(node.parts)


def _check_shape(form: Form) -> None:
    """Raise unless the form has the parts that its head needs. The parameters of a function are a form of names."""
    head = form.head
    if head in SPECIAL:
        _check_count(form, *SPECIAL[head], what=head)
    if head in (*NAMING, "with"):
        name = form.parts[2 if head == "with" else 1]
        if not isinstance(name, Name) or name.member or name.text in GIVEN:
            raise PolicyError(form.line, f"{head} needs a name of your own")
    if head == "with" and form.parts[1] != Name("Guests", getattr(form.parts[1], "line", 0)):
        raise PolicyError(form.line, "with goes over Guests, and nothing else")
    if head == "def":
        parameters = form.parts[2]
        if not isinstance(parameters, Form) or not all(isinstance(each, Name) for each in parameters.parts):
            raise PolicyError(form.line, "the parameters of a function are names in parentheses")


def _check_count(form: Form, low: int, high: int, *, what: str) -> None:
    given = len(form.parts) - 1
    if low < 0:
        raise PolicyError(form.line, f"{what} cannot be asked of the host or a guest")
    if not low <= given <= high:
        takes = str(low) if low == high else f"{low} to {high}" if high < 99 else f"at least {low}"
        raise PolicyError(form.line, f"{what} takes {takes} arguments, and not {given}")
