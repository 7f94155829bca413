"""Runs one target for a time, in a process of its own: `python -m fuzz.engine TARGET SECONDS FOLDER`.

With atheris installed libFuzzer does it, guided by what the octets reach in smtpgate; else hypothesis, by chance.
What libFuzzer finds worth keeping stays in FOLDER, so that the next run goes on from there. An input that breaks the
invariant is written to FOLDER/crash-*, and the exit status is not 0.
"""

from __future__ import annotations

import hashlib
import importlib.util
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

EXAMPLES: Final = 1000  # a round of hypothesis: about a second
LONGEST_INPUT: Final = 4096  # octets; every bound of the parsers but AUTH's is below it
SLOWEST_INPUT: Final = 10  # seconds for one input; libFuzzer takes more for a hang


def guided() -> bool:
    """Whether libFuzzer can be had here: pip install atheris."""
    return importlib.util.find_spec("atheris") is not None


def run_guided(name: str, seconds: int, folder: Path) -> None:
    """Does not return."""
    import atheris

    with atheris.instrument_imports(include=["smtpgate"]):
        from fuzz import targets
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={SLOWEST_INPUT}",
        f"-max_len={LONGEST_INPUT}",
        f"-artifact_prefix={folder}/",
        "-verbosity=0",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], str(folder), str(targets.CORPUS / name), *options], targets.TARGETS[name])
    atheris.Fuzz()


def run_by_chance(name: str, seconds: int, folder: Path) -> int:
    """The exit status."""
    from fuzz.mutations import mutated
    from fuzz.targets import TARGETS

    deadline = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < deadline:
        rounds += 1
        broken = search(TARGETS[name], mutated(name) | st.binary(max_size=300), random.getrandbits(64))
        if broken is not None:
            path = folder / f"crash-{hashlib.sha256(broken).hexdigest()[:16]}"
            path.write_bytes(broken)
            print(f"{name}: the invariant breaks on {path}: {broken!r}")
            return 1
    print(f"{name}: {rounds * EXAMPLES} inputs, nothing found")
    return 0


def search(target: Callable[[bytes], None], inputs: st.SearchStrategy[bytes], number: int) -> bytes | None:
    """A round of hypothesis: the smallest input that it finds to break the invariant, None if there is none.

    number: makes the round's chances.
    """
    last = b""

    @seed(number)
    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def examine(data: bytes) -> None:
        nonlocal last
        last = data
        target(data)

    try:
        examine()
    except Exception:  # of whatever kind: that is what is looked for
        traceback.print_exc()
        return last  # hypothesis ends with the smallest one
    return None


def main() -> int:
    name, seconds, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    if guided():
        run_guided(name, seconds, folder)
    return run_by_chance(name, seconds, folder)


if __name__ == "__main__":
    sys.exit(main())
