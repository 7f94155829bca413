"""smtpgate: an SMTP proxy in front of a cluster of mail servers.

The rooms and their rules are told in ARCHITECTURE.md; each room repeats its own rule in its `__init__`.
"""

import os

__version__ = "0.1.0"

# numpy brings a library for linear algebra, of which nothing is used here, and which starts a thread for each core
# when it is loaded: in the process that forks the workers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
