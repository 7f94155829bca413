"""The command of tools/docs: builds the site, and keeps the generated parts of docs/ as the source has them.

A generated part stands between two comments that name it; what is around it is written by hand. Owns where the parts
are and how they are put in place. What they say is `tools.reference`'s.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import click

from tools import reference

ROOT: Final = Path(__file__).resolve().parent.parent
DOCS: Final = ROOT / "docs"

# Page -> the part's name and who writes it.
PARTS: Final[Mapping[str, tuple[str, Callable[[], str]]]] = {
    "gatectl.md": ("commands", reference.commands_page),
    "metrics.md": ("metrics", reference.metrics_page),
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--write", is_flag=True, help="Write the generated parts of docs/ anew, and build nothing.")
@click.option("--check", is_flag=True, help="Build into nowhere, and fail where a generated part is not up to date.")
@click.option("--serve", is_flag=True, help="Show the site at http://127.0.0.1:8000/, and build it anew after edits.")
def docs(write: bool, check: bool, serve: bool) -> None:
    """Build the documentation into build/site. A warning is an error: a broken link, a page that is in no menu."""
    if write + check + serve > 1:
        raise click.UsageError("--write, --check and --serve do not go together")
    stale = [page for page in PARTS if not is_fresh(DOCS / page)]
    if write:
        for page in stale:
            (DOCS / page).write_text(renewed(DOCS / page))
            click.echo(f"docs/{page}: written")
        return
    if check and stale:
        click.echo(f"stale: {', '.join(stale)}; tools/docs --write makes them anew", err=True)
        sys.exit(1)
    if serve:
        sys.exit(_mkdocs("serve", "--strict", "--dev-addr", "127.0.0.1:8000"))
    if not check:
        sys.exit(_mkdocs("build", "--strict", "--quiet"))
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(_mkdocs("build", "--strict", "--quiet", "--site-dir", folder))


def is_fresh(page: Path) -> bool:
    return page.read_text() == renewed(page)


def renewed(page: Path) -> str:
    """The text of a page of PARTS with its part as it has to be. Raises LookupError where it has no place for it."""
    name, write = PARTS[page.name]
    begin, end = f"<!-- generated: {name}; tools/docs --write -->", "<!-- end -->"
    found = re.fullmatch(f"(.*{re.escape(begin)}\n).*(\n{re.escape(end)}.*)", page.read_text(), re.DOTALL)
    if found is None:
        raise LookupError(f"{page}: expected a line {begin}, and behind it a line {end}")
    return f"{found[1]}\n{write()}{found[2]}"


def _mkdocs(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-W", "ignore", "-m", "mkdocs", *arguments], cwd=ROOT).returncode


if __name__ == "__main__":
    docs(prog_name="tools/docs")
