"""Which smtpgate runs: the plain sources, or what `tools/compile` has made of them.

Owns the name of a build, which is a hash of the sources and of the interpreter: a build of other sources is never
used. Imported before smtpgate, so it knows nothing of it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent
BUILDS: Final = ROOT / "build" / "compiled"
# "1": use the build of these sources.
VARIABLE: Final = "SMTPGATE_COMPILED"
# What a build is made of, beside the modules.
RECIPE: Final = ("setup.py", "pyproject.toml", "requirements-dev.txt")
NAME_LENGTH: Final = 16  # digits of the hash


def folder() -> Path:
    """Where the build of these sources for this interpreter is, or would be."""
    digest = hashlib.sha256(f"{sys.version} {sysconfig.get_config_var('EXT_SUFFIX')}".encode())
    modules = sorted(path for path in (ROOT / "smtpgate").rglob("*") if path.suffix in (".py", ".lua", ".typed"))
    for path in (*modules, *(ROOT / name for name in RECIPE)):
        text = path.read_bytes()
        digest.update(f"\0{path.relative_to(ROOT)}\0{len(text)}\0".encode())
        digest.update(text)
    return BUILDS / digest.hexdigest()[:NAME_LENGTH]


def use_if_wanted() -> None:
    """Put the build before the sources if SMTPGATE_COMPILED=1; say so if there is none, and run the sources."""
    if os.environ.get(VARIABLE) != "1":
        return
    build = folder()
    if build.is_dir():
        sys.path.insert(0, str(build))
    else:
        print(
            f"{VARIABLE}=1: no build of these sources in {BUILDS}: running plain Python; run tools/compile",
            file=sys.stderr,
        )
