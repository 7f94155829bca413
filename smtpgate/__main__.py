"""The proxy as a command, for an installed package; proxy.py is the same from a checkout."""

from gevent import monkey

monkey.patch_all()

from smtpgate.main import main  # noqa: E402 - nothing may be imported before the patch

if __name__ == "__main__":
    main(prog_name="smtpgate")
