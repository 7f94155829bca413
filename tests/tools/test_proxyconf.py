"""What gatectl's commands share of conf/proxy.yaml."""

from __future__ import annotations

from smtpgate import main
from tools import proxyconf


def test_the_configuration_is_where_the_proxy_looks_for_it() -> None:
    assert (proxyconf.DEFAULT_CONF, proxyconf.CONF_VARIABLE) == (main.DEFAULT_CONF, main.CONF_VARIABLE)
    assert (proxyconf.ROOT / proxyconf.DEFAULT_CONF).is_file()
