"""Keys, tokens and passwords in a text.

Knows the prefixes that vendors give their tokens, and the words that stand before a secret. Knows
nothing about whether a secret still works: nobody is asked.

Own patterns, not detect-secrets (1.5.0): its plugins yield values without places, GitHub's yields
only the prefix, JWT's leaves the signature out, and fine-grained GitHub and OpenAI project tokens
are not known to it. The rules of `recognizers` hold here too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from math import log2

from feedback_store.privacy.findings import Finding, Recognizer

_FLAGS = re.ASCII | re.VERBOSE

# Formats as their vendors document them; where a length has changed over time, the shortest.
# The first string is a quick test: a text without it is not searched.
_TOKENS = {
    hint: re.compile(rf"(?<![A-Za-z0-9])(?:{pattern})(?![A-Za-z0-9])", _FLAGS)
    for hint, pattern in {
        "AKIA": r"AKIA[A-Z0-9]{16}",  # AWS access key id
        "ASIA": r"ASIA[A-Z0-9]{16}",  # AWS, temporary
        "gh": r"gh[pousr]_[A-Za-z0-9]{36,255}",  # GitHub
        "github_pat_": r"github_pat_\w{22,255}",  # GitHub, fine-grained
        "gl": r"gl(?:pat|dt|rt|ptt|soat)-[\w-]{20,255}",  # GitLab
        "xox": r"xox[abeoprs]-[A-Za-z0-9-]{10,255}",  # Slack
        "xapp-": r"xapp-\d-[A-Za-z0-9-]{10,255}",  # Slack, app level
        "k_": r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,255}",  # Stripe
        "AIza": r"AIza[\w-]{35}",  # Google
        "hf_": r"hf_[A-Za-z0-9]{30,255}",  # Hugging Face
        "npm_": r"npm_[A-Za-z0-9]{36}",  # npm
        "pypi-": r"pypi-AgE[\w-]{50,1000}",  # PyPI
        "SG.": r"SG[.][\w-]{22}[.][\w-]{43}",  # SendGrid
        ":AA": r"\d{8,10}:AA[\w-]{33}",  # Telegram
        "eyJ": r"eyJ[\w-]{8,8000}[.]eyJ[\w-]{2,8000}[.][\w-]{0,8000}",  # JWT (RFC 7519)
    }.items()
}
# sk- is also how style sheets name things ("sk-toggleable__content"), so it must look random.
_SK = re.compile(r"(?<![A-Za-z0-9]) (sk-[\w-]{20,255}+) (?![\w-])", _FLAGS)
_BEARER = re.compile(r"[Bb](?:earer|asic)[ ]{1,3}([\w.~+/-]{16,2000}={0,2})", _FLAGS)
_URL_PASSWORD = re.compile(r":// [^\s/:@<>]{0,64} : ([^\s/@<>]{3,128}) @[\w.-]", _FLAGS)
_HOLDS_SECRET = re.compile(
    r"""(?: pass(?:word|wd|phrase|code) | pwd | secret | token | credential | client[_ -]?secret
      | (?:api|access|secret|private|auth|account|signing|encryption)[_ -]?key
      | 密码 | 口令 | 密钥 | 令牌 )
    s? ["'\]]{0,2} [ \t]{0,3} (?: :=|=>|==?|: | (?P<prose>is\b|是|为) ) [ \t]{0,3}
    (?P<quote>["'`]?) (?P<value>[\w!#$%&*+,./:;=?@^|~-]{8,1024}) (?P<bracket>[(\[]?)""",
    _FLAGS | re.IGNORECASE,
)
_SECRET_HINTS = ("pass", "pwd", "secret", "token", "credential", "key", "密", "口令", "令牌")
# A block that was cut off has no end line: its lines of base64 are the secret.
_PRIVATE_KEY = re.compile(
    r"""-----BEGIN[ ] (?P<name>[A-Z0-9 ]{0,30}PRIVATE[ ]KEY(?:[ ]BLOCK)?) -----
    (?: [^<>-]{16,20000}(?:-(?!----)[^<>-]{0,20000}){0,8} -----END[ ](?P=name)-----
      | (?:(?:\s|\\[nr]){1,4}[A-Za-z0-9+/=]{16,128}){1,400} )""",
    _FLAGS,
)
_NAME = re.compile(r"[A-Za-z_]\w*(?:[./:-]{1,2}[A-Za-z_]\w*)*", _FLAGS)
_DIGIT, _LETTER = re.compile("[0-9]"), re.compile("[A-Za-z]")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")


def find_tokens(text: str) -> Iterator[Finding]:
    """Find secrets by their own form: vendors' tokens, JWTs, private keys."""
    for hint, pattern in _TOKENS.items():
        for match in pattern.finditer(text) if hint in text else ():
            yield Finding("SECRET", match.start(), match.end(), 0.95)
    for match in _SK.finditer(text):
        if _looks_random(match[1]) and not _is_name(match[1]):
            yield Finding("SECRET", match.start(), match.end(), 0.95)
    for match in _PRIVATE_KEY.finditer(text) if "PRIVATE KEY" in text else ():
        yield Finding("SECRET", match.start(), match.end(), 1.0)


def find_assigned(text: str) -> Iterator[Finding]:
    """Find secrets by their place: `password=...`, `"api_key": "..."`, `Bearer ...`, URLs.

    Only the value is found, and only one that looks random; a name or a call in code does not.
    """
    for match in _BEARER.finditer(text):
        if _looks_random(match[1]):
            yield Finding("SECRET", match.start(1), match.end(1), 0.8)
    for match in _URL_PASSWORD.finditer(text) if "://" in text else ():
        yield Finding("SECRET", match.start(1), match.end(1), 0.8)
    lower = text.lower()
    if any(hint in lower for hint in _SECRET_HINTS):
        yield from _held(text)


def _held(text: str) -> Iterator[Finding]:
    at = 0
    while match := _HOLDS_SECRET.search(text, at):
        at = match.start("value")  # what is no secret may be a word for one: "token: password: ..."
        value = match["value"].rstrip(",;.:?")
        sure = match["quote"] or match["prose"]
        if _looks_random(value) and (sure or not (match["bracket"] or _is_name(value))):
            yield Finding("SECRET", at, at + len(value), 0.7)
            at += len(value)


def _is_name(value: str) -> bool:
    """`user.password_v2` is made of words, `dRTCpKoBq7` is not: its runs are short."""
    words = _WORD.findall(value)
    return bool(_NAME.fullmatch(value)) and len("".join(words)) >= 3 * len(words)


def _looks_random(value: str) -> bool:
    """Letters with digits, and at least 2.5 bits a character in Shannon's sense, 20 in all.

    Eight different characters have 3 bits each; words of a language, and names in code with a
    number behind, mostly lack the digits or the variety. Both bounds are our own choice.
    """
    if not (_DIGIT.search(value) and _LETTER.search(value)):
        return False
    shares = [count / len(value) for count in Counter(value).values()]
    bits = -sum(share * log2(share) for share in shares)
    return bits >= 2.5 and bits * len(value) >= 20


CREDENTIAL_RECOGNIZERS: tuple[Recognizer, ...] = (find_tokens, find_assigned)
