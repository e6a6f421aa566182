"""SpamAssassin's public corpus: mails that are spam, and mails that are not.

Comes in: mails with all headers, in whatever encoding. Goes out: `Mail`s, their subject and body only.
"""

from __future__ import annotations

import email
import email.errors
import email.header
import email.message
import hashlib
import html
import os
import re
from typing import NamedTuple

from flowgraph.datasets.cache import read
from flowgraph.datasets.catalogue import SPAM
from flowgraph.datasets.dataset import DatasetError
from flowgraph.datasets.packed import unpack

KINDS = {"easy-ham-1": False, "easy-ham-2": False, "hard-ham-1": False, "spam-1": True, "spam-2": True}
ONE_IN = 5  # for testing


class Mail(NamedTuple):
    """`subject` and `body`, decoded, HTML's tags taken off; `spam`; `name` in the corpus, as 'spam-1/0001….txt'."""

    subject: str
    body: str
    spam: bool
    name: str


def load_spam(folder: str | os.PathLike[str] | None = None) -> tuple[tuple[Mail, ...], tuple[Mail, ...]]:
    """(train, test): 6,046 mails, about a fifth of them for testing.

    1,524 of 4,827 and 372 of 1,219 are spam; 20 have no text.
    Headers but the subject are left out, because they tell the collection a mail came from. On which side a mail is
    depends on its body alone, so mails of equal bodies (white space aside) are on the same side.
    """
    mails = [parse_mail(content, name) for name, content in unpack(read(SPAM, "spam.tar", folder), "spam.tar").items()]
    return split_mails(mails)


def split_mails(mails: list[Mail]) -> tuple[tuple[Mail, ...], tuple[Mail, ...]]:
    """(train, test): a hash of the body decides."""
    sides: tuple[list[Mail], list[Mail]] = ([], [])
    for mail in mails:
        digest = hashlib.sha256(" ".join(mail.body.split()).encode()).digest()
        sides[int.from_bytes(digest[:8], "big") % ONE_IN == 0].append(mail)
    return tuple(sides[0]), tuple(sides[1])


def parse_mail(data: bytes, name: str) -> Mail:
    """One mail; `name` is its kind and its file, as in the corpus."""
    kind = name.partition("/")[0]
    if kind not in KINDS:
        raise DatasetError(f"a mail in none of the folders {', '.join(KINDS)}", where=name)
    message = email.message_from_bytes(data)
    texts = [part for part in message.walk() if part.get_content_type() == "text/plain"]
    marked = [part for part in message.walk() if part.get_content_type() == "text/html"]
    if texts:
        body = "\n".join(map(_text, texts))
    else:
        body = "\n".join(_without_tags(_text(part)) for part in marked)
    return Mail(_subject(message), body.strip(), KINDS[kind], name)


def _text(part: email.message.Message) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):  # a multipart mail that calls itself text
        return ""
    return _decoded(payload, part.get_content_charset())


def _decoded(data: bytes, charset: str | None) -> str:
    """By the charset the mail names; by Latin-1, which has a character for every byte, where that does not fit."""
    try:
        text = data.decode(charset or "ascii")
    except (LookupError, UnicodeDecodeError, ValueError):
        text = data.decode("latin-1")
    return text.replace("\r\n", "\n")


def _subject(message: email.message.Message) -> str:
    raw = message.get("Subject", "")
    try:
        pieces = email.header.decode_header(raw)
    except email.errors.HeaderParseError:
        pieces = [(str(raw), None)]
    text = "".join(piece if isinstance(piece, str) else _decoded(piece, charset) for piece, charset in pieces)
    return " ".join(text.split())


def _without_tags(text: str) -> str:
    unseen = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>|<!--.*?-->", " ", text)
    return html.unescape(re.sub(r"(?s)<[^>]*>", " ", unseen))
