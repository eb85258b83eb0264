"""Made-up personal data with checksums that hold, each put in the kind of text it turns up in.

Everything comes from a seed. The check digits are worked out here from their definitions, by hand,
so that the recognisers' library is tested against something other than itself. Where a range is
set aside for fiction or documentation (example.com, 555-01xx, 192.0.2.0/24) it is used.
"""

from __future__ import annotations

import base64
import ipaddress
import string
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random

PER_KIND = 25
ALPHANUMERIC = string.ascii_letters + string.digits
BASE64URL = ALPHANUMERIC + "-_"

CONTEXTS = (
    "Please write it down: @@, and answer before Friday.",
    "You can reach me at @@ (evenings only).",
    "My details are @@.",
    "@@ is what the form asked for",
    "请记下@@谢谢",
    "我的是@@，请尽快回复。",
    "资料：@@。",
    "联系（@@）",
    'value = "@@"  # TODO: not in the code',
    "// remove @@ before the release",
    "def f():\n    # ask @@ about this\n    return 1",
    '{"name": "Ann", "value": "@@", "n": 3}',
    "{'items': ['@@', 'b']}",
    "first line\n@@\nlast line",
    "@@\nand more text",
    "the last word is\t@@",
    "<td>@@</td>",
    "| Ann | @@ | 2024-05-01 |",
)


@dataclass(frozen=True)
class Item:
    """One planted item: `text[begin:end]` is `value`, and is of this kind."""

    kind: str
    value: str
    text: str
    begin: int

    @property
    def end(self) -> int:
        return self.begin + len(self.value)

    def replaced(self) -> str:
        return f"{self.text[: self.begin]}<{self.kind}>{self.text[self.end :]}"


def digits(random: Random, count: int) -> str:
    return "".join(random.choice(string.digits) for _ in range(count))


def letters(random: Random, count: int, alphabet: str = ALPHANUMERIC) -> str:
    return "".join(random.choice(alphabet) for _ in range(count))


def grouped(number: str, sizes: tuple[int, ...], separator: str) -> str:
    parts, at = [], 0
    for size in sizes:
        parts.append(number[at : at + size])
        at += size
    return separator.join([*parts, number[at:]] if at < len(number) else parts)


# One maker for each kind


def email(random: Random) -> str:
    names = ("ann", "bo.lee", "c_wang", "d-ito", "eve+news", "f.o'hara", "g%h", "zhang.wei88", "X")
    domains = ("example.com", "mail.example.org", "example.co.uk", "a-b.example.net", "shop.test")
    return f"{random.choice(names)}{random.randint(0, 99)}@{random.choice(domains)}"


def luhn_digit(body: str) -> str:
    """From the right, every second digit is doubled and its digits added (ISO/IEC 7812-1)."""
    doubled = (int(d) * (2 if i % 2 == 0 else 1) for i, d in enumerate(reversed(body)))
    return str(-sum(d // 10 + d % 10 for d in doubled) % 10)


def card(random: Random) -> str:
    prefix, length = random.choice(
        [
            ("4", 16),
            ("51", 16),
            ("55", 16),
            ("2221", 16),
            ("34", 15),
            ("37", 15),
            ("6011", 16),
            ("65", 16),
            ("62", 16),
            ("62", 19),
            ("3528", 16),
            ("36", 14),
            ("301", 14),
        ]
    )
    body = prefix + digits(random, length - 1 - len(prefix))
    number = body + luhn_digit(body)
    sizes = (4, 4, 4, 4) if length >= 16 else (4, 6)
    return random.choice([number, grouped(number, sizes, " "), grouped(number, sizes, "-")])


def iban(random: Random) -> str:
    country, structure = random.choice(
        [
            ("DE", "n" * 18),
            ("GB", "aaaa" + "n" * 14),
            ("FR", "n" * 10 + "c" * 11 + "nn"),
            ("NL", "aaaa" + "n" * 10),
            ("ES", "n" * 20),
            ("IT", "a" + "n" * 10 + "c" * 12),
            ("CH", "n" * 5 + "c" * 12),
            ("NO", "n" * 11),
            ("SE", "n" * 20),
            ("PL", "n" * 24),
        ]
    )
    classes = {
        "n": string.digits,
        "a": string.ascii_uppercase,
        "c": string.ascii_uppercase + string.digits,
    }
    account = "".join(random.choice(classes[letter]) for letter in structure)
    # ISO 13616: letters count from A = 10; the whole, country and check last, is 1 modulo 97.
    as_number = "".join(str(int(c, 36)) for c in f"{account}{country}00")
    number = f"{country}{98 - int(as_number) % 97:02}{account}"
    return random.choice([number, grouped(number, (4,) * (len(number) // 4), " ")])


def ip(random: Random) -> str:
    octets = [random.randint(1, 254) for _ in range(3)]
    v4 = random.choice(
        [
            "192.0.2.{}",
            "198.51.100.{}",
            "203.0.113.{}",
            "10.{}.{}.{}",
            "192.168.{1}.{2}",
            "8.{}.{}.{}",
        ]
    ).format(*octets)
    v6 = ipaddress.IPv6Address(f"2001:db8::{random.getrandbits(16):x}:{random.getrandbits(16):x}")
    full = ipaddress.IPv6Address((0x2001 << 112) + random.getrandbits(112))
    return random.choice(
        [v4, v4, v4, str(v6), v6.exploded, full.exploded.upper(), f"fe80::{octets[0]:x}"]
    )


def chinese_id(random: Random) -> str:
    place = random.choice(["110101", "310104", "440305", "510107", "330106", "650102", "820000"])
    born = date(1945, 1, 1) + timedelta(days=random.randrange(65 * 365))
    body = f"{place}{born:%Y%m%d}{digits(random, 3)}"
    # GB 11643-1999: the weights are 2 to the power of the place, modulo 11; 10 is written X.
    weighted = sum(int(d) * (2 ** (17 - i) % 11) for i, d in enumerate(body))
    number = body + "10X98765432"[weighted % 11]
    return random.choice([number, number, number.lower(), grouped(number, (6, 8), " ")])


def chinese_mobile(random: Random) -> str:
    number = f"1{random.randint(3, 9)}{digits(random, 8)}{random.randint(1, 9)}"
    spaced = grouped(number, (3, 4), random.choice(" -"))
    return random.choice([number, number, spaced, f"+86 {number}", f"+86{number}", f"86-{number}"])


def phone(random: Random) -> str:
    area = random.choice(["212", "415", "617", "303", "206", "312", "713"])
    line = f"{random.choice(['555', '234', '867'])}{{}}01{digits(random, 2)}"
    forms = [
        f"({area}) {line.format('-')}",
        f"{area}-{line.format('-')}",
        f"{area}.{line.format('.')}",
        f"+1 {area} {line.format(' ')}",
        f"+1 ({area}) {line.format('-')}",
        f"1-{area}-{line.format('-')}",
        f"+1{area}{line.format('')}",
        f"+44 7700 900{digits(random, 3)}",
        f"+44 (0)20 7946 0{digits(random, 3)}",
        f"+4930231251{digits(random, 2)}",
        f"+49 171 39200{digits(random, 2)}",
        f"+33 6 39 98 {digits(random, 2)} {digits(random, 2)}",
        f"+61 491 570 {digits(random, 3)}",
        f"+81-90-1234-{digits(random, 4)}",
        f"+91 98765 4{digits(random, 4)}",
        f"+852 5123 4{digits(random, 3)}",
        f"+86 10 6552 {digits(random, 4)}",
        f"010-6552{digits(random, 4)}",
        f"0755-2699{digits(random, 4)}",
    ]
    return random.choice(forms)


def jwt(random: Random) -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}')
    body = base64.urlsafe_b64encode(f'{{"sub":"{random.getrandbits(40)}"}}'.encode())
    parts = [part.decode().rstrip("=") for part in (head, body)]
    return ".".join([*parts, letters(random, 43, BASE64URL)])


def pem(random: Random) -> str:
    name = random.choice(["RSA PRIVATE KEY", "PRIVATE KEY", "OPENSSH PRIVATE KEY"])
    body = "\n".join(letters(random, 64) for _ in range(4))
    return f"-----BEGIN {name}-----\n{body}\n-----END {name}-----"


TOKENS: tuple[Callable[[Random], str], ...] = (
    lambda r: "AKIA" + letters(r, 16, string.ascii_uppercase + string.digits),
    lambda r: "ghp_" + letters(r, 36),
    lambda r: f"github_pat_{letters(r, 22)}_{letters(r, 59)}",
    lambda r: "sk-" + letters(r, 48),
    lambda r: "sk-proj-" + letters(r, 60, ALPHANUMERIC),
    lambda r: f"xoxb-{digits(r, 12)}-{digits(r, 12)}-{letters(r, 24)}",
    lambda r: "hf_" + letters(r, 34, string.ascii_letters),
    jwt,
    pem,
)
ASSIGNED = (
    "password=@@",
    'api_key: "@@"',
    "Authorization: Bearer @@",
    'DB_PASSWORD = "@@"',
    '{"client_secret": "@@", "n": 1}',
    "密码：@@，别告诉别人",
    "My password is @@ and it expires",
    "postgresql://ann:@@@db.example.com:5432/shop",
    "export AWS_SECRET_ACCESS_KEY=@@\n",
)


def password(random: Random) -> str:
    """Random, with at least one letter and one digit, as a generator of passwords gives it."""
    return letters(random, 1, string.ascii_letters) + letters(random, 18) + digits(random, 1)


def planted(kind: str, value: str, context: str) -> Item:
    return Item(kind, value, context.replace("@@", value, 1), context.index("@@"))


def secret(random: Random) -> Item:
    if random.random() < 0.5:
        return planted("SECRET", random.choice(TOKENS)(random), random.choice(CONTEXTS))
    return planted("SECRET", password(random), random.choice(ASSIGNED))


MAKERS: dict[str, Callable[[Random], str]] = {
    "EMAIL": email,
    "PHONE": phone,
    "CARD": card,
    "IBAN": iban,
    "IP": ip,
    "CN_ID": chinese_id,
    "CN_MOBILE": chinese_mobile,
}


def synthetic_items(seed: int) -> list[Item]:
    """200 items, 25 of each of the 8 kinds; the same seed gives the same items."""
    random = Random(seed)
    items = [
        planted(kind, make(random), random.choice(CONTEXTS))
        for kind, make in MAKERS.items()
        for _ in range(PER_KIND)
    ]
    return items + [secret(random) for _ in range(PER_KIND)]
