"""Check URLs that hold a password, without ever quoting them."""

from __future__ import annotations

import re


def find_authority(url: str) -> str:
    """Return the part between `//` and the path. It can list several hosts, which `urllib` does not split."""
    return re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]


def require_encoded_password(url: str) -> None:
    """Raise `ValueError` if a reserved character of the password cuts the URL short (RFC 3986, section 3.2)."""
    authority = find_authority(url)
    before_query, _, query = url.partition("://")[2].partition("?")
    path, names = before_query[len(authority) :], [part.partition("=")[0] for part in query.split("&")]
    is_cut = ("@" not in authority and "@" in url) or "@" in path or any("@" in name for name in names)
    if is_cut or "#" in url or authority.count("@") > 1:
        raise ValueError(
            "percent-encode reserved characters in the password of a URL, for example # as %23, / as %2F and @ as %40"
        )
