"""Where the platform is and who calls, checked where they come in: gRPC says nothing useful of either."""

from __future__ import annotations

from urllib.parse import urlsplit

from penstock.errors import InvalidArgument


def split_url(url: str) -> tuple[str, str]:
    """The scheme and `host:port` of a platform's URL; raises InvalidArgument for what is none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise InvalidArgument(f"'{url}' is not a URL like http://127.0.0.1:8420: {error}.", field="url") from None
    if parts.scheme not in ("http", "https") or not host or not host.isascii():
        raise InvalidArgument(f"'{url}' is not a URL like http://127.0.0.1:8420.", field="url")
    return parts.scheme, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_token(token: str) -> str:
    """Accept what can be sent as a token; raises InvalidArgument."""
    if not all("!" <= character <= "~" for character in token):
        raise InvalidArgument(
            "The token holds a line end, a space or something else that no token has: copy it again.", field="token"
        )
    return token
