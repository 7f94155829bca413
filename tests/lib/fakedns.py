"""A name server of our own on loopback, by table, and one that is silent or fails when told so.

It runs in a thread: dnspython uses the sockets of the standard library, which only a patched process makes
cooperative.
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
from peers.process import HOST


class FakeDns:
    """`zone`: (name, "A" | "AAAA" | "CNAME") -> (ttl, values). A name without any entry does not exist.

    behave: "answer", "silent" or "servfail"; the latter for questions of the kinds in `broken`. asked: the questions.
    """

    def __init__(self, folder: Path) -> None:
        self.zone: dict[tuple[str, str], tuple[int, list[str]]] = {}
        self.behave = "answer"
        self.broken: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((HOST, 0))
        self.port: int = self._socket.getsockname()[1]
        self.conf = folder / "resolv.conf"
        self.conf.write_text(f"nameserver {HOST}\noptions timeout:1\n")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", (HOST, self.port))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, client = self._socket.recvfrom(4096)
            if not data:
                return
            query = dns.message.from_wire(data)
            question = query.question[0]
            name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
            self.asked.append((name, kind))
            if self.behave != "silent":
                self._socket.sendto(self._answer(query, name, kind), client)

    def _answer(self, query: dns.message.Message, name: str, kind: str) -> bytes:
        response = dns.message.make_response(query)
        if self.behave == "servfail" or kind in self.broken:
            response.set_rcode(dns.rcode.SERVFAIL)
            return response.to_wire()
        while (name, "CNAME") in self.zone:
            ttl, (target,) = self.zone[name, "CNAME"]
            response.answer.append(dns.rrset.from_text(f"{name}.", ttl, "IN", "CNAME", f"{target}."))
            name = target
        if (name, kind) in self.zone:
            ttl, values = self.zone[name, kind]
            response.answer.append(dns.rrset.from_text(f"{name}.", ttl, "IN", kind, *values))
        elif not any(known == name for known, _ in self.zone):
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response.to_wire()
