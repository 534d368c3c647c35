"""A server in a process of its own, which replaces itself by exec when its verb `again` is called.

    python -m tests.api.child FD GENERATION DESCRIPTORS

It serves on the listening socket FD, with at most so many descriptors (0: as many as it may). Its other verbs: `ping`
answers the generation and the number of connections, `slow` does so after a moment.
"""

from __future__ import annotations

import fcntl
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable

from vdsmd.api.encoding import encode_reply
from vdsmd.api.http import Limits, Request
from vdsmd.api.rim import Rim
from vdsmd.api.xmlrpc import Decoder
from vdsmd.loop import Loop


class Child:
    def __init__(self, fd: int, generation: int, descriptors: int) -> None:
        if descriptors:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
        fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        self.fd = fd
        self.generation = generation
        self.descriptors = descriptors
        self.loop = Loop()
        self.rim = Rim(self.loop, self.serve, limits=Limits(grace=30))
        self.listener = socket.socket(fileno=fd)
        self.rim.listen(self.listener)

    def serve(self, asked: Request, reply: Callable[[bytes], None]) -> None:
        assert isinstance(asked.body, Decoder)
        name, _ = asked.body.call()
        if name == "again":
            self.rim.wind_down()
            self.loop.call_later(0.01, lambda: self.rim.drain(self.again))
        answer = encode_reply([self.generation, self.rim.connections])
        if name == "slow":
            self.loop.call_later(0.02, lambda: reply(answer))
        else:
            reply(answer)

    def again(self) -> None:
        os.set_inheritable(self.fd, True)
        numbers = [str(number) for number in (self.fd, self.generation + 1, self.descriptors)]
        os.execv(sys.executable, [sys.executable, "-m", "tests.api.child", *numbers])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    Child(*map(int, sys.argv[1:])).loop.run()
