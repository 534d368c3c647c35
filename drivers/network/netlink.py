"""Netlink: asks the kernel what networks it has. Needs no rights, changes nothing.

It promises a whole answer: a dump that the kernel says was disturbed by a change is made again. The layouts are those of
rtnetlink(7) and of the kernel's headers if_link.h, if_addr.h and rtnetlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

from drivers.errors import Failed
from drivers.network.kernel import BY_DHCP, FOR_EVER, OUR_TABLES, Address, Kernel, Link, Route, Rule
from drivers.network.shares import OURS as OUR_SHAPERS

LINK, ADDRESS, ROUTE, RULE, QDISC = 18, 22, 26, 34, 38
"""What is asked for; answers come with a number that is less by 2."""
ERROR, DONE = 2, 3
DUMP, INTERRUPTED = 0x300, 0x10
HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
IFF_UP, IFF_LOOPBACK, IFF_LOWER_UP = 0x1, 0x8, 0x10000
LINK_SCOPE = 253
BY_KERNEL, BY_ADVERTISEMENT = 2, 9
UNICAST = 1
CLONED = 0x200
ROOT = 0xFFFFFFFF
"""TC_H_ROOT: the parent of a link's outermost queueing discipline."""
BOND_MODES = ("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb")
BOND_NUMBERS = {
    3: ("miimon", "I"), 4: ("updelay", "I"), 5: ("downdelay", "I"), 6: ("use_carrier", "B"), 7: ("arp_interval", "I"),
    9: ("arp_validate", "I"), 10: ("arp_all_targets", "I"), 12: ("primary_reselect", "B"), 13: ("fail_over_mac", "B"),
    14: ("xmit_hash_policy", "B"), 15: ("resend_igmp", "I"), 16: ("num_grat_arp", "B"), 17: ("all_slaves_active", "B"),
    18: ("min_links", "I"), 19: ("lp_interval", "I"), 20: ("packets_per_slave", "I"), 21: ("lacp_rate", "B"),
    22: ("ad_select", "B"), 27: ("tlb_dynamic_lb", "B"),
}  # fmt: skip
"""Attributes of a bond that are options, with their forms."""
BOND_LINKS = {2: "active_slave", 11: "primary"}
"""Those that are numbers of links."""
BOND_TARGETS = 8
WORDS = {
    "xmit_hash_policy": ("layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"),
    "lacp_rate": ("slow", "fast"),
    "fail_over_mac": ("none", "active", "follow"),
    "ad_select": ("stable", "bandwidth", "count"),
    "arp_validate": ("none", "active", "backup", "all", "filter", "filter_active", "filter_backup"),
    "arp_all_targets": ("any", "all"),
    "primary_reselect": ("always", "better", "failure"),
}
"""Options of a bond whose numbers have names."""
NOTICED = (1, 4, 5, 7, 8, 9, 11, 19)
"""Groups of notifications: of links and schedulers, and of both families' addresses, routes and rules (RTNLGRP_... of
rtnetlink.h)."""
ATTEMPTS = 20

Attributes = dict[int, bytes]


def look() -> Kernel:
    """Return what the kernel of our network namespace has. Takes about a millisecond per hundred links."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        links = {link.index: link for link in map(_link, _dump(sock, LINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0)))}
        _name(links)
        for body in _dump(sock, ADDRESS, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
            _add_address(links, body)
        for body in _dump(sock, QDISC, struct.pack("=BxxxiIII", 0, 0, 0, 0, 0)):
            _add_shaper(links, body)
        bodies = _dump(sock, ROUTE, struct.pack("=BBBBBBBBI", *[0] * 9))
        routes = [route for body in bodies if (route := _route(links, body)) is not None]
        bodies = _dump(sock, RULE, struct.pack("=BBBBBBBBI", *[0] * 9))
        rules = [rule for body in bodies if (rule := _rule(body)) is not None]
    return Kernel(links={link.name: link for link in links.values()}, routes=sorted(routes), rules=sorted(rules))


def notices() -> socket.socket:
    """Return a socket that can be read when links, addresses, routes or rules change. Reads do not block."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    sock = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    sock.bind((0, sum(1 << (group - 1) for group in NOTICED)))
    return sock


def route_to(address: str) -> str:
    """Return the gateway through which an address is reached, '' when it is on a link of ours or nowhere. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    head = struct.pack("=BBBBBBBBI", family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0)
    body = head + ATTRIBUTE.pack(4 + len(packed), 1) + packed
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.send(HEADER.pack(HEADER.size + len(body), ROUTE, 1, 1, 0) + body)
        for kind, _, answer in _messages(sock.recv(65536)):
            if kind == ERROR:
                number = -struct.unpack_from("=i", answer)[0]
                raise OSError(number, os.strerror(number))
            return _text(family, _attributes(answer, 12).get(5, b""))
    return ""


def _dump(sock: socket.socket, kind: int, head: bytes) -> list[bytes]:
    """Return the bodies of the answers. Raises Failed."""
    for _ in range(ATTEMPTS):
        sock.send(HEADER.pack(HEADER.size + len(head), kind, 1 | DUMP, kind, 0) + head)
        bodies, whole = _receive(sock)
        if whole:
            return bodies
    raise Failed(action="reading the networks", reason="they change faster than the kernel can tell")


def _receive(sock: socket.socket) -> tuple[list[bytes], bool]:
    bodies: list[bytes] = []
    whole = True
    while True:
        for kind, flags, body in _messages(sock.recv(1 << 17)):
            whole = whole and not flags & INTERRUPTED
            if kind == DONE:
                return bodies, whole
            if kind == ERROR:
                number = -struct.unpack_from("=i", body)[0]
                raise Failed(action="reading the networks", reason=os.strerror(number))
            bodies.append(body)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at < len(data):
        length, kind, flags, _, _ = HEADER.unpack_from(data, at)
        yield kind, flags, data[at + HEADER.size : at + length]
        at += (length + 3) & ~3


def _attributes(data: bytes, at: int = 0) -> Attributes:
    found: Attributes = {}
    while at + 4 <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _number(value: bytes | None, form: str = "I") -> int:
    return int(struct.unpack_from(f"={form}", value)[0]) if value else 0


def _string(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode("utf-8", "replace")


def _text(family: int, packed: bytes) -> str:
    return socket.inet_ntop(family, packed) if packed else ""


def _link(body: bytes) -> Link:
    index, flags = struct.unpack_from("=iI", body, 4)
    told = _attributes(body, 16)
    info = _attributes(told.get(18, b""))
    kind = _string(info.get(1))
    advertised6, autoconf6 = _advertised6(told.get(26, b""))
    link = Link(
        name=_string(told.get(3)),
        index=index,
        kind=kind,
        mac=told.get(1, b"").hex(":"),
        permanent_mac=told.get(54, b"").hex(":"),
        mtu=_number(told.get(4)),
        up=bool(flags & IFF_UP),
        carrier=bool(flags & IFF_LOWER_UP),
        loopback=bool(flags & IFF_LOOPBACK),
        group=_number(told.get(27)),
        master=str(_number(told.get(10)) or ""),
        below=str(_number(told.get(5)) or ""),
        advertised6=advertised6,
        autoconf6=autoconf6,
    )
    _add_details(link, _attributes(info.get(2, b"")))
    return link


def _add_details(link: Link, data: Attributes) -> None:
    if link.kind == "vlan":
        link.tag = _number(data.get(1), "H")
    elif link.kind == "bridge":
        link.stp = bool(_number(data.get(5)))
    elif link.kind == "bond":
        link.options = _bond_options(data)


def _bond_options(data: Attributes) -> dict[str, str]:
    options = {"mode": BOND_MODES[min(_number(data.get(1), "B"), 6)]}
    for number, (name, form) in BOND_NUMBERS.items():
        if number in data:
            value, words = _number(data[number], form), WORDS.get(name, ())
            options[name] = words[value] if value < len(words) else str(value)
    targets = _attributes(data.get(BOND_TARGETS, b"")).values()
    options["arp_ip_target"] = ",".join(socket.inet_ntop(socket.AF_INET, target) for target in targets)
    return options | {name: str(_number(data.get(number)) or "") for number, name in BOND_LINKS.items()}


def _advertised6(af_spec: bytes) -> tuple[bool, bool]:
    """Whether router advertisements give the link routes, and addresses too: settings 3 (accept_ra) and 5 (autoconf) of its
    IPv6."""
    conf = _attributes(_attributes(af_spec).get(socket.AF_INET6, b"")).get(2, b"")
    routes = len(conf) >= 24 and _number(conf[12:16], "i") > 0
    return routes, routes and _number(conf[20:24], "i") > 0


def _name(links: dict[int, Link]) -> None:
    """Put names in the place of the indices of other links. One in another namespace has a number that is no name here."""
    names = {str(index): link.name for index, link in links.items()}
    for link in links.values():
        link.master = names.get(link.master, link.master)
        link.below = names.get(link.below, "") if link.kind == "vlan" else ""
        for option in link.options.keys() & set(BOND_LINKS.values()):
            link.options[option] = names.get(link.options[option], "")


def _add_address(links: dict[int, Link], body: bytes) -> None:
    family, length, _, scope, index = struct.unpack_from("=BBBBI", body)
    told = _attributes(body, 8)
    link = links.get(index)
    if link is None or family not in (socket.AF_INET, socket.AF_INET6):
        return
    text = f"{_text(family, told.get(2) or told.get(1, b''))}/{length}"
    if scope == LINK_SCOPE:
        if family == socket.AF_INET6:
            link.local6.append(text)
        return
    preferred, valid = struct.unpack_from("=II", told[6]) if 6 in told else (FOR_EVER, FOR_EVER)
    broadcast = _text(family, told.get(4, b"")) if family == socket.AF_INET else ""
    link.addresses[text] = Address(broadcast=broadcast, preferred=preferred, valid=valid)


def _add_shaper(links: dict[int, Link], body: bytes) -> None:
    _, index, handle, parent = struct.unpack_from("=BxxxiII", body)
    if parent == ROOT and handle >> 16 in OUR_SHAPERS and index in links:
        links[index].shaper = handle >> 16


def _route(links: dict[int, Link], body: bytes) -> Route | None:
    """Return the route, None when it is not one that somebody has set on one link."""
    family, length, _, _, table, protocol, scope, kind, flags = struct.unpack_from("=BBBBBBBBI", body)
    told = _attributes(body, 12)
    link = links.get(_number(told.get(4)))
    if link is None or kind != UNICAST or flags & CLONED or protocol in (BY_KERNEL, BY_ADVERTISEMENT):
        return None
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    destination = _text(family, told.get(1, b"")) or ("::" if family == socket.AF_INET6 else "0.0.0.0")
    return Route(
        destination=f"{destination}/{length}",
        gateway=_text(family, told.get(5, b"")),
        link=link.name,
        table=_number(told.get(15)) or table,
        metric=_number(told.get(6)),
        source=_text(family, told.get(7, b"")),
        scope=scope,
        protocol=protocol,
    )


def _rule(body: bytes) -> Rule | None:
    """Return the rule, None when it does not lead to a table of ours, or a DHCP client has set it."""
    family, to_length, from_length, _, table, _, _, _, _ = struct.unpack_from("=BBBBBBBBI", body)
    told = _attributes(body, 12)
    table = _number(told.get(15)) or table
    if family not in (socket.AF_INET, socket.AF_INET6) or table not in OUR_TABLES:
        return None
    if _number(told.get(21), "B") == BY_DHCP:
        return None
    source, destination = _text(family, told.get(2, b"")), _text(family, told.get(1, b""))
    return Rule(
        table=table,
        source=f"{source}/{from_length}" if source else "",
        destination=f"{destination}/{to_length}" if destination else "",
        link=_string(told.get(3)),
    )
