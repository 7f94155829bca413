#!/usr/bin/env python3
"""The proxy's entry: gevent's blocking calls first, then everything else."""

from gevent import monkey

monkey.patch_all()

from smtpgate.main import main  # noqa: E402 - nothing may be imported before the patch

if __name__ == "__main__":
    main()
