"""The process that fuzzes one target: `python -m scripts.benchmarks.fuzzer TARGET SECONDS DIRECTORY`.

It imports nothing of the product before the fuzzer is there to see how far each input comes in it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 8192
"""Bytes of one input."""


class Finder:
    """Calls the target, and keeps the shortest input for each exception and the place that it comes from."""

    def __init__(self, base: Path, target: Callable[[bytes], None]) -> None:
        self._base = base
        self._target = target
        self._shortest: dict[tuple[str, str], int] = {}
        self._numbers: dict[tuple[str, str], int] = {}

    def __call__(self, data: bytes) -> None:
        try:
            self._target(data)
        except Exception as error:
            # Whatever it is: what the target expects it has caught.
            self._keep(error, data)

    def _keep(self, error: Exception, data: bytes) -> None:
        found = type(error).__name__, _place(error)
        if len(data) >= self._shortest.get(found, LONGEST + 1):
            return
        self._shortest[found] = len(data)
        number = self._numbers.setdefault(found, len(self._numbers))
        told = {"error": f"{found[0]}: {error}"[:200], "place": found[1], "hex": data.hex()}
        (self._base / f"found-{number}.json").write_text(json.dumps(told))


def _place(error: Exception) -> str:
    """Return the innermost line of ours that the exception has come through."""
    place, trace = "", error.__traceback__
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and path != Path(__file__) and ".venv" not in path.parts:
            place = f"{path.relative_to(ROOT)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def main(name: str, seconds: str, base: Path) -> None:
    """Be the process that fuzzes."""
    import atheris

    with atheris.instrument_imports(
        include=["state", "vdsmd", "drivers", "configparser"], enable_loader_override=False
    ):
        from scripts.benchmarks import fuzztargets

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        broken = fuzztargets.break_value(data, Random(seed))
        return broken if broken and len(broken) <= longest else bytes(atheris.Mutate(data, longest))

    target = fuzztargets.TARGETS[name](base)
    (base / "corpus").mkdir()
    for number, seed in enumerate(target.seeds):
        (base / "corpus" / str(number)).write_bytes(seed)
    words = sorted({word for seed in target.seeds for word in re.findall(rb"[\w.]{3,40}", seed)})
    (base / "words").write_text("".join(f'"{word.decode()}"\n' for word in words if word.isascii()))
    options = {
        "max_total_time": seconds,
        "max_len": LONGEST,
        "timeout": 20,
        "rss_limit_mb": 1024,
        "dict": base / "words",
        "print_final_stats": 1,
    }
    arguments = [f"-{option}={value}" for option, value in options.items()]
    more = {"custom_mutator": mutate} if target.json else {}
    atheris.Setup([sys.argv[0], *arguments, str(base / "corpus")], Finder(base, target.once), **more)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
