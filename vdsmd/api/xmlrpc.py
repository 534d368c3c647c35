"""XML-RPC documents to values (and, from `encoding`, back).

It promises that any sequence of bytes either decodes to plain values or is refused as `Malformed` with its place, in one
pass and with no more memory than the values take. There are no entities, no document types, no nil and no 64-bit
integers here (http://xmlrpc.com/spec.md).
"""

from __future__ import annotations

import binascii
import pyexpat
from collections.abc import Callable
from typing import Any

from vdsmd.api.encoding import MAX_DEPTH, DateTime, Unsendable, encode_call, encode_fault, encode_reply

__all__ = [
    "DateTime", "Decoder", "Fault", "Malformed", "Unsendable",
    "decode_call", "decode_reply", "encode_call", "encode_fault", "encode_reply",
]  # fmt: skip

_NUMBER_LENGTH = 400

# The grammar, as an automaton over elements: state -> {child tag: state after that child}. A new element begins in the
# state of its own name; an element may end in the states of _ENDS only.
_TYPES = ("int", "i4", "boolean", "string", "double", "base64", "dateTime.iso8601", "array", "struct")
_MOVES: dict[str, dict[str, str]] = {
    "document": {"methodCall": "full", "methodResponse": "full"},
    "methodCall": {"methodName": "named call"},
    "named call": {"params": "full"},
    "methodResponse": {"params": "full", "fault": "full"},
    "params": {"param": "params"},
    "param": {"value": "full"},
    "fault": {"value": "full"},
    "value": dict.fromkeys(_TYPES, "full"),
    "array": {"data": "full"},
    "data": {"value": "data"},
    "struct": {"member": "struct"},
    "member": {"name": "named member"},
    "named member": {"value": "full"},
}
_SCALARS = frozenset(_TYPES) - {"array", "struct"}
_TEXTUAL = _SCALARS | {"value", "name", "methodName"}
_ENDS = _TEXTUAL | {"named call", "params", "data", "struct", "full"}


class Malformed(Exception):
    """The document is not the XML-RPC that is spoken here. Line and column are where it was noticed."""

    def __init__(self, reason: str, line: int = 1, column: int = 0) -> None:
        super().__init__(f"line {line}, column {column}: {reason}")
        self.reason = reason
        self.line = line
        self.column = column


class Fault(Exception):
    """The other side answered with a fault."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"fault {code}: {text}")
        self.code = code
        self.text = text


# --- values from text -------------------------------------------------------------------------------------------------

# No regular expressions here: to compile one takes longer than everything else that importing this module does.

_SPACE = " \t\r\n"
_NO_SPACE = str.maketrans("", "", _SPACE)


def _int(text: str) -> int:
    text = text.strip(_SPACE)
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()):
        raise Malformed("not an integer")
    if len(digits) > _NUMBER_LENGTH or not -(2**31) <= int(text) < 2**31:
        raise Malformed("an integer does not fit 32 bits")
    return int(text)


def _boolean(text: str) -> bool:
    if text not in ("0", "1"):
        raise Malformed("a boolean is neither 0 nor 1")
    return text == "1"


def _double(text: str) -> float:
    text = text.strip(_SPACE)
    # The limit is there because converting a number takes more than linear time in its digits.
    if len(text) > _NUMBER_LENGTH or not _DOUBLE.issuperset(text):
        raise Malformed("not a double")
    try:
        number = float(text)
    except ValueError:
        raise Malformed("not a double") from None
    if number - number != 0.0:
        raise Malformed("not a double that is finite")
    return number


_DOUBLE = frozenset("+-.0123456789eE")


def _base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text.translate(_NO_SPACE), strict_mode=True)
    except ValueError as error:
        raise Malformed(f"bad base64: {error}") from None


def _datetime(text: str) -> DateTime:
    parts = (text[:4], text[4:6], text[6:8], text[9:11], text[12:14], text[15:])
    whole = len(text) == 17 and text[8] == "T" and text[11] == text[14] == ":"
    if not whole or not all(part.isascii() and part.isdigit() for part in parts):
        raise Malformed("a dateTime is not YYYYMMDDTHH:MM:SS")
    _, month, day, hour, minute, second = map(int, parts)
    if not (0 < month < 13 and 0 < day < 32 and hour < 24 and minute < 60 and second < 61):
        raise Malformed("a dateTime is not one that exists")
    return DateTime(text)


_FROM_TEXT: dict[str, Callable[[str], Any]] = {
    "int": _int,
    "i4": _int,
    "boolean": _boolean,
    "string": str,
    "double": _double,
    "base64": _base64,
    "dateTime.iso8601": _datetime,
}


# --- documents to values ----------------------------------------------------------------------------------------------


class Decoder:
    """Decodes one document, fed in pieces of any size.

    `feed` never raises: what is wrong is remembered, the rest is ignored, and `call` or `reply` tell.
    """

    __slots__ = ("_faulty", "_into", "_names", "_parser", "_root", "_states", "_text", "_value", "_wrong", "method")

    def __init__(self) -> None:
        self.method = ""
        self._root = ""
        self._faulty = False
        self._wrong: Malformed | None = None
        self._states = ["document"]
        self._into: list[Any] = [[]]
        self._names: list[str] = []
        self._text: list[str] = []
        self._value: Any = None
        parser = pyexpat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = _refuse_doctype
        self._parser: pyexpat.XMLParserType | None = parser

    def feed(self, data: bytes, final: bool = False) -> None:
        parser = self._parser
        if parser is None:
            return
        try:
            parser.Parse(data, final)
        except Malformed as error:
            self._refuse(error.reason, parser.CurrentLineNumber, parser.CurrentColumnNumber)
        except pyexpat.ExpatError as error:
            self._refuse(pyexpat.ErrorString(error.code), error.lineno, error.offset)
        except (LookupError, ValueError) as error:
            # An encoding that Python does not know or cannot use here.
            self._refuse(str(error), parser.CurrentLineNumber, parser.CurrentColumnNumber)
        if final:
            self._parser = None

    def call(self) -> tuple[str, list[Any]]:
        """Return the verb's name and its arguments, or raise Malformed."""
        self._finish("methodCall")
        return self.method, self._into[0]

    def reply(self) -> Any:
        """Return the one value of a reply, or raise Malformed, or Fault when it was one."""
        self._finish("methodResponse")
        if self._faulty:
            raise self._fault(self._into[0][0])
        if len(self._into[0]) != 1:
            raise Malformed("a reply holds exactly one value")
        return self._into[0][0]

    def _finish(self, root: str) -> None:
        self.feed(b"", final=True)
        if self._wrong is None and self._root != root:
            self._wrong = Malformed(f"not a {root}")
        if self._wrong is not None:
            raise self._wrong

    def _refuse(self, reason: str, line: int, column: int) -> None:
        self._wrong = Malformed(reason, line, column)
        self._parser = None
        self._into = [[]]

    @staticmethod
    def _fault(value: Any) -> Fault:
        match value:
            case {"faultCode": int(code), "faultString": str(text)}:
                return Fault(code, text)
        raise Malformed("a fault holds a faultCode and a faultString")

    def _start(self, tag: str, _attributes: dict[str, str]) -> None:
        state = self._states[-1]
        after = _MOVES[state].get(tag) if state in _MOVES else None
        if after is None:
            raise Malformed(f"<{tag[:40]}> has no place here")
        if self._text:
            self._only_space("".join(self._text))
            self._text.clear()
        self._states[-1] = after
        self._states.append(tag)
        if tag in _OPENERS:
            self._open(tag)

    def _open(self, tag: str) -> None:
        if tag in ("methodCall", "methodResponse"):
            self._root = tag
        elif tag == "fault":
            self._faulty = True
        elif len(self._into) > MAX_DEPTH:
            raise Malformed(f"nested deeper than {MAX_DEPTH}")
        else:
            self._into.append([] if tag == "array" else {})

    def _end(self, tag: str) -> None:
        state = self._states.pop()
        if state not in _ENDS:
            raise Malformed(f"<{tag}> is not complete")
        if tag == "value":
            self._put(self._value if state == "full" else self._take_text())
        elif tag in _SCALARS:
            self._value = _FROM_TEXT[tag](self._take_text())
        elif tag == "array" or tag == "struct":
            self._value = self._into.pop()
        elif tag == "name":
            self._names.append(self._take_text())
        elif tag == "methodName":
            self.method = self._take_text().strip()

    def _put(self, value: Any) -> None:
        into = self._into[-1]
        if type(into) is list:
            into.append(value)
            return
        name = self._names.pop()
        if name in into:
            raise Malformed(f"member {name[:40]!r} comes twice")
        into[name] = value

    def _characters(self, data: str) -> None:
        if self._states[-1] in _TEXTUAL:
            self._text.append(data)
        else:
            self._only_space(data)

    def _take_text(self) -> str:
        text = "".join(self._text)
        self._text.clear()
        return text

    @staticmethod
    def _only_space(text: str) -> None:
        if text.strip(_SPACE):
            raise Malformed("text has no place here")


_OPENERS = frozenset(("methodCall", "methodResponse", "fault", "array", "struct"))


def _refuse_doctype(*_: object) -> None:
    raise Malformed("document types and entities are not accepted")


def decode_call(body: bytes) -> tuple[str, list[Any]]:
    """Return the verb's name and its arguments. Raises Malformed."""
    decoder = Decoder()
    decoder.feed(body, final=True)
    return decoder.call()


def decode_reply(body: bytes) -> Any:
    """Return the value of a reply. Raises Fault when it is one, and Malformed."""
    decoder = Decoder()
    decoder.feed(body, final=True)
    return decoder.reply()
