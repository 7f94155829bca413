"""`gunicorn -c conf/gunicorn.proxy.py`: the proxy under gunicorn's own command, as `python proxy.py` runs it.

SMTPGATE_CONF names the configuration, conf/proxy.yaml by default. gunicorn's settings follow from it; whatever is
assigned below them wins, but for bind: where to listen is said under `listeners` alone. Signals as `proxy.py --help`
tells them.
"""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402 - nothing may be imported before the patch
import sys  # noqa: E402 - as above
from pathlib import Path  # noqa: E402 - as above

from gunicorn.app import base  # noqa: E402 - as above

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from smtpgate import main as _main  # noqa: E402 - found through the line above

os.environ.setdefault(_main.CONF_VARIABLE, os.path.relpath(HERE / "proxy.yaml"))

wsgi_app = "smtpgate.main:gate_from_environment()"
globals().update(_main.settings_from_environment())

# gunicorn has no setting for its arbiter, and its own one waits in a HUP until the last old session is over.
base.Arbiter = _main.arbiter
