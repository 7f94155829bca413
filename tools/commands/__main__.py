"""gatectl as a command of an installed package; tools/gatectl is the same in a checkout."""

from gevent import monkey

# The stores' timeouts are gevent's.
monkey.patch_all()

from .gatectl import gatectl  # noqa: E402 - nothing may be imported before the patch


def main() -> None:
    """Run it under its own name, however it was started."""
    gatectl(prog_name="gatectl")


if __name__ == "__main__":
    main()
