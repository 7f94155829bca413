"""conf/proxy.yaml -> frozen Config.

model (the values that the program gets), keys (what each key may say), build (the keys together, and the whole).
Reads the file and looks whether the files that it names can be used; does not know who uses a setting.
"""

from smtpgate.config.build import load
from smtpgate.config.model import (
    AuthHttpConfig,
    BackendConfig,
    CertificateConfig,
    Config,
    ListenerConfig,
    LogConfig,
    MetricsConfig,
)

__all__ = [
    "AuthHttpConfig",
    "BackendConfig",
    "CertificateConfig",
    "Config",
    "ListenerConfig",
    "LogConfig",
    "MetricsConfig",
    "load",
]
