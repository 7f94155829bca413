"""What gunicorn's workers serve: `app`, built from the state that their first process has checked."""

from __future__ import annotations

from authsvc import startup
from authsvc.assembly import build

app = build(startup.in_force())
