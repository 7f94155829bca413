#!/usr/bin/env python3
"""The proxy's entry: gevent's blocking calls first, then which smtpgate, then everything else."""

from gevent import monkey

monkey.patch_all()

import compiled  # noqa: E402 - nothing may be imported before the patch

compiled.use_if_wanted()

from smtpgate.main import main  # noqa: E402 - the compiled one, if that is wanted

if __name__ == "__main__":
    main()
