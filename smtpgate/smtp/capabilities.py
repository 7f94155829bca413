"""What a listener may offer with `capabilities: auto`: what every backend behind it takes.

Owns which extensions the proxy can carry at all, and how several backends' offers become one. Refuses to know who the
backends are and how they were asked. Whatever is not named here is not offered, also if every backend does: a client
that uses it would say what the proxy refuses.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from smtpgate.smtp.extensions import Extensions

# In the order of EHLO's reply. What these mean for a message the proxy passes on, or does itself where a backend
# need not (CHUNKING becomes DATA, RFC 3030). AUTH and STARTTLS are the listener's own matter.
CARRIED: Final = ("ENHANCEDSTATUSCODES", "8BITMIME", "DSN", "SMTPUTF8", "CHUNKING")

# Before any backend was asked. Our own pipelining is true whoever comes after us (RFC 2920 speaks of one hop), and
# SIZE without a number promises nothing (RFC 1870 section 4).
MINIMUM: Final[tuple[str, ...]] = ("PIPELINING", "SIZE")


def common(offers: Collection[Extensions]) -> tuple[str, ...]:
    """The EHLO lines for `offers`, those of the backends that take sessions; MINIMUM where there are none.

    SIZE has the least of all limits. A backend that tells no limit is not the one that limits the others.
    """
    if not offers:
        return MINIMUM
    sizes = [size for offer in offers if (size := offer.size)]
    limit = f"SIZE {min(sizes)}" if sizes else "SIZE"
    return ("PIPELINING", limit, *(name for name in CARRIED if all(offer.has(name) for offer in offers)))
