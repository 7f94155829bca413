"""Where the commands look for a configuration that nobody names: in a checkout's conf/, else in /etc/smtpgate."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_CHECKOUT: Final = Path(__file__).resolve().parents[2]
_INSTALLED: Final = Path("/etc/smtpgate")


def default_conf(name: str) -> Path:
    """The file of this name, as conf/ has it: "proxy.yaml", "authsvc.yaml"."""
    ours = _CHECKOUT / "conf" / name
    return ours if ours.exists() else _INSTALLED / name
