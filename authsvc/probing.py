"""Which mail servers answer, asked by the auth service: a stock nginx tries the address that it is given alone.

Owns the wiring of the proxy's probes to `destinations`. Our proxy finds out for itself and needs none of this. Each
worker probes for itself: the service shares nothing with a proxy but the policies.
"""

from __future__ import annotations

import secrets

from authsvc.answer.destinations import Destinations
from smtpgate.clock import Clock
from smtpgate.drivers.backendtls import ClientTls
from smtpgate.drivers.dial import Dialler
from smtpgate.drivers.probes import Finding, Prober, Probes, Subject
from smtpgate.drivers.resolver import Resolver
from smtpgate.journal import Journal


def open_probes(destinations: Destinations, server_name: str, clock: Clock, journal: Journal) -> Probes:
    """Probes whose findings reach `destinations`; they begin with `watch`. server_name: ours, for EHLO."""
    resolver = Resolver(clock, warn=lambda name, reason: journal.warning("lookup_failed", name=name, reason=reason))
    tls = ClientTls(clock, lambda reason: journal.warning("backend_tls", reason=reason))

    def found(subject: Subject, finding: Finding) -> None:
        if destinations.probed(subject.pool, subject.backend.name, finding.up, finding.reason):
            journal.warning(
                "backend_up" if finding.up else "backend_down",
                pool=subject.pool,
                backend=subject.backend.name,
                reason=finding.reason,
            )

    prober = Prober(clock, Dialler(clock, resolver, tls).dial, server_name)
    return Probes(clock, prober, secrets.SystemRandom().random, found, journal)
