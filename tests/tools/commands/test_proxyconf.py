"""What gatectl's commands share of conf/proxy.yaml."""

from __future__ import annotations

from smtpgate import main
from tools.commands import proxyconf


def test_the_configuration_is_where_the_proxy_looks_for_it() -> None:
    assert str(proxyconf.DEFAULT_CONF).endswith(f"/{main.DEFAULT_CONF}")
    assert proxyconf.DEFAULT_CONF.is_file()
    assert proxyconf.CONF_VARIABLE == main.CONF_VARIABLE
