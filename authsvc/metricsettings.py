"""`metrics:` of conf/authsvc.yaml: where Prometheus finds what the service counts. Left out, nothing is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from smtpgate.units import HostPort, HostPortField, InvalidValue, StrictModel


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """bind: where Prometheus finds them: by HTTP in clear, or in TLS where the service is."""

    bind: HostPort


class MetricsKeys(StrictModel):
    """`metrics`."""

    bind: Annotated[HostPortField, Field(description="e.g. 127.0.0.1:9126")]

    def settings(self) -> MetricsSettings:
        return MetricsSettings(self.bind)


def check_beside(metrics: MetricsKeys, others: Sequence[tuple[str, object]]) -> None:
    """What the rest of the file forbids. others: who else is bound, and where. Raises InvalidValue."""
    for name, bind in others:
        if isinstance(bind, HostPort) and bind.port == metrics.bind.port:
            value, expected = str(metrics.bind), "a port of its own: whoever may ask is told everything there"
            raise InvalidValue(f"is the port of {name}", expected, value=value, path=("metrics", "bind"))
