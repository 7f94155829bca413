"""What becomes of a message's text, read an octet at a time as RFC 5321 section 4.1.1.4 is written.

Slow, short, and of another make than `smtpgate.smtp.datascan`, which its tests and the fuzzer hold against it.
"""

from __future__ import annotations

from smtpgate.smtp.events import BodyFault


def oracle(wire: bytes, max_size: int | None) -> tuple[bytes | None, bytes | None, int, BodyFault | None]:
    """(text or None with a fault, rest or None without an end, size, fault), read as RFC 5321 is written."""
    behind = b"\r\n" + wire  # behind[i : i + 2] is what stands before wire[i]
    end = next((i for i in range(len(wire)) if behind[i : i + 5] == b"\r\n.\r\n"), None)
    text = wire if end is None else wire[:end]
    size, fault = 0, None
    for i, octet in enumerate(text):
        before = behind[i : i + 2]
        if not (octet == 0x2E and before == b"\r\n"):
            size += 1
        if fault is None:
            bare_lf = octet == 0x0A and before[1:] != b"\r"
            bare_cr = octet == 0x0D and text[i + 1 : i + 2] != b"\n"
            if bare_lf or bare_cr:
                fault = BodyFault.BARE_NEWLINE
            elif octet == 0:
                fault = BodyFault.NUL
            elif max_size is not None and size > max_size:
                fault = BodyFault.TOO_BIG
    return (None if fault else text), (None if end is None else wire[end + 3 :]), size, fault


def mended(text: bytes) -> bytes:
    """CRLF for a bare LF, a space for a bare CR, octet by octet."""
    made = bytearray()
    for i, octet in enumerate(text):
        if octet == 0x0A and text[i - 1 : i] != b"\r":
            made += b"\r\n"
        elif octet == 0x0D and text[i + 1 : i + 2] != b"\n":
            made += b" "
        else:
            made.append(octet)
    return bytes(made)


def first_fault(content: bytes, max_size: int | None) -> BodyFault | None:
    for i, octet in enumerate(content):
        if octet == 0:
            return BodyFault.NUL
        if max_size is not None and i >= max_size:
            return BodyFault.TOO_BIG
    return None


def normalize_oracle(wire: bytes, max_size: int | None) -> tuple[bytes | None, bytes, int, BodyFault | None]:
    """As `oracle`: the end is found first, then stuffed dots go, then line ends are mended, then dots are stuffed."""
    behind = b"\r\n" + wire
    end = next(i for i in range(len(wire)) if behind[i : i + 5] == b"\r\n.\r\n")
    plain = bytes(o for i, o in enumerate(wire[:end]) if o != 0x2E or behind[i : i + 2] != b"\r\n")
    content = mended(plain)
    stuffed = b"\r\n".join(b"." + line if line[:1] == b"." else line for line in content.split(b"\r\n"))
    fault = first_fault(content, max_size)
    return (None if fault else stuffed), wire[end + 3 :], len(content), fault
