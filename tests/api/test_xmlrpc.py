"""XML-RPC: ours and the standard library's understand each other, and what is wrong is refused with its place."""

from __future__ import annotations

import xmlrpc.client
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsmd.api.xmlrpc import (
    DateTime,
    Decoder,
    Fault,
    Malformed,
    Unsendable,
    decode_call,
    decode_reply,
    encode_call,
    encode_fault,
    encode_reply,
)

SETTLED = settings(deadline=None, derandomize=True, database=None, max_examples=150)

TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="\ufffe\uffff")
    | st.sampled_from("\t\n\r&<>]")
)
SCALARS = (
    st.booleans()
    | st.integers(-(2**31), 2**31 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.binary()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)


def plain(value: Any) -> Any:
    """Return a value as the standard library decodes it, with its wrappers taken off."""
    if isinstance(value, xmlrpc.client.Binary):
        return value.data
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return value


def call_with(value: str) -> bytes:
    return f"<methodCall><methodName>x</methodName><params><param>{value}</param></params></methodCall>".encode()


@SETTLED
@given(st.lists(VALUES, max_size=3))
def test_calls_come_back_as_they_were_sent(args: list[Any]) -> None:
    assert decode_call(encode_call("a.verb", args)) == ("a.verb", args)


@SETTLED
@given(VALUES)
def test_the_standard_library_reads_what_we_write(value: Any) -> None:
    (read,), _ = xmlrpc.client.loads(encode_reply(value))
    assert plain(read) == value


@SETTLED
@given(st.lists(VALUES.filter(lambda value: "\r" not in repr(value)), max_size=3))
def test_we_read_what_the_standard_library_writes(args: list[Any]) -> None:
    body = xmlrpc.client.dumps(tuple(args), "verb").encode()
    name, read = decode_call(body)
    (expected, _) = xmlrpc.client.loads(body)
    assert (name, read) == ("verb", [plain(value) for value in expected])


@SETTLED
@given(st.lists(VALUES, max_size=2))
def test_a_byte_at_a_time_gives_the_same(args: list[Any]) -> None:
    decoder = Decoder()
    for byte in encode_call("verb", args):
        decoder.feed(bytes([byte]))
    assert decoder.call() == ("verb", args)


@SETTLED
@given(st.lists(VALUES, max_size=2), st.data())
def test_a_truncated_document_is_refused(args: list[Any], data: st.DataObject) -> None:
    body = encode_call("verb", args)
    length = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(Malformed):
        decode_call(body[:length])


@SETTLED
@given(st.lists(VALUES, max_size=2), st.data())
def test_a_mutated_document_is_read_or_refused_and_nothing_else(args: list[Any], data: st.DataObject) -> None:
    body = bytearray(encode_call("verb", args))
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] = data.draw(st.integers(0, 255))
    try:
        name, read = decode_call(bytes(body))
    except Malformed:
        return
    assert isinstance(name, str)
    assert isinstance(read, list)


@SETTLED
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        decode_call(body)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("<value>plain</value>", "plain"),
        ("<value/>", ""),
        ("<value> kept </value>", " kept "),
        ("<value>\n <int>1</int>\n</value>", 1),
        ("<value><string/></value>", ""),
        ("<value><string>a&lt;b&#65;</string></value>", "a<bA"),
        ("<value><![CDATA[<&>]]></value>", "<&>"),
        ("<value><int>-2147483648</int></value>", -(2**31)),
        ("<value><i4> +7 </i4></value>", 7),
        ("<value><boolean>1</boolean></value>", True),
        ("<value><boolean>0</boolean></value>", False),
        ("<value><double>-1.5e3</double></value>", -1500.0),
        ("<value><double>.5</double></value>", 0.5),
        ("<value><base64>\nYWJj\nZA==\n</base64></value>", b"abcd"),
        ("<value><base64/></value>", b""),
        ("<value><dateTime.iso8601>20160229T23:59:60</dateTime.iso8601></value>", DateTime("20160229T23:59:60")),
        ("<value><array><data/></array></value>", []),
        ("<value><struct/></value>", {}),
        ("<value><struct><member><name/><value/></member></struct></value>", {"": ""}),
        ("<value><array><data> <value>a<!-- no -->b</value> </data></array></value>", ["ab"]),
    ],
)
def test_values(value: str, expected: Any) -> None:
    _, (read,) = decode_call(call_with(value))
    assert (type(read), read) == (type(expected), expected)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("<value><int></int></value>", "not an integer"),
        ("<value><int>1_000</int></value>", "not an integer"),
        ("<value><int>1.0</int></value>", "not an integer"),
        ("<value><int>\u0661</int></value>", "not an integer"),
        ("<value><int>2147483648</int></value>", "32 bits"),
        ("<value><int>-2147483649</int></value>", "32 bits"),
        ("<value><i8>1</i8></value>", "<i8> has no place"),
        ("<value><nil/></value>", "<nil> has no place"),
        ("<value><boolean>2</boolean></value>", "boolean"),
        ("<value><boolean>true</boolean></value>", "boolean"),
        ("<value><double>nan</double></value>", "not a double"),
        ("<value><double>1e999</double></value>", "not a double"),
        (f"<value><double>{'1' * 500}</double></value>", "not a double"),
        ("<value><base64>a</base64></value>", "base64"),
        ("<value><base64>YW=Jj</base64></value>", "base64"),
        ("<value><base64>\u00e4</base64></value>", "base64"),
        ("<value><dateTime.iso8601>2016-02-29</dateTime.iso8601></value>", "dateTime"),
        ("<value><dateTime.iso8601>20161301T00:00:00</dateTime.iso8601></value>", "dateTime"),
        ("<value>a<int>1</int></value>", "text"),
        ("<value><int>1</int>a</value>", "text"),
        ("<value><int>1</int><int>2</int></value>", "<int> has no place"),
        ("<value><array/></value>", "not complete"),
        ("<value><array><data/><data/></array></value>", "<data> has no place"),
        ("<value><struct><member><name>a</name></member></struct></value>", "not complete"),
        ("<value><struct><member><value/></member></struct></value>", "<value> has no place"),
        ("<value><struct><member><name>a</name><name>b</name></member></struct></value>", "<name> has no place"),
        (
            "<value><struct>" + "<member><name>a</name><value/></member>" * 2 + "</struct></value>",
            "'a' comes twice",
        ),
        ("<value><bogus/></value>", "<bogus> has no place"),
        ("<value/><value/>", "<value> has no place"),
        ("", "not complete"),
        ("text", "text has no place"),
        ("<value><int>1</string></value>", "mismatched"),
        ("<value>&unknown;</value>", "undefined entity"),
        ("<value>\x00</value>", "invalid token"),
    ],
)
def test_refused_values(value: str, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        decode_call(call_with(value))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no element"),
        (b"hello", "syntax error"),
        (b"<html></html>", "<html> has no place"),
        (b"<methodCall/>", "not complete"),
        (b"<methodCall><params/></methodCall>", "<params> has no place"),
        (b"<methodCall><methodName>a</methodName></methodCall><x/>", "junk"),
        (b"<methodResponse><params/></methodResponse>", "not a methodCall"),
        (b"<?xml version='1.0' encoding='no-such'?><methodCall/>", "encoding"),
        (b"<methodCall><methodName>\xff\xfe</methodName></methodCall>", "invalid token"),
        (b"<methodCall><methodName>\xed\xa0\x80</methodName></methodCall>", "invalid token"),
        (b"<!DOCTYPE methodCall><methodCall/>", "document types"),
        (b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><methodCall/>', "document types"),
        (b'<!DOCTYPE a SYSTEM "http://127.0.0.1/"><methodCall/>', "document types"),
    ],
)
def test_refused_documents(body: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        decode_call(body)


def test_an_entity_bomb_is_refused_before_it_goes_off() -> None:
    levels = "".join(f'<!ENTITY b{n} "{f"&b{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE a [<!ENTITY b0 "boom">{levels}]>'
    with pytest.raises(Malformed, match="document types"):
        decode_call(bomb.encode() + call_with("<value>&b11;</value>"))


def test_other_encodings_are_understood() -> None:
    text = "<?xml version='1.0' encoding='{}'?>" + call_with("<value>\u00e4</value>").decode()
    for encoding in ("iso-8859-1", "utf-16", "cp1252"):
        assert decode_call(text.format(encoding).encode(encoding)) == ("x", ["\u00e4"])


@pytest.mark.parametrize("depth", [64, 65])
def test_depth(depth: int) -> None:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    body = call_with("<value><array><data>" * depth + "<value/>" + "</data></array></value>" * depth)
    if depth == 64:
        assert decode_call(encode_call("x", [value])) == ("x", [value])
        assert decode_call(body)
        return
    with pytest.raises(Malformed, match="nested deeper"):
        decode_call(body)
    with pytest.raises(Unsendable, match="nested deeper"):
        encode_reply(value)


def test_the_place_of_an_error_is_told() -> None:
    with pytest.raises(Malformed) as caught:
        decode_call(b"<methodCall>\n<methodName>a</methodName>\n  <bogus/>\n</methodCall>")
    assert caught.value.line == 3
    assert str(caught.value).startswith("line 3, column ")


def test_what_is_wrong_stays_wrong() -> None:
    decoder = Decoder()
    decoder.feed(b"<methodCall><oops/>")
    decoder.feed(b"<methodName>a</methodName></methodCall>")
    for _ in range(2):
        with pytest.raises(Malformed, match="oops"):
            decoder.call()


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (None, "reply: nothing"),
        ({"a": [1, None]}, r"reply.a\[1\]: nothing"),
        ({"a": {"b": 2**31}}, "reply.a.b: 2147483648 does not fit"),
        ({"a": -(2**31) - 1}, "does not fit"),
        ({1: "a"}, "name of a member"),
        ({"a": {1, 2}}, "reply.a: set cannot be sent"),
        ([float("nan")], r"reply\[0\]: nan"),
        ([float("-inf")], "inf"),
        ((object(),), "object cannot"),
    ],
)
def test_what_cannot_be_sent(value: Any, where: str) -> None:
    with pytest.raises(Unsendable, match=where):
        encode_reply(value)


def test_an_argument_that_cannot_be_sent_is_named() -> None:
    with pytest.raises(Unsendable, match=r"argument 2\[0\]"):
        encode_call("x", [1, [None]])


def test_a_cycle_cannot_be_sent() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(Unsendable, match="nested deeper"):
        encode_reply(cycle)


def test_what_xml_cannot_hold_is_replaced() -> None:
    assert decode_reply(encode_reply("a\x00\x1b\ud800\ufffeb\r\n")) == "a\ufffd\ufffd\ufffd\ufffdb\r\n"
    assert decode_reply(encode_reply({"\x07": "]]>"})) == {"\ufffd": "]]>"}


def test_subclasses_are_sent_as_what_they_are() -> None:
    class Name(str):
        pass

    class Number(int):
        pass

    assert decode_reply(encode_reply((Name("a"), Number(3), True))) == ["a", 3, True]


def test_faults_both_ways() -> None:
    with pytest.raises(xmlrpc.client.Fault) as theirs:
        xmlrpc.client.loads(encode_fault(7, "so & so"))
    assert (theirs.value.faultCode, theirs.value.faultString) == (7, "so & so")
    body = xmlrpc.client.dumps(xmlrpc.client.Fault(9, "why"), methodresponse=True).encode()
    with pytest.raises(Fault) as ours:
        decode_reply(body)
    assert (ours.value.code, ours.value.text) == (9, "why")


@pytest.mark.parametrize(
    "body",
    [
        b"<methodResponse><fault><value><int>1</int></value></fault></methodResponse>",
        b"<methodResponse><params></params></methodResponse>",
        b"<methodResponse/>",
        call_with("<value/>"),
    ],
)
def test_replies_that_are_none(body: bytes) -> None:
    with pytest.raises(Malformed):
        decode_reply(body)
