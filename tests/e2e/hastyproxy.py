"""proxy.py in a hurry: the program of tests that would else wait three minutes for a text, or 30 s for a handshake.

SMTPGATE_TEST_GRACE: seconds of session/intake.py's DATA_GRACE; SMTPGATE_TEST_HANDSHAKE: of TLS_HANDSHAKE_TIMEOUT.
Nothing else is changed.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402 - nothing may be imported before the patch
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

sys.path[0] = str(Path(__file__).resolve().parents[2])


def run() -> None:
    from smtpgate.drivers import listener
    from smtpgate.main import main
    from smtpgate.session import flow, intake

    intake.DATA_GRACE = float(os.environ["SMTPGATE_TEST_GRACE"])  # type: ignore[misc]
    flow.TLS_HANDSHAKE_TIMEOUT = float(os.environ["SMTPGATE_TEST_HANDSHAKE"])  # type: ignore[misc]
    listener.TLS_HANDSHAKE_TIMEOUT = flow.TLS_HANDSHAKE_TIMEOUT  # type: ignore[misc]
    main()


if __name__ == "__main__":
    run()
