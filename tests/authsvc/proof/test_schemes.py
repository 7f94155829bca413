"""Every stored form that another program wrote, and each way in which one can be no form."""

from __future__ import annotations

import pytest

from authsvc.proof import crammd5, schemes
from authsvc.proof.schemes import StoredForm, StoredFormError, matches, parse, plain_password

# The password is 1234, made by the command of the id: Dovecot 2.3.19.1, whois 5.5.17, apache2-utils 2.4, OpenSSL 3.0,
# argon2 0~20171227, all of Debian 12.
MADE = [
    (
        "ARGON2ID",
        "echo -n 1234 | argon2 saltsalt -id -t 2 -k 64 -p 1 -e",
        "$argon2id$v=19$m=64,t=2,p=1$c2FsdHNhbHQ$1UexDQN/TZayQt6ad1P45h3ch7cbOL+8CsFEzxAiuU0",
    ),
    (
        "ARGON2ID",
        "doveadm pw -s ARGON2ID",
        "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$KIP1lQwxZhNEVn4oh5BElg$u7iT8SFAqv53XItQa0dbdiL7a6E0rv0DxT+VOI6b2dk",
    ),
    (
        "BLF-CRYPT",
        "doveadm pw -s BLF-CRYPT -r 4",
        "{BLF-CRYPT}$2y$04$GENk/muDOhQ1LBK.sx3se.kBLbD6i3okFKgsOvOei9P8mx.c91mtS",
    ),
    (
        "BLF-CRYPT",
        "doveadm pw -s BLF-CRYPT.HEX -r 4",
        "{BLF-CRYPT.HEX}2432792430352464476b596f745961794b7851414f75386946564c506553494434746a3753506764436c775464726232"
        "674d6b6d47346f417769732e",
    ),
    ("BLF-CRYPT", "htpasswd -nbB -C 5", "$2y$05$.sZSPMjXYWOBUes5mX14yeRGx25zjiqve0zHnuvZHForcknwh6Y.2"),
    ("BLF-CRYPT", "mkpasswd -m bcrypt -R 4", "$2b$05$VHM99iJGD.TUIgCC0xT4NuAAQTPsLzyHjq201kp021XoBeyWX/mbq"),
    ("BLF-CRYPT", "mkpasswd -m bcrypt-a -R 4", "$2a$05$t9iEAZB8RJoswN9YgxTOSeaibVb0AlzzKGwKrXXjnVXdYUIi8H4LK"),
    (
        "SHA512-CRYPT",
        "doveadm pw -s SHA512-CRYPT -r 1000",
        "{SHA512-CRYPT}$6$rounds=1000$Uvy0jLpoByXXqomJ$MBlFsOaNfmHNGvPfNkFQMYcZQWcpq62/FJzudZrKfjUqLH5B4w34ShNooIOWudPaJ8"
        "GTanBU7l9sUKC3wkYsQ.",
    ),
    (
        "SHA512-CRYPT",
        "mkpasswd -m sha512crypt -R 1000",
        "$6$rounds=1000$.1uuASeb.KJonlCX$CZ9.9peSAg5kGd0KbgQ6JykFEWz9ky1AcIBhkTS9zxfPRf.pVoZrMfqczucOJ3Qxxx/UVC6U9.Qy3G9p"
        "JRngA0",
    ),
    (
        "SHA512-CRYPT",
        "openssl passwd -6 -salt saltsalt",
        "{CRYPT}$6$saltsalt$/alWecYH7Ry7BmdtYwV3ObFkYwJ96i4zoGSMR09J7xkAoFGB7iwoQytRgpR6rkCCVBVNkvTdkdDjhKYVJ8L2T.",
    ),
    (
        "SHA256-CRYPT",
        "openssl passwd -5 -salt saltsalt",
        "$5$saltsalt$wiWFCEWqey3YrlUTpFtWYuKI1sYlYqRc.E2MX.s1tbC",
    ),
    (
        "PBKDF2",
        "doveadm pw -s PBKDF2 -r 1000",
        "{PBKDF2}$1$xAXCvNEXmBStxFwW$1000$c715e10ea551dc29179286c9fd590020d2c64f60",
    ),
    (
        # As Django's make_password writes it, the digest by openssl's PBKDF2:
        "PBKDF2",
        "openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt pass:1234 -kdfopt salt:saltsalt -kdfopt iter:1000 ...",
        "pbkdf2_sha256$1000$saltsalt$5H+PyfD+NrL3f3614/3BySuQSLtJDQtIzZAv5KnpEKU=",
    ),
    (
        # As passlib writes it, the digest by openssl's PBKDF2:
        "PBKDF2",
        "openssl kdf -keylen 64 -kdfopt digest:SHA512 -kdfopt pass:1234 -kdfopt salt:saltsalt -kdfopt iter:1000 ...",
        "{PBKDF2}$pbkdf2-sha512$1000$c2FsdHNhbHQ$82NriwtzRuV499EAQMu2i.7lFzoB3XSnstSm0EsxaUO3HLUnJXAG9SU7oqsOaiwAB6dfi/Dt"
        "PAdbWm/S/44RAQ",
    ),
    ("SSHA", "doveadm pw -s SSHA", "{SSHA}fA3ujFAeJB9vLS0DypkD0CK1pbwOQfMx"),
    ("SSHA", "doveadm pw -s SSHA, as LDAP servers may write it", "{ssha}fA3ujFAeJB9vLS0DypkD0CK1pbwOQfMx"),
    ("SSHA", "doveadm pw -s SSHA.HEX", "{SSHA.HEX}cfccb1e9b052e50106867e5299d3babf3a2eebf3d56462b3"),
    ("SSHA256", "doveadm pw -s SSHA256", "{SSHA256}HTzX/4E9ne2vnJr3D/2OxSSy711HWO1DJp28evxrvxgf4gJa"),
    (
        "SSHA256",
        "doveadm pw -s SSHA256.HEX",
        "{SSHA256.HEX}efe9ae6fd47a23c5824ff7c4cad2aeff6571e9d86ff3f78d9ae5af4d14081e31993e7d69",
    ),
    (
        "SSHA512",
        "doveadm pw -s SSHA512",
        "{SSHA512}jpnYkk81TfUqr526lgZp4tyIMMkmZBoypduli0FVxXXa9A6NH5+fc44/mwEmQaKEf6eDL6aEj72mUDfeBi5qDpTptzE=",
    ),
    (
        "SSHA512",
        "doveadm pw -s SSHA512.B64",
        "{SSHA512.B64}B1afGlhrwrG0CVTMt7PlqAXi59L4TO2W1t1Wtzh1hHfQROTHQGmxLOFkn6wsg9or/7ivaIxkwWYJpj0YAQX3iF5ZVAg=",
    ),
    ("SHA", "htpasswd -nbs", "{SHA}cRDtpNCeBiql5KOQsKVyrA0sAiA="),
    ("SHA", "doveadm pw -s SHA.HEX", "{SHA.HEX}7110eda4d09e062aa5e4a390b0a572ac0d2c0220"),
    ("APR1", "htpasswd -nbm", "$apr1$67q35rEE$gQvjIQPzvqIml/JSlHIpl."),
    ("APR1", "openssl passwd -apr1 -salt saltsalt", "{CRYPT}$apr1$saltsalt$xTHh70zTZEsccS/UX8/vw1"),
    (
        "CRAM-MD5",
        "doveadm pw -s CRAM-MD5",
        "{CRAM-MD5}fab7bd1b4b04fae0dcaacc5d57aa331864db11efe527e9f96ed6a0ce3e134302",
    ),
    ("CRAM-MD5", "doveadm pw -s CRAM-MD5.B64", "{CRAM-MD5.B64}+re9G0sE+uDcqsxdV6ozGGTbEe/lJ+n5btagzj4TQwI="),
    ("PLAIN", "doveadm pw -s PLAIN", "{PLAIN}1234"),
    ("PLAIN", "doveadm pw -s CLEARTEXT", "{CLEARTEXT}1234"),
    ("PLAIN", "doveadm pw -s PLAIN.B64", "{PLAIN.B64}MTIzNA=="),
    ("PLAIN", "doveadm pw -s PLAIN.HEX", "{PLAIN.HEX}31323334"),
]


@pytest.mark.parametrize(("scheme", "stored"), [pytest.param(s, f, id=f"{s}: {made}") for s, made, f in MADE])
def test_what_other_programs_made(scheme: str, stored: str) -> None:
    form = parse(stored)
    assert form.scheme == scheme
    assert matches(form, b"1234")
    assert not matches(form, b"12345")
    assert not matches(form, b"")


@pytest.mark.parametrize(("scheme", "stored"), [pytest.param(s, f, id=f"{s}: {made}") for s, made, f in MADE])
@pytest.mark.parametrize("password", [b"\x00", b"12\x0034", b"\xff\xfe", b"1234" * 1000, b"{PLAIN}1234"])
def test_no_octets_are_a_fault(scheme: str, stored: str, password: bytes) -> None:
    assert not matches(parse(stored), password)


def test_a_form_with_marks_of_other_languages() -> None:
    # doveadm pw -s SSHA256 -p 'pä ss'
    assert matches(parse("{SSHA256}0S9BPZQ27WrLzARJMSf2Hs24ZrlAldxfGkZrOasXU9wxUumv"), "pä ss".encode())
    assert matches(parse("{PLAIN}pä ss"), "pä ss".encode())
    assert matches(parse("{PLAIN.HEX}fffe"), b"\xff\xfe")


def test_bcrypt_looks_at_72_octets_as_it_does_everywhere() -> None:
    # htpasswd -nbB -C 4 u $(printf 'x%.0s' $(seq 80))
    form = parse("$2y$04$wjwI1GAPEMNyH7Y04KS//.aaxn/uFIpqyKprVuoRsYpwLG1E0KeOS")
    assert matches(form, b"x" * 80)
    assert matches(form, b"x" * 72)
    assert not matches(form, b"x" * 71)


@pytest.mark.parametrize(("scheme", "stored"), [pytest.param(s, f, id=f"{s}: {made}") for s, made, f in MADE])
def test_which_checks_may_run_on_the_event_loop(scheme: str, stored: str) -> None:
    assert parse(stored).quick is (scheme in {"SSHA", "SSHA256", "SSHA512", "SHA", "CRAM-MD5", "PLAIN"})


def test_a_clear_password_is_told_of_plain_alone() -> None:
    assert plain_password(parse("{PLAIN.B64}MTIzNA==")) == b"1234"
    assert plain_password(parse("{SHA}cRDtpNCeBiql5KOQsKVyrA0sAiA=")) is None


def test_nothing_stored_is_shown() -> None:
    assert repr(parse("{PLAIN}hunter2")) == "StoredForm(scheme='PLAIN', quick=True)"


SALT22 = "GENk/muDOhQ1LBK.sx3se."
DIGEST31 = "kBLbD6i3okFKgsOvOei9P8mx.c91mtS"
SHA512 = "/alWecYH7Ry7BmdtYwV3ObFkYwJ96i4zoGSMR09J7xkAoFGB7iwoQytRgpR6rkCCVBVNkvTdkdDjhKYVJ8L2T."


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (
            f"{{BLF-CRYPT}}$2y$31${SALT22}{DIGEST31}",
            "bcrypt cost: 31 is too much work for a login; at most 14 is taken",
        ),
        (f"$2y$15${SALT22}{DIGEST31}", "bcrypt cost: 15 is too much work for a login; at most 14 is taken"),
        (
            f"$6$rounds=999999999$saltsalt${SHA512}",
            "SHA-crypt rounds: 999999999 is too much work for a login; at most 1000000 is taken",
        ),
        (
            "{PBKDF2}$1$salt$999999999$c715e10ea551dc29179286c9fd590020d2c64f60",
            "PBKDF2 rounds: 999999999 is too much work for a login; at most 2000000 is taken",
        ),
        (
            "pbkdf2_sha256$2000001$saltsalt$5H+PyfD+NrL3f3614/3BySuQSLtJDQtIzZAv5KnpEKU=",
            "PBKDF2 rounds: 2000001 is too much work for a login; at most 2000000 is taken",
        ),
        (
            "$argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHQ$1UexDQN/TZayQt6ad1P45h3ch7cbOL+8CsFEzxAiuU0",
            "argon2id memory in KiB: 4194304 is too much work for a login; at most 262144 is taken",
        ),
        (
            "$argon2id$v=19$m=65536,t=17,p=1$c2FsdHNhbHQ$1UexDQN/TZayQt6ad1P45h3ch7cbOL+8CsFEzxAiuU0",
            "argon2id memory in KiB times passes: 1114112 is too much work for a login; at most 1048576 is taken",
        ),
    ],
)
def test_a_hash_that_costs_hours_is_refused_before_anybody_logs_in(stored: str, message: str) -> None:
    with pytest.raises(StoredFormError) as caught:
        parse(stored)
    assert str(caught.value) == message


@pytest.mark.parametrize("cost", [14, 4])
def test_up_to_the_bound_it_is_taken(cost: int) -> None:
    assert parse(f"{{BLF-CRYPT}}$2y${cost:02}${SALT22}{DIGEST31}").scheme == "BLF-CRYPT"


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ("", "this is not a stored password"),
        ("hunter2", "this is not a stored password"),
        ("$1$KK76EF6H$DXkmIbpuUgr1kA9zMzyHr0", "this is not a stored password"),
        ("$2x$04$GENk/muDOhQ1LBK.sx3se.kBLbD6i3okFKgsOvOei9P8mx.c91mtS", "this is not a stored password"),
        ("$y$j9T$hunter2$hunter2", "this is not a stored password"),
        ("{CRYPT}rK1hunter2", "this is not a stored password"),
        ("{LDAP}hunter2", "{LDAP} is not a scheme that is known"),
        ("{}hunter2", "this is not a stored password"),
        ("{ARGON2ID}", "ARGON2ID: expected visible ASCII"),
        ("{ARGON2ID}hunter2", "ARGON2ID: this is not a hash of that scheme"),
        ("{ARGON2ID}$argon2i$v=19$m=64,t=2,p=1$c2FsdHNhbHQ$aGFzaA", "argon2 is taken as argon2id only"),
        ("{BLF-CRYPT}$2y$04$hunter2", "BLF-CRYPT: this is not a hash of that scheme"),
        (f"{{BLF-CRYPT}}$6$saltsalt${SHA512}", "BLF-CRYPT: this is not a hash of that scheme"),
        (f"{{SHA512-CRYPT}}$2y$04${SALT22}{DIGEST31}", "SHA512-CRYPT: this is not a hash of that scheme"),
        (f"$2y$04${SALT22}", "bcrypt: the hash has no digest, only a salt"),
        ("$6$saltsalt", "SHA-crypt: the hash has no digest, only a salt"),
        ("$6$saltsalt$hunter2", "SHA512-CRYPT: this is not a hash of that scheme"),
        (f"$6$saltsalt${SHA512}\n", "SHA512-CRYPT: expected visible ASCII"),
        ("$6$salt\ud800salt$x", "SHA512-CRYPT: expected visible ASCII"),
        ("{PBKDF2}$1$salt$0$c715e10ea551dc29179286c9fd590020d2c64f60", "PBKDF2: expected Dovecot's"),
        ("{PBKDF2}hunter2", "PBKDF2: expected Dovecot's"),
        ("{SSHA}hunter2", "the hash is not base64"),
        ("{SSHA}aHVudGVyMg==", "SSHA: this is not a hash of that scheme"),
        ("{SSHA.HEX}hunter2", "the hash is not hexadecimal digits"),
        ("{SSHA}", "SSHA: this is not a hash of that scheme"),
        ("{SHA}fA3ujFAeJB9vLS0DypkD0CK1pbwOQfMx", "SHA: this is not a hash of that scheme"),
        ("{CRAM-MD5}hunter2", "expected {CRAM-MD5} and 64 lower-case hexadecimal digits"),
        ("{PLAIN}", "PLAIN: expected 1 to 512 octets"),
        ("{PLAIN}" + "x" * 513, "PLAIN: expected 1 to 512 octets"),
        ("{PLAIN}" + "x" * 2000, "a stored password has at most 1100 characters, this one 2007"),
        ("{SHA.B32}hunter2", "this is not a stored password"),
    ],
)
def test_what_is_no_stored_form(stored: str, message: str) -> None:
    with pytest.raises(StoredFormError) as caught:
        parse(stored)
    assert str(caught.value).startswith(message)
    assert "hunter2" not in str(caught.value)


def test_longer_than_any_password_matches_nothing() -> None:
    longest = b"x" * schemes.MAX_PASSWORD
    assert matches(parse("{PLAIN}" + "x" * 512), longest)
    form = StoredForm("CRAM-MD5", crammd5.make(longest + b"x").removeprefix("{CRAM-MD5}"), quick=True)
    assert not matches(form, longest + b"x")
