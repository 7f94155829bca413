"""A client that errs waits: from the soft limit on for the reply to each of its errors.

That is Postfix's smtpd_error_sleep_time. Owns how long, and what may end the wait. Refuses to know what an error is
(`smtp.errorlimit`), and when a client is let go for them.
"""

from __future__ import annotations

from smtpgate.clock import Deadline
from smtpgate.session.ports import Ports
from smtpgate.session.streams import READ_SIZE, Stream, StreamInterrupted, StreamTimeout
from smtpgate.smtp.server import ServerProtocol


class Slowing:
    """Of one session. soft_errors: the first error that costs time. error_delay: seconds for each; 0 is none.

    answered: errors that were waited for, or needed no wait.
    """

    def __init__(
        self, ports: Ports, stream: Stream, protocol: ServerProtocol, soft_errors: int, error_delay: float
    ) -> None:
        self._ports = ports
        self._stream = stream
        self._protocol = protocol
        self._free = soft_errors - 1
        self._delay = error_delay
        self.answered = 0

    def wait(self) -> None:
        """Before the replies to new errors are written. The client may leave meanwhile, and a drain ends the wait;
        what it says is read, so that both are noticed, but for no more than one read. Raises StreamLost.
        """
        count, clock = self._protocol.errors.count, self._ports.clock
        errors = count - max(self.answered, self._free)
        self.answered = count
        if errors <= 0 or self._delay <= 0.0:
            return
        wait = Deadline(clock, errors * self._delay)
        while not wait.expired:
            try:
                data = self._stream.read(wait, READ_SIZE)
            except StreamTimeout:
                return
            except StreamInterrupted:
                if self._ports.draining():
                    return
                continue  # stress makes nobody wait for less
            if not data:
                self._protocol.receive_eof()
                return
            self._protocol.receive_data(data)
            with self._stream.abort_on_close():
                clock.sleep(wait.remaining())
            return
