"""gunicorn's settings for the auth service: gunicorn -c conf/gunicorn.authsvc.py authsvc.wsgi:app

What an operator sets is in conf/authsvc.yaml (or the file that SMTPGATE_AUTHSVC_CONF names); authsvc.gunicornconf
takes it from there. Whatever is assigned below its settings wins.
"""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402 - nothing may be imported before the patch
import sys  # noqa: E402 - as above
from pathlib import Path  # noqa: E402 - as above

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

try:
    import compiled as _compiled  # found through the line above
except ModuleNotFoundError:
    pass  # installed, compiled or not
else:
    _compiled.use_if_wanted()

from authsvc import gunicornconf as _gunicornconf  # noqa: E402 - with the compiled smtpgate, if that is wanted
from authsvc import startup as _startup  # noqa: E402 - as above

os.environ.setdefault(_startup.CONF_VARIABLE, os.path.relpath(HERE / "authsvc.yaml"))
globals().update(_gunicornconf.settings())
