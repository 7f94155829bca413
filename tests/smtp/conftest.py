"""What the protocol's tests share: a dialogue in memory, and the ways to cut a stream, on which none may depend."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dialogue
import pytest

Player = Callable[..., dialogue.Play]


@pytest.fixture
def play() -> Player:
    return dialogue.play


@pytest.fixture
def cuts() -> Callable[[bytes], Iterator[list[bytes]]]:
    def cut(octets: bytes) -> Iterator[list[bytes]]:
        """The whole, octet by octet, and every two-way split."""
        yield [octets]
        yield [octets[i : i + 1] for i in range(len(octets))]
        for at in range(1, len(octets)):
            yield [octets[:at], octets[at:]]

    return cut
