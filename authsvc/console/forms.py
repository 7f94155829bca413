"""The forms of the console: what may be typed, and within which bounds.

Those that change something are FlaskForms, with a token against requests that another site makes (CSRF). Those that
ask are plain: they are GET, and change nothing.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, Final

from flask_wtf import FlaskForm
from wtforms import Form, SelectField, StringField
from wtforms.fields import FloatField, HiddenField, IntegerField, PasswordField
from wtforms.fields.choices import SelectChoice
from wtforms.validators import InputRequired, Length, NumberRange, Optional, ValidationError

from authsvc.proof.schemes import MAX_PASSWORD
from smtpgate.explain.facts import YEARS, Question
from smtpgate.policy.addresses import UNIX, parse_client
from smtpgate.units import MAX_NAME, InvalidValue, parse_size

# Characters: the longest subject is two addresses and what stands between (RFC 5321 section 4.5.3.1).
MAX_SUBJECT: Final = 1024
MAX_LIMIT: Final = MAX_NAME + 16
# Session counters that explain takes; more says nothing new.
MAX_COUNT: Final = 1_000_000


_ENCRYPTED: Final = [SelectChoice("", "not said"), SelectChoice("yes", "yes"), SelectChoice("no", "no")]


class Login(FlaskForm):  # type: ignore[misc] # flask_wtf has no types
    operator = StringField("Operator", [InputRequired(), Length(max=MAX_NAME)])
    password = PasswordField("Password", [InputRequired(), Length(max=MAX_PASSWORD)])


class Nothing(FlaskForm):  # type: ignore[misc] # flask_wtf has no types
    """A button that needs nothing but the token."""


class OfSubject(FlaskForm):  # type: ignore[misc] # flask_wtf has no types
    """One subject of one limit."""

    limit = HiddenField("Limit", [InputRequired(), Length(max=MAX_LIMIT)])
    subject = HiddenField("Subject", [InputRequired(), Length(max=MAX_SUBJECT)])


class Grant(OfSubject):
    tokens = FloatField("Tokens", [InputRequired("expected a number of tokens above 0")])

    def validate_tokens(self, field: FloatField) -> None:
        if field.data is None or not math.isfinite(field.data) or field.data <= 0.0:
            raise ValidationError("expected a number of tokens above 0")


class OfBackend(FlaskForm):  # type: ignore[misc] # flask_wtf has no types
    """One backend of one pool."""

    pool = HiddenField("Pool", [InputRequired(), Length(max=MAX_NAME)])
    backend = HiddenField("Backend", [InputRequired(), Length(max=MAX_NAME)])


class Search(Form):  # type: ignore[misc] # wtforms has no types
    words = StringField("Search", [Optional(), Length(max=MAX_SUBJECT)])


class QuotaSearch(Form):  # type: ignore[misc] # wtforms has no types
    subject = StringField("User, address or other subject", [Optional(), Length(max=MAX_SUBJECT)])
    limit = StringField("Limit", [Optional(), Length(max=MAX_LIMIT)])


class Ask(Form):  # type: ignore[misc] # wtforms has no types
    """The facts of a session, as for `gatectl policy explain`."""

    ip = StringField("Client address", [InputRequired("expected an address, or unix:"), Length(max=64)])
    user = StringField("User (logged in as)", [Optional(), Length(max=320)])
    login = StringField("Login (as typed)", [Optional(), Length(max=320)])
    plan = StringField("Plan", [Optional(), Length(max=MAX_NAME)])
    method = StringField("Login method", [Optional(), Length(max=MAX_NAME)])
    helo = StringField("HELO name", [Optional(), Length(max=255)])
    sender = StringField("Sender", [Optional(), Length(max=320)])
    rcpt = StringField("Recipient", [Optional(), Length(max=320)])
    size = StringField("Message size", [Optional(), Length(max=32)])
    listener = StringField("Listener", [Optional(), Length(max=MAX_NAME)])
    tls = SelectField("Encrypted", choices=_ENCRYPTED, default="")
    recipients = IntegerField("Recipients so far", [Optional(), NumberRange(0, MAX_COUNT)])
    messages = IntegerField("Messages so far", [Optional(), NumberRange(0, MAX_COUNT)])
    at = StringField("When", [Optional(), Length(max=64)])

    def validate_ip(self, field: StringField) -> None:
        text = (field.data or "").strip()
        if text != UNIX and parse_client(text) is None:
            raise ValidationError("expected an address such as 192.0.2.7, or unix:")

    def validate_size(self, field: StringField) -> None:
        try:
            _octets(field.data or "0")
        except InvalidValue as error:
            raise ValidationError(str(error)) from None

    def validate_at(self, field: StringField) -> None:
        if field.data and _moment(field.data) is None:
            raise ValidationError('expected a date and time with its zone, e.g. "2026-12-01T22:30:00Z"')

    def question(self) -> Question:
        """What was asked, once it is valid."""
        given: dict[str, Any] = {
            name: _text(self[name].data)
            for name in ("user", "login", "plan", "method", "helo", "sender", "rcpt", "listener")
        }
        if given["sender"] == "<>":
            given["sender"] = ""
        return Question(
            ip=str(self.ip.data).strip(),
            size=None if not self.size.data else _octets(self.size.data),
            tls={"yes": True, "no": False}.get(self.tls.data),
            recipients=self.recipients.data or 0,
            messages=self.messages.data or 0,
            **given,
        )

    def time(self, now: float) -> float:
        """Unix seconds."""
        moment = _moment(self.at.data) if self.at.data else None
        return now if moment is None else moment.timestamp()


def _text(value: str | None) -> str | None:
    return value.strip() if value and value.strip() else None


def _octets(text: str) -> int:
    text = text.strip()
    return parse_size(int(text) if text.isdecimal() and text.isascii() else text)


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo is not None and moment.year in YEARS else None
