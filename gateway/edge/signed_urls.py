"""URLs of files that open without a key, for a while: signed over whose file it is, which, and until when."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Final
from urllib.parse import urlencode

from itsdangerous import Signer

from gateway.edge.query import Query, read_text
from gateway.errors import BadRequest, SignatureInvalid, UrlExpired

PARAMETERS: Final = ("expires", "signature")
_SALT: Final = b"gateway.file"
_EXPIRES_CHARS: Final = 15
_SIGNATURE_CHARS: Final = 256


def sign_file(tenant: str, file_id: str, secret: bytes, *, expires_s: int) -> str:
    """Return the query that opens a file until `expires_s`, in Unix seconds."""
    owner = urlsafe_b64encode(tenant.encode()).rstrip(b"=").decode()
    made = _signer(secret).get_signature(_text(owner, file_id, str(expires_s))).decode()
    return urlencode({"expires": str(expires_s), "signature": f"{owner}.{made}"})


def verify_file(file_id: str, query: Query, secret: bytes, *, now_ms: int) -> str:
    """Return the tenant whose file the query opens.

    Raises:
        SignatureInvalid: it was not signed here, or not so.
        UrlExpired: it was, and its time is over.
    """
    expires, owner, made = _read(query)
    if not _signer(secret).verify_signature(_text(owner, file_id, expires), made.encode()):
        raise _invalid()
    if int(expires) * 1000 <= now_ms:
        raise UrlExpired("This URL has expired; ask for the file again to get a new one.", expired_at_s=int(expires))
    return urlsafe_b64decode(owner + "=" * (-len(owner) % 4)).decode()


def _read(query: Query) -> tuple[str, str, str]:
    try:
        expires = read_text(query, "expires", max_chars=_EXPIRES_CHARS) or ""
        signature = read_text(query, "signature", max_chars=_SIGNATURE_CHARS) or ""
    except BadRequest:
        raise _invalid() from None
    owner, _, made = signature.rpartition(".")
    if set(query) != set(PARAMETERS) or not (expires.isascii() and expires.isdecimal()) or not signature.isascii():
        raise _invalid()
    return expires, owner, made


def _text(owner: str, file_id: str, expires: str) -> bytes:
    # None of them can hold a line break, so that no other three run together to the same text.
    return "\n".join((owner, file_id, expires)).encode()


def _signer(secret: bytes) -> Signer:
    return Signer(secret, salt=_SALT, key_derivation="hmac", digest_method=sha256)


def _invalid() -> SignatureInvalid:
    return SignatureInvalid("This URL was not signed by this gateway, or was changed since.")
