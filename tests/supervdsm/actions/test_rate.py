"""Rates as nft has them: which are in force, where it keeps what has lost its link, too; and none is greater than it can be."""

from __future__ import annotations

import subprocess
from pathlib import Path

from supervdsm.actions.rate import Chain, parse
from tests.drivers.network.namespace import inside, nics
from tests.drivers.network.stand import Direct

TOLD = """table netdev theirs {
	chain in_656d31_7 {
		type filter hook ingress device "em1" priority filter; policy accept;
	}
}
table netdev vdsmd {
	chain in_656d31_2a {
		type filter hook ingress device "em1" priority filter; policy accept;
	}
	chain out_656d32_7 {
		type filter hook egress priority filter; policy accept;
	}
	chain other {
	}
}
"""


def test_a_chain_without_its_link_limits_nothing() -> None:
    """Some kernels keep it when the link goes, and the next link of that name does not get it."""
    assert parse(TOLD) == [Chain("in_656d31_2a", "em1", 42, bound=True), Chain("out_656d32_7", "em2", 7, bound=False)]


def test_the_greatest_burst_is_one(tmp_path: Path) -> None:
    """The kernel has 32 bits for its bytes: one more, and it would be none."""

    def work() -> None:
        nics("em1")
        root = Direct(str(tmp_path / "private"))
        root.call("rate.set", link="em1", handle=7, limits={"in": {"average": 2**22, "burst": 2**22}})
        told = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
        assert "burst 4194303 kbytes drop" in told
        assert root.call("rate.list") == {"em1": 7}

    inside(work)
