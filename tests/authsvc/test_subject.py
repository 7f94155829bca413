from __future__ import annotations

import pytest

from authsvc.subject import SubjectError, common_name


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (b"CN=test", "test"),
        (b"O=Acme\\, Inc,CN=client one", "client one"),
        (b"CN=client one,O=Acme\\, Inc", "client one"),
        (b"cn=test", "test"),
        (b"2.5.4.3=test", "test"),
        (b"emailAddress=a@b.example,CN=a@b.example,OU=x+O=y", "a@b.example"),
        (b"CN=J\\C3\\BCrgen", "Jürgen"),
        (b"CN=J\xc3\xbcrgen", "Jürgen"),
        (b"CN=a\\,CN=b", "a,CN=b"),
        (b"CN=\\20 a\\ ", "  a "),
        (b"CN=a#b=c", "a#b=c"),
        (b"CN=", ""),
        (b"CN=test+serialNumber=1", "test"),
    ],
)
def test_reads_the_one_common_name(subject: bytes, expected: str) -> None:
    assert common_name(subject) == expected


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        (b"", "not an RFC 2253 name at octet 0"),
        (b"O=Acme", "0 common names; expected exactly one"),
        (b"CN=test,CN=admin", "2 common names; expected exactly one"),
        (b"CN=test+CN=admin", "2 common names; expected exactly one"),
        (b"CN=test,", "not an RFC 2253 name at octet 8"),
        (b"CN=test,O", "not an RFC 2253 name at octet 8"),
        (b"/O=Acme/CN=test", "not an RFC 2253 name at octet 0"),
        (b'CN="test"', "not an RFC 2253 name at octet 0"),
        (b"CN=#04024869", "not an RFC 2253 name at octet 0"),
        (b"CN=test\\", "not an RFC 2253 name at octet 0"),
        (b"CN=te\x00st", "not an RFC 2253 name at octet 0"),
        (b"CN=te\r\nst", "not an RFC 2253 name at octet 0"),
        (b"CN=\xff", "the common name is not UTF-8"),
        (b"CN=\\FF", "the common name is not UTF-8"),
    ],
)
def test_refuses_the_rest(subject: bytes, message: str) -> None:
    with pytest.raises(SubjectError) as caught:
        common_name(subject)
    assert str(caught.value) == message


def test_a_hostile_name_costs_linear_time() -> None:
    with pytest.raises(SubjectError):
        common_name(b"CN=" + b"a" * 60_000 + b"\n")
