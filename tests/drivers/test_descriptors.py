"""What RLIMIT_NOFILE allows, and the descriptor that is kept for when it is used up. In processes of their own."""

import json
import subprocess
import sys

import pytest

LIMIT = """
import json, resource, sys
from smtpgate.drivers.descriptors import sessions_for
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(json.dumps([sessions_for(wanted), *resource.getrlimit(resource.RLIMIT_NOFILE)]))
"""

LEND = """
from gevent import monkey
monkey.patch_all()  # as a worker is: gevent's close() waits for its loop
import errno, os, resource
import gevent
from smtpgate.drivers.descriptors import ReserveDescriptor, close_now
gevent.sleep(0)
reserve = ReserveDescriptor()
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
taken = []
def take():
    return os.open("/dev/null", os.O_RDONLY)
try:
    while True:
        taken.append(take())
except OSError as error:
    assert error.errno == errno.EMFILE
def use():
    close_now(take())
    return "used"
for _ in range(3):
    assert reserve.lend(use) == "used"
# Somebody takes it meanwhile: nothing is lost, and as soon as one is free there is a reserve again.
assert reserve.lend(lambda: taken.append(take())) is None
try:
    reserve.lend(take)
    raise SystemExit("there was none to lend")
except OSError as error:
    assert error.errno == errno.EMFILE
close_now(taken.pop())
assert reserve.lend(use) == "used"
for one in taken:
    close_now(one)
reserve.close()
print("well")
"""


def run(code, *arguments):
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "sessions", "soft_after"),
    [
        (128, 128, 10_000, 16, 128),  # (128 - 64) / 4
        (1024, 4096, 10_000, 1008, 4096),
        (1024, 4096, 500, 500, 64 + 4 * 500),  # no more than is needed
        (1024, 4096, 100, 100, 1024),  # nor less than there was
        (64, 64, 10, 1, 64),
        (40, 40, 10, 1, 40),
    ],
)
def test_how_many_sessions_there_may_be(soft, hard, wanted, sessions, soft_after):
    assert json.loads(run(LIMIT, soft, hard, wanted)) == [sessions, soft_after, hard]


def test_the_reserve_is_lent_and_taken_back():
    assert run(LEND) == "well\n"
