"""Check URLs that hold a password, without ever quoting them."""

from __future__ import annotations

from urllib.parse import urlsplit


def require_encoded_password(url: str) -> None:
    """Raise `ValueError` if a reserved character of the password cuts the URL short (RFC 3986, section 3.2)."""
    parts = urlsplit(url)
    is_cut = "@" not in parts.netloc and "@" in url
    if is_cut or parts.fragment or parts.netloc.count("@") > 1:
        raise ValueError(
            "percent-encode reserved characters in the password of a URL, for example # as %23, / as %2F and @ as %40"
        )
