"""A name server on loopback that answers from a table, and fails as it is told.

A thread with sockets of the standard library: it answers also whoever blocks the whole process while it waits.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

# (name, type) -> records, or a response code, or None for silence.
Table = dict[tuple[str, str], "list[str] | dns.rcode.Rcode | None"]


class NameServer:
    """`table` may be changed while it serves; what it does not hold is NXDOMAIN. `asked` counts the questions."""

    def __init__(self, table: Table, ttl: int = 60) -> None:
        self.table = table
        self.ttl = ttl
        self.asked: Counter[tuple[str, str]] = Counter()
        self.delay = 0.0
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def serve(self) -> None:
        """Until an empty datagram comes."""
        while True:
            data, address = self._socket.recvfrom(4096)
            if not data:
                return
            answer = self._answer(data)
            if answer is not None:
                self._socket.sendto(answer, address)

    def stop(self, serving: threading.Thread) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        serving.join()
        self._socket.close()

    def _answer(self, data: bytes) -> bytes | None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        key = (question.name.to_text(omit_final_dot=True).lower(), question.rdtype.name)
        self.asked[key] += 1
        time.sleep(self.delay)
        found = self.table.get(key, dns.rcode.NXDOMAIN)
        if found is None:
            return None
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if isinstance(found, list):
            if found:
                response.answer.append(
                    dns.rrset.from_text(question.name, self.ttl, question.rdclass, question.rdtype, *found)
                )
        else:
            response.set_rcode(found)
        return response.to_wire()


@contextmanager
def name_server(table: Table, ttl: int = 60) -> Iterator[NameServer]:
    server = NameServer(table, ttl)
    serving = threading.Thread(target=server.serve)
    serving.start()
    try:
        yield server
    finally:
        server.stop(serving)
