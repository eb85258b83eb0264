"""One recogniser for each kind of personal data that has a shape: text in, findings out.

Knows the shapes and asks libraries for what they know: checksums and IBAN lengths (python-stdnum),
numbering plans (phonenumbers), addresses (ipaddress). Knows nothing about keys and tokens
(`credentials`), nor about overlaps between kinds (`redaction`).

Not presidio-analyzer (2.2.366): its patterns take a Chinese character for part of the word, so
they miss cards and addresses beside one; its e-mail rule fetches the public suffix list at run
time; and it brings spaCy, for patterns that need none. Its phone rule is phonenumbers, as here.

Rules every pattern keeps:
- No pattern, nor its evidence around, reaches over "<" or ">" (`Redactor.find` relies on it).
- Patterns are ASCII, so a Chinese character beside a number is a boundary like a space is.
- Every repetition is bounded, and no two neighbours can match the same character, so the time is
  linear in the text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from datetime import date
from functools import lru_cache

import phonenumbers
from stdnum import luhn, numdb
from stdnum.cn import ric
from stdnum.iso7064 import mod_97_10

from feedback_store.privacy.findings import Finding, Recognizer

# Not in the middle of a word or a number, nor behind a decimal point.
_START = r"(?<![A-Za-z0-9])(?<!\d[.])"
_STOP = r"(?![A-Za-z0-9])(?![.]\d)"


def _compiled(pattern: str, flags: int = 0) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII | re.VERBOSE | flags)


# The local part is at most 64 characters, a label 63 (RFC 5321 4.5.3.1, RFC 1035 2.3.4). A bracket
# behind it makes it code: in `a@b.dot(c)` the sign multiplies matrices.
_EMAIL = _compiled(
    r"""(?<![A-Za-z0-9]) \w [\w%+'-]{0,63} (?:[.][\w%+'-]{1,63}){0,8}
    @ (?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})[.]){1,8} [A-Za-z]{2,24}+ (?![A-Za-z0-9([])"""
)


_URL_USER = _compiled(r"//[^\s/:@<>]{0,64}:$")
_URL_WINDOW = 67


def find_emails(text: str) -> Iterator[Finding]:
    """Addresses with a dot in the domain, example.com too; not `//user:password@host.com`."""
    for match in _EMAIL.finditer(text) if "@" in text else ():
        if not _URL_USER.search(text[max(0, match.start() - _URL_WINDOW) : match.start()]):
            yield Finding("EMAIL", match.start(), match.end(), 0.95)


# Issuer prefixes and lengths after ISO/IEC 7812 registrations as the schemes publish them. Visa's
# old 13 digits are left out: no such card is valid any more, and barcodes look like them.
_CARD_ISSUER = _compiled(
    r"""4\d{15}(?:\d{3})? | (?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}
    | 3[47]\d{13} | 3(?:0[0-5]|[689]\d)\d{11} | (?:6(?:011|4[4-9]\d|5\d\d|2\d\d)|35\d\d)\d{12,15}"""
)
# Looked for at each digit, overlapping: a number may stand before the card's own first group.
_CARD = _compiled(
    rf"""{_START} (?=(
        \d{{14,19}} | \d{{4}}([ -])\d{{4}}\2\d{{4}}\2\d{{4}}(?:\2\d{{1,3}})?
        | \d{{4}}([ -])\d{{6}}\3\d{{4,5}}
    ){_STOP})"""
)


def find_cards(text: str) -> Iterator[Finding]:
    """Payment cards: an issuer's prefix, its length and the Luhn digit, in the usual groups."""
    for match in _CARD.finditer(text):
        number = re.sub("[ -]", "", match[1])
        if _CARD_ISSUER.fullmatch(number) and luhn.is_valid(number):
            yield Finding("CARD", match.start(1), match.end(1), 0.9)


_END = re.compile(_STOP)
_IBAN = _compiled(rf"{_START} [A-Z]{{2}}\d{{2}}(?=[ ]?[A-Z0-9]{{3}})")


@lru_cache(maxsize=1024)
def _iban_length(country: str) -> int:
    """Characters in all, 0 for a country without IBANs; from the registry stdnum carries."""
    structure: str = numdb.get("iban").info(country)[0][1].get("bban", "")
    account = sum(int(count) for count in re.findall(r"(\d+)!", structure))
    return 4 + account if account else 0


def find_ibans(text: str) -> Iterator[Finding]:
    """IBANs whose check digits hold, in one piece or in groups of four (ISO 13616)."""
    for match in _IBAN.finditer(text):
        length = _iban_length(match[0][:2])
        for size in (length, length + (length - 1) // 4) if length else ():
            end = match.start() + size
            number = text[match.start() : end].replace(" ", "")
            whole = len(number) == length and end <= len(text) and _END.match(text, end)
            if whole and _is_iban(number):
                yield Finding("IBAN", match.start(), end, 1.0)


def _is_iban(number: str) -> bool:
    upright = number.isascii() and number.isalnum() and number.isupper()
    return upright and mod_97_10.is_valid(number[4:] + number[:4])


# A version, not an address: "v1.2.3.4", `"version": "1.2.3.4"`, "pkg==1.2.3.4", "Agent/1.2.3.4".
_VERSION_BEFORE = _compiled(
    r"""(?: (?:\bv(?:er(?:sion)?)?[.]?|\brelease|\bbuild|\bsection|版本号?)
        ["']? [ ]? (?:[:=][ ]?["']?|is[ ]|是)? | [=~!<>^]=[ ]? | [A-Za-z_][/-] )$""",
    re.IGNORECASE,
)
_VERSION_AFTER = _compiled(r"[.-]?(?:tar|zip|whl|dev|post|rc\d|alpha|beta)")
_VERSION_WINDOW = 20
_IPV4 = _compiled(rf"(?<![\w])(?<!\w[.]) (\d{{1,3}})[.](?:\d{{1,3}}[.]){{2}}\d{{1,3}} {_STOP}")
_DOTTED = _compiled(r"\d[.]\d{1,3}[.]\d")
_IPV6 = _compiled(
    r"""(?<![\w.])(?<![0-9A-Fa-f:]:) (?=[0-9A-Fa-f]{4}:|::[Ff]{4}:)
    [0-9A-Fa-f:]{6,39} (?:[.]\d{1,3}){0,3} (?!\w|:[\w:])"""
)
_IPV6_USED = tuple(
    map(ipaddress.IPv6Network, ("2000::/3", "fc00::/7", "fe80::/10", "::ffff:0:0/96"))
)


def find_ips(text: str) -> Iterator[Finding]:
    """IPv4 and IPv6 addresses, private and documentation ranges among them.

    Left alone, as they point at nobody: this host (0.0.0.0/8), loopback, multicast, netmasks and
    broadcast (224.0.0.0 and above). Of IPv6 only the blocks in use are taken (global, unique
    local, link-local, mapped IPv4): `1::2` is a slice in Python, `::1` is loopback.
    """
    for match in _IPV4.finditer(text) if _DOTTED.search(text) else ():
        before = text[max(0, match.start() - _VERSION_WINDOW) : match.start()]
        version = _VERSION_BEFORE.search(before) or _VERSION_AFTER.match(text, match.end())
        if 0 < int(match[1]) < 224 and match[1] != "127" and not version and _is_ip(match[0]):
            yield Finding("IP", match.start(), match.end(), 0.9)
    for match in _IPV6.finditer(text) if ":" in text else ():
        for written in (match[0], match[0].removesuffix(":")):
            if _is_ip(written) and any(ipaddress.ip_address(written) in n for n in _IPV6_USED):
                yield Finding("IP", match.start(), match.start() + len(written), 0.9)
                break


def _is_ip(written: str) -> bool:
    try:
        ipaddress.ip_address(written)
    except ValueError:
        return False
    return True


_CN_ID = _compiled(rf"{_START} [1-8]\d{{5}}([ -]?)(?:19|20)\d{{6}}\1\d{{3}}[\dXx] {_STOP}")


def find_chinese_ids(text: str) -> Iterator[Finding]:
    """Resident identity numbers of 18 characters: a birth date and the digit of GB 11643-1999.

    The county code is not looked up: counties come and go. The old 15 digits have no check digit
    and are left alone.
    """
    for match in _CN_ID.finditer(text):
        number = re.sub("[ -]", "", match[0]).upper()
        if number[-1] == ric.calc_check_digit(number) and _is_date(number[6:14]):
            yield Finding("CN_ID", match.start(), match.end(), 1.0)


def _is_date(eight_digits: str) -> bool:
    try:
        date.fromisoformat(eight_digits)
    except ValueError:
        return False
    return True


# Behind a currency sign or a minus, or ending in six zeros, eleven digits are an amount.
_CN_MOBILE = _compiled(
    rf"""(?:[+]86[ -]?|[(][+]?86[)][ -]?|{_START}(?<![$€£¥])(?<![\s=(]-)(?:(?:00)?86[ -]?)?)
    1[3-9]\d (?!\d*0{{6}}\b) (?:([ -]?)\d{{4}}\1\d{{4}} | \d[ -]\d{{3}}[ -]\d{{4}}) {_STOP}"""
)


def find_chinese_mobiles(text: str) -> Iterator[Finding]:
    """Mainland mobile numbers, with or without +86, in one piece or in the usual groups."""
    for match in _CN_MOBILE.finditer(text):
        yield Finding("CN_MOBILE", match.start(), match.end(), 0.85)


_GROUPS = r"(?:[ .()/-]{0,2}\d)"
_NO_FRACTION = r"(?<![.]\d{3}[ ])"  # "1.519 829 846 0570" is one number in groups of three
_INTERNATIONAL = _compiled(
    rf"(?:[+]|{_START}(?<!-){_NO_FRACTION}00(?=\d{{1,3}}[ -])) \d{_GROUPS}{{6,14}} (?![A-Za-z0-9])"
)
_NORTH_AMERICAN = _compiled(
    rf"""(?:{_START}(?:1[.])?[2-9]\d\d[.]\d{{3}}[.] | [(][2-9]\d\d[)][ -]?\d{{3}}[ -]
    | {_START}{_NO_FRACTION}(?:1[ -])?(?:[2-9]\d\d[ -]|[(][2-9]\d\d[)][ -]?)\d{{3}}[ -])
    \d{{4}} {_STOP}(?!-\d)"""
)
_CHINESE_LANDLINE = _compiled(
    rf"(?:[(]0\d{{2,3}}[)][ -]?|{_START}0\d{{2,3}}[ -]) [2-8]\d{{6,7}} {_STOP}(?!-\d{{6}})"
)
# With the word before it, any country's own way of writing will do.
_AFTER_WORD = _compiled(
    rf"""(?:\b(?:tele)?phone|\btel|\bmobile|\bcell|\bwhatsapp|\bfax|\b(?:call|text)[ ](?:me|us)
        |电话|手机|座机|热线|传真)
    (?:[ _-]?(?:number|num|no[.]?)|号码?)? ["']?[ ]?(?:at|on|is|是|为)?[ ]?[:=]{{0,2}}[ ]?["']?
    ([+(]?\d{_GROUPS}{{6,14}}) (?!\d)""",
    re.IGNORECASE,
)
_NOT_A_PHONE = _compiled(r"[+]?(?:\d+[.]\d+|\d{4}-\d\d-\d\d)")  # a decimal, a date


def find_phones(text: str) -> Iterator[Finding]:
    """Phone numbers: international, North American, Chinese landlines, or behind a word for one.

    A country's own form without that word is left alone, as are 10 bare digits: code is full of
    them. `phonenumbers` decides what its plans allow. Behind a plus sign the length is enough:
    new ranges open faster than libraries are updated.
    """
    yield from _international(text)
    for pattern, region in ((_NORTH_AMERICAN, "US"), (_CHINESE_LANDLINE, "CN")):
        for match in pattern.finditer(text):
            number = _parsed(match[0], region)
            if number and phonenumbers.is_valid_number(number):
                yield Finding("PHONE", match.start(), match.end(), 0.8)
    for match in _AFTER_WORD.finditer(text):
        if not _NOT_A_PHONE.fullmatch(match[1]):
            yield Finding("PHONE", match.start(1), match.end(1), 0.6)


_ADDS = _compiled(r"[A-Za-z0-9][+]")


def _international(text: str) -> Iterator[Finding]:
    end = 0
    for match in _INTERNATIONAL.finditer(text):
        # A plus behind a letter or a digit adds, unless what it is behind is a number found.
        adds = _ADDS.match(text, match.start() - 1) and match.start() != end
        size = 0 if adds else _size_of_number(match[0])
        if size:
            end = match.start() + size
            yield Finding("PHONE", match.start(), end, 0.8)


def _size_of_number(written: str) -> int:
    """The length of the first number, 0 if there is none: another one may stand behind."""
    for _ in range(3):
        number = _parsed("+" + written.removeprefix("+").removeprefix("00"), None)
        plan = phonenumbers.is_possible_number if "+" in written else phonenumbers.is_valid_number
        if number and plan(number) and not _NOT_A_PHONE.fullmatch(written):
            return len(written)
        written = re.sub(r"[ .()/-]+\d+$", "", written)
    return 0


def _parsed(written: str, region: str | None) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(written, region)
    except phonenumbers.NumberParseException:
        return None


_SEVEN_DIGITS = _compiled(rf"\d{_GROUPS}{{6}}")


def find_numbers(text: str) -> Iterator[Finding]:
    """The kinds made of digits alone; most texts hold no seven digits in a row, which is quick."""
    if _SEVEN_DIGITS.search(text):
        yield from find_cards(text)
        yield from find_chinese_ids(text)
        yield from find_chinese_mobiles(text)
        yield from find_phones(text)


PERSONAL_RECOGNIZERS: tuple[Recognizer, ...] = (find_emails, find_ibans, find_ips, find_numbers)
