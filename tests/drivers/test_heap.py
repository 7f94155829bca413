"""drivers/heap.py: pieces of memory are used again, and not made anew by the kernel."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Page faults of a process that reads a text a piece at a time, two of them at once as two sessions do.
READER = """
import os, resource, sys
from smtpgate.drivers import heap
from smtpgate.session.streams import TEXT_READ_SIZE
if sys.argv[1] == "kept":
    heap.keep_pieces()
zero = os.open("/dev/zero", os.O_RDONLY)
before = None
for turn in range(110):
    if turn == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [os.read(zero, TEXT_READ_SIZE).decode("latin-1") for _ in range(2)]
    del pieces
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc has other ways")
def test_a_long_text_is_read_into_memory_that_is_there() -> None:
    assert _faults("as it is") > 1000  # or there is nothing to keep
    assert _faults("kept") < 100


def _faults(how: str) -> int:
    environment = {"PYTHONPATH": ".", "PATH": "/usr/bin:/bin"}
    argv = [sys.executable, "-c", READER, how]
    return int(subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout)
