"""tools.commands.nginxwords: durations, sizes and addresses. Inheritance is seen in test_importnginx."""

from __future__ import annotations

import pytest

from tools.commands.nginxwords import addresses, duration, size


@pytest.mark.parametrize(
    ("nginx", "ours"),
    [("60", "1m"), ("0", "0s"), ("90s", "90s"), ("1h30m", "90m"), ("1d", "1d"), ("500ms", "500ms"), ("24h", "1d")],
)
def test_durations(nginx: str, ours: str) -> None:
    assert duration(nginx) == ours


@pytest.mark.parametrize(("nginx", "ours"), [("4096", 4096), ("4k", "4KiB"), ("1M", "1MiB")])
def test_sizes(nginx: str, ours: int | str) -> None:
    assert size(nginx) == ours


@pytest.mark.parametrize(
    ("listen", "ipv6only", "ours"),
    [
        ("25", True, ["0.0.0.0:25"]),
        ("*:25", True, ["0.0.0.0:25"]),
        ("[::]:25", True, ["[::]:25"]),
        ("[::]:25", False, ["0.0.0.0:25", "[::]:25"]),
        ("mail.example.com:25", True, ["mail.example.com:25"]),
        ("127.0.0.1:2500-2502", True, ["127.0.0.1:2500", "127.0.0.1:2501", "127.0.0.1:2502"]),
        ("unix:/run/a-1-2.sock", True, ["unix:/run/a-1-2.sock"]),
    ],
)
def test_addresses(listen: str, ipv6only: bool, ours: list[str]) -> None:
    assert addresses(listen, ipv6only=ipv6only) == ours
