from __future__ import annotations

import pytest

from authsvc.proof.subject import SubjectError, read_subject


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
def test_reads_the_one_read_subject(subject: bytes, expected: str) -> None:
    assert read_subject(subject) == expected


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        (b"", "not an RFC 2253 name at octet 0"),
        (b"O=Acme", "0 of CN; expected exactly one"),
        (b"CN=test,CN=admin", "2 of CN; expected exactly one"),
        (b"CN=test+CN=admin", "2 of CN; expected exactly one"),
        (b"CN=test,", "not an RFC 2253 name at octet 8"),
        (b"CN=test,O", "not an RFC 2253 name at octet 8"),
        (b"/O=Acme/CN=test", "not an RFC 2253 name at octet 0"),
        (b'CN="test"', "not an RFC 2253 name at octet 0"),
        (b"CN=#04024869", "not an RFC 2253 name at octet 0"),
        (b"CN=test\\", "not an RFC 2253 name at octet 0"),
        (b"CN=te\x00st", "not an RFC 2253 name at octet 0"),
        (b"CN=te\r\nst", "not an RFC 2253 name at octet 0"),
        (b"CN=\xff", "CN is not UTF-8"),
        (b"CN=\\FF", "CN is not UTF-8"),
    ],
)
def test_refuses_the_rest(subject: bytes, message: str) -> None:
    with pytest.raises(SubjectError) as caught:
        read_subject(subject)
    assert str(caught.value) == message


def test_a_hostile_name_costs_linear_time() -> None:
    with pytest.raises(SubjectError):
        read_subject(b"CN=" + b"a" * 60_000 + b"\n")


SUBJECT = b"emailAddress=a@b.example,UID=ab,serialNumber=7,CN=A B"


@pytest.mark.parametrize(
    ("field", "expected"), [("CN", "A B"), ("emailAddress", "a@b.example"), ("UID", "ab"), ("serialNumber", "7")]
)
def test_the_field_is_the_operators_choice(field: str, expected: str) -> None:
    assert read_subject(SUBJECT, field) == expected


@pytest.mark.parametrize(
    ("field", "number"),
    [("CN", b"2.5.4.3"), ("emailAddress", b"1.2.840.113549.1.9.1"), ("UID", b"0.9.2342.19200300.100.1.1")],
)
def test_a_field_by_its_number(field: str, number: bytes) -> None:
    assert read_subject(b"O=x," + number + b"=a", field) == "a"


def test_another_field_is_not_the_user() -> None:
    with pytest.raises(SubjectError, match="0 of emailAddress; expected exactly one"):
        read_subject(b"CN=a@b.example", "emailAddress")
    with pytest.raises(SubjectError, match="2 of UID; expected exactly one"):
        read_subject(b"UID=a,UID=b", "UID")
