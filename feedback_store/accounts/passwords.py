"""Passwords, hashed with argon2id, and the secrets that links, sessions and keys are made of.

A secret is random and long, so one round of SHA-256 hides it; a password is neither, so guessing
one must cost memory and time. Knows no accounts.
"""

from __future__ import annotations

import functools
import hashlib
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from engine.errors import InvalidInput

MIN_PASSWORD_CHARS = 12
MAX_PASSWORD_CHARS = 1_000
_hasher = PasswordHasher()  # RFC 9106, the second recommended option: argon2id, 64 MiB


@functools.cache
def _nobodys_hash() -> str:
    """The hash of a password that nobody has; to make one takes as long as to verify one."""
    return _hasher.hash(secrets.token_hex())


def hash_password(password: str) -> str:
    """Return the hash to store; raises `InvalidInput` for a password that is too short."""
    if not MIN_PASSWORD_CHARS <= len(password) <= MAX_PASSWORD_CHARS:
        raise InvalidInput(f"a password has {MIN_PASSWORD_CHARS} characters or more")
    return _hasher.hash(password)


def is_password(password: str, stored: str | None) -> bool:
    """Return whether a password fits a stored hash; without one it takes as long and never fits."""
    nobodys = _nobodys_hash()  # made at the first call, whether or not there is a stored one
    try:
        fits = _hasher.verify(stored or nobodys, password[:MAX_PASSWORD_CHARS])
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False
    return fits and stored is not None


def new_secret() -> str:
    """Return 256 random bits as text for URLs and headers."""
    return secrets.token_urlsafe(32)


def secret_digest(secret: str) -> str:
    """Return what is stored of a secret, by which it is found again."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
