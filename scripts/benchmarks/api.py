"""Calls per second and latency of a trivial verb, one and eight clients, against the standard library's threaded server."""

from __future__ import annotations

import argparse
import http.server
import socketserver
import subprocess
import sys
import time
import xmlrpc.server
from typing import Any

from scripts.benchmarks.client import Client, percentile, request
from scripts.benchmarks.lab import ROOT, Lab, say


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, ours and theirs in turn (default: 3)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {}
    with Lab(uri="test:///default") as lab:
        command = [sys.executable, "-m", "scripts.benchmarks.api", "serve"]
        theirs = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            assert theirs.stdout is not None
            ports = {"vdsmd": lab.port, "stdlib": int(theirs.stdout.readline())}
            for clients in (1, 8):
                result[str(clients)] = _compare(ports, clients, options)
        finally:
            theirs.terminate()
            theirs.wait()
    return result


def _compare(ports: dict[str, int], clients: int, options: argparse.Namespace) -> dict[str, Any]:
    rates: dict[str, list[float]] = {name: [] for name in ports}
    latencies: dict[str, list[float]] = {name: [] for name in ports}
    for _ in range(options.rounds):
        for name, port in ports.items():
            rate, took = _hammer(port, clients, options.seconds)
            say(f"  {name}, {clients} clients: {rate:.0f} calls a second")
            rates[name].append(rate)
            latencies[name] += took
    best = {name: sorted(values)[len(values) // 2] for name, values in rates.items()}
    told: dict[str, Any] = {f"{name}_per_second": round(rate) for name, rate in best.items()}
    told["ratio"] = round(best["vdsmd"] / best["stdlib"], 2)
    for share in (0.5, 0.99):
        told[f"p{share * 100:.0f}_ms"] = round(percentile(latencies["vdsmd"], share) * 1000, 3)
    return told


def _hammer(port: int, clients: int, seconds: float) -> tuple[float, list[float]]:
    """Return calls per second of all clients together, and each call's seconds (a sample)."""
    command = [sys.executable, "-m", "scripts.benchmarks.api", "hammer", str(port), str(seconds)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(clients)]
    rate, latencies = 0.0, []
    for process in running:
        said, _ = process.communicate()
        first, *sample = said.split()
        rate += float(first)
        latencies += [float(value) for value in sample]
    return rate, latencies


def hammer(port: int, seconds: float) -> None:
    """Be one client: call `ping` on one connection as often as goes."""
    client, sent = Client(port, keep_alive=True), request("ping", keep_alive=True)
    client.exchange(sent)
    took: list[float] = []
    begun = last = time.perf_counter()
    while last - begun < seconds:
        client.exchange(sent)
        now = time.perf_counter()
        took.append(now - last)
        last = now
    print(len(took) / (last - begun), *took[:: max(1, len(took) // 2000)])


class Handler(xmlrpc.server.SimpleXMLRPCRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1


class Server(socketserver.ThreadingMixIn, xmlrpc.server.SimpleXMLRPCServer):
    daemon_threads = True


def serve() -> None:
    """Be the standard library's server, with the same verb and the same answer."""
    assert issubclass(Handler, http.server.BaseHTTPRequestHandler)
    server = Server(("127.0.0.1", 0), Handler, logRequests=False)
    server.register_function(lambda: {"status": {"code": 0, "message": "Done"}}, "ping")
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        hammer(int(sys.argv[2]), float(sys.argv[3]))
