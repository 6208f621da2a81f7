"""Who may ask: pure ASGI in front of the application, so that nothing else sees what it refuses."""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ldm_jax.web.refused import Refused

LOOPBACK = ("localhost", "127.0.0.1", "::1")
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy: nothing from other hosts, no inline scripts, in nobody's frame."""
HEADERS = {
    "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}  # fmt: skip
"""What every answer carries."""


@dataclass(frozen=True)
class Access:
    """Under which names the server is reached, and by whom."""

    hosts: Collection[str] = LOOPBACK
    """Names of hosts, without ports."""
    addresses: bool = False
    """Whether any address of numbers is right: a page of another name cannot have one."""
    auth: str | None = None
    """USER:PASSWORD that must be given."""
    token: str | None = None
    """Or a token, as a bearer's or as anybody's password."""

    def allows_host(self, host: str) -> bool:
        """Whether a Host header names this server."""
        name = _name_of(host)
        if name in {known.lower() for known in self.hosts}:
            return True
        try:
            return self.addresses and bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    def allows(self, authorization: str | None) -> bool:
        """Whether an Authorization header has what must be given."""
        if self.auth is None and self.token is None:
            return True
        kind, _, given = (authorization or "").partition(" ")
        if kind.lower() == "bearer":
            return self.token is not None and _same(given.strip(), self.token)
        if kind.lower() != "basic":
            return False
        try:
            pair = base64.b64decode(given.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return False
        by_password = self.auth is not None and _same(pair, self.auth)
        by_token = self.token is not None and _same(pair.partition(":")[2], self.token)
        return by_password or by_token


class Guard:
    """Refuses what does not come from this server's own page or a program, before it is read."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # nothing here is a WebSocket

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        refused = self._refused(scope)
        if refused is None:
            await self._app(scope, receive, guarded)
            return
        asks = {"WWW-Authenticate": 'Basic realm="ldm_jax"'} if refused.status == 401 else None
        await JSONResponse(refused.body, refused.status, asks)(scope, receive, guarded)

    def _refused(self, scope: Scope) -> Refused | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._access.allows_host(host):
            return Refused(400, (None, f"the host {host[:80]!r} is not this server's; call it by "
                                 "a name that it knows (--allow_host=NAME adds one)"))  # fmt: skip
        if not _comes_from_here(scope, headers, host):
            return Refused(403, (None, "requests of other sites' pages are refused"))
        if not self._access.allows(headers.get("authorization")):
            return Refused(401, (None, "a user's name and password, or a token, must be given"))
        return None


def _comes_from_here(scope: Scope, headers: Headers, host: str) -> bool:
    """Whether a program asks, or a page of this very server, as browsers tell it."""
    origin = headers.get("origin")
    if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
        return False
    site = headers.get("sec-fetch-site", "none")
    if site in ("none", "same-origin"):
        return True
    # A link to the page may stand anywhere.
    is_link = headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET"
    return is_link and headers.get("sec-fetch-dest") == "document" and scope["path"] == "/"


def _name_of(host: str) -> str:
    """The name in a Host header, without the port and without IPv6's brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().removesuffix(".")


def _same(given: str, wanted: str) -> bool:
    """Compared in a time that tells nothing."""
    return hmac.compare_digest(given.encode(), wanted.encode())
