"""Acts: what the helper can be asked to do, in the words of what there is to be. Pure."""

from __future__ import annotations

from typing import Any

from drivers.network import rates
from drivers.network.kernel import FOR_EVER, MAIN, Address, Link, Route, Rule
from drivers.network.model import Act, Qos
from drivers.network.shares import number, told
from drivers.network.ways import table


def act(action: str, **arguments: Any) -> Act:
    return Act(action=action, arguments=arguments)


def client(link: str, default_route: bool) -> str:
    return f"{link} default" if default_route else link


def client6(link: str) -> str:
    return f"{link} 6"


def starting(link: str, default_route: bool, **how: bool) -> Act:
    return act("dhcp.start", link=link, default_route=default_route, table=table(link), **how)


def advertising(name: str, link: Link) -> Act:
    only_routes = {"routes": True} if link.advertised6 and not link.autoconf6 else {}
    return act("link.autoconf", link=name, on=link.autoconf6, **only_routes)


def limiting(link: str, limits: rates.Told) -> Act:
    if not limits:
        return act("rate.clear", link=link)
    return act("rate.set", link=link, handle=rates.number(limits), limits=limits)


def ruling(rule: Rule) -> dict[str, Any]:
    given = {"source": rule.source, "destination": rule.destination, "link": rule.link}
    return {"table": rule.table} | {name: value for name, value in given.items() if value}


def adding(link: str, address: str, known: Address) -> Act:
    details: dict[str, Any] = {"broadcast": known.broadcast} if known.broadcast else {}
    if known.valid != FOR_EVER:
        details |= {"preferred": known.preferred, "valid": known.valid}
    return act("address.add", link=link, address=address, **details)


def sharing(link: str, shares: dict[str, Qos]) -> Act:
    if not shares:
        return act("qos.clear", link=link)
    return act("qos.set", link=link, handle=number(shares), shares=told(shares))


def routing(route: Route) -> Act:
    return act("route.add", **way(route), **({"scope": route.scope} if route.scope else {}))


def restoring(route: Route) -> Act:
    return act("route.add", **way(route), source=route.source, scope=route.scope, protocol=route.protocol)


def way(route: Route) -> dict[str, Any]:
    given: dict[str, Any] = {"destination": route.destination, "link": route.link, "gateway": route.gateway}
    given |= {"table": route.table} if route.table != MAIN else {}
    return given | ({"metric": route.metric} if route.metric else {})


def making(link: Link, *, with_mac: bool = False) -> Act:
    if link.kind == "vlan":
        return act("vlan.create", name=link.name, link=link.below, tag=link.tag)
    if link.kind == "bond":
        return act("bond.create", name=link.name, options=dict(link.options))
    mac = {"mac": link.mac} if with_mac and link.mac else {}
    return act("bridge.create", name=link.name, stp=link.stp, **mac)
