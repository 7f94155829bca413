"""smtpgate: an SMTP proxy in front of a cluster of mail servers.

The rooms and their rules are told in ARCHITECTURE.md; each room repeats its own rule in its `__init__`.
"""

__version__ = "0.1.0"
