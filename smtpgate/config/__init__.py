"""conf/proxy.yaml -> frozen Config.

model (the values that the program gets), keys, listeners, authhttp and backend (what each key may say), build (the
keys together, and the whole).
Reads the file and looks whether the files that it names can be used; does not know who uses a setting.
"""

from smtpgate.config.build import load
from smtpgate.config.model import (
    AuthHttpConfig,
    BackendConfig,
    CertificateConfig,
    ClientCertificateConfig,
    Config,
    ListenerConfig,
    LogConfig,
    MetricsConfig,
    TlsOptionsConfig,
)

__all__ = [
    "AuthHttpConfig",
    "BackendConfig",
    "CertificateConfig",
    "ClientCertificateConfig",
    "Config",
    "ListenerConfig",
    "LogConfig",
    "MetricsConfig",
    "TlsOptionsConfig",
    "load",
]
