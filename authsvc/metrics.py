"""The auth service's metrics: what they are.

How they are kept and told is the proxy's too (`smtpgate.drivers.metrics…`), and so are the families of limits,
policies and processes. Labels' values are words of this service, never a client's.
"""

from __future__ import annotations

import atexit
import os
from typing import Final

from authsvc.answer.contract import AuthRequest
from authsvc.answer.service import Outcome
from authsvc.proof.proofs import METHODS
from smtpgate.drivers.metricsfolder import MetricsFolder
from smtpgate.drivers.metricsvalues import Families

PROGRAM: Final = "authsvc"
# Seconds. A remembered login takes one of the first, a hashed one 0.15, a throttled one its wait.
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
OTHER: Final = "other"


class AuthMetrics:
    """What the questions add."""

    def __init__(self, families: Families) -> None:
        self._requests = families.counter(
            "smtpgate_authsvc_requests_total", "Questions by what came of them.", "protocol", "method", "result"
        )
        self._unread = families.counter(
            "smtpgate_authsvc_unread_requests_total", "Requests that were no question, or came without the secret."
        )
        self._seconds = families.histogram(
            "smtpgate_authsvc_request_duration_seconds", "Of an answer, with its waits.", SECONDS, "method"
        )

    def answered(self, asked: AuthRequest, outcome: Outcome, seconds: float) -> None:
        methods = METHODS.get(asked.protocol)
        protocol = asked.protocol if methods is not None else OTHER
        method = (
            asked.method if methods is not None and (asked.method in methods or asked.method == "none") else OTHER
        )
        self._requests.add((protocol, method, outcome.result))
        self._seconds.observe((method,), seconds)

    def unread(self) -> None:
        self._unread.add()


def make_folder() -> MetricsFolder:
    """For the first process, before it forks. Raises OSError."""
    folder = MetricsFolder(PROGRAM, os.environ)
    atexit.register(folder.close)
    return folder
