"""Variables of the environment that change how a client connects: proxies and certificates.

They are checked before the first request, because the HTTP client reads all of them at once and its
errors name none.
"""

import ipaddress
import os
import re
import ssl
from importlib.util import find_spec
from urllib.parse import urlsplit

from bridgekd.errors import InputError
from bridgekd.messages import format_value, mask_credentials
from bridgekd.recipe import is_loopback

PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}")


def check_environment(base_url: str) -> None:
    """Raise InputError for a proxy or certificate variable that a client of `base_url` cannot use.

    A server on this machine is reached without these variables.
    """
    if is_loopback(urlsplit(base_url).hostname or ""):
        return
    bypassed = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    if "*" not in (host.strip() for host in bypassed.split(",")):
        for kind in ("all", "https", "http"):
            # The lower-case name has precedence, also if it is empty.
            name = next(
                (n for n in (f"{kind}_proxy", f"{kind.upper()}_PROXY") if n in os.environ), ""
            )
            if value := os.environ.get(name, ""):
                _check_proxy(name, value)
    _check_certificates()


def _check_proxy(name: str, value: str) -> None:
    problem = _find_proxy_problem(value if "://" in value else f"http://{value}")
    if problem is not None:
        shown = format_value(mask_credentials(value))
        raise InputError(
            f"The environment variable {name} is {shown}: {problem}. "
            "Correct it, or unset it to connect without a proxy."
        )


def _find_proxy_problem(url: str) -> str | None:
    """Return why no client can use a proxy; None for a valid address."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
        if ":" in host:
            ipaddress.IPv6Address(host)
        elif not _HOST.fullmatch(host) or port == 0 or not url.isprintable():
            return "host or port is invalid"
        host.encode("idna")  # as the resolver does; it limits the length of a part
    except ValueError:
        return "host or port is invalid"
    if parts.scheme not in PROXY_SCHEMES:
        return (
            f"a proxy's address starts with {', '.join(PROXY_SCHEMES[:-1])} or {PROXY_SCHEMES[-1]}"
        )
    if parts.scheme.startswith("socks") and find_spec("socksio") is None:
        return (
            "a SOCKS proxy needs the package socksio, which is not installed (pip install socksio)"
        )
    return None


def _check_certificates() -> None:
    # Of the two, the client reads the first one that is set.
    name = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
    value = os.environ.get(name, "")
    if not value:
        return
    if name == "SSL_CERT_DIR":
        problem = None if os.path.isdir(value) else "there is no such folder"
    else:
        problem = _find_certificate_problem(value)
    if problem is not None:
        raise InputError(
            f"The environment variable {name} is {format_value(value)}: {problem}. Correct it, or "
            "unset it to use the certificates of this machine."
        )


def _find_certificate_problem(path: str) -> str | None:
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        return "the file has no certificates in PEM format"
    except (OSError, ValueError) as exc:
        return getattr(exc, "strerror", None) or str(exc)
    return None
