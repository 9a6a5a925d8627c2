"""Who may ask the inspector, and what a page of it may do: decided here, before any page is made.

A page shows what worlds and models said. So the policy lets nothing run but the house's own scripts (by a nonce), nothing be
fetched from elsewhere, and nobody frame it. Who asks is known by exact lists of Host and Origin, so that a name that is made to
point at this machine (DNS rebinding) gets nothing; a change needs the browser's own word that it comes from here (no token in
forms), and a server that others can reach asks for a token.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from agentevolve.doors.hosts import LOOPBACK, is_known, known_hosts
from agentevolve.protocols import AgentevolveError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SHORTEST = 16  # characters of a token
SAFE = ("GET", "HEAD")
COOKIE = "agentevolve-view"
KEYED = "authorization"  # the header
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


def policy(nonce: str) -> str:
    """The content security policy of a page whose scripts carry that nonce."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types htmx"
    )


def hosts(host: str, port: int, token: str) -> frozenset[str]:
    """The values of the header Host that are answered.

    Raises AgentevolveError for an address that others reach without a token, a token that is too short, or an address that names
    no one place.
    """
    if token and len(token) < SHORTEST:
        raise AgentevolveError(f"--token: shorter than {SHORTEST} characters")
    address = _address(host)
    if address is not None and address.is_unspecified:
        raise AgentevolveError(f"--host {host}: name the one address, or the name, that is opened in the browser")
    if _loopback(host, address):
        return known_hosts(LOOPBACK, port)
    if not token:
        raise AgentevolveError(f"--host {host}: others can reach it; give it a --token of at least {SHORTEST} characters")
    name = f"[{host}]" if address is not None and address.version == 6 else host
    return known_hosts([name], port)


class Guard:
    """Lets through to `app` what may ask, and puts the policy on every answer.

    `known` are the hosts by which it is asked; with a `token`, whoever asks shows it once, in the address or as a bearer token.
    """

    def __init__(self, app: ASGIApp, known: frozenset[str], token: str = "") -> None:
        self.app, self.known, self.token = app, known, token
        self.origins = frozenset(f"http://{host}" for host in known)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on; what is no HTTP request is dropped."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return None
        nonce = secrets.token_urlsafe(16)
        scope["nonce"] = nonce

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_headers(nonce)]
            await send(message)

        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if why := self._refused(scope["method"], headers):
            return await _say(guarded, 403, why)
        if self.token and not self._shown(headers):
            return await self._ask(scope, guarded)
        return await self.app(scope, receive, guarded)

    def _refused(self, method: str, headers: Mapping[str, str]) -> str:
        """Why nobody who asks like this is answered; empty for who is."""
        if not is_known(headers.get("host", ""), self.known):
            return "this host is not known here"
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin == "null" and site == "same-origin":
            origin = None  # a form of ours, of which no-referrer has hidden the origin; pages cannot set the other header
        if origin is not None and origin not in self.origins:
            return "this origin is not known here"
        if method not in SAFE:
            # browsers say at least one of the two of every change, and pages cannot set either
            return "" if site == "same-origin" or (site is None and origin) else "a change must come from a page of this server"
        visits = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return "" if site in (None, "same-origin", "none") or visits else "another site may link here, but not load from here"

    def _shown(self, headers: Mapping[str, str]) -> bool:
        """Whether the token came with it."""
        kept = [part.strip().partition("=") for part in headers.get("cookie", "").split(";")]
        scheme, _, bearer = headers.get(KEYED, "").partition(" ")
        said = [(value, _cookie(self.token)) for name, _, value in kept if name == COOKIE]
        said += [(bearer, self.token)] if scheme.lower() == "bearer" else []
        return any(hmac.compare_digest(one.encode(), wanted.encode()) for one, wanted in said)

    async def _ask(self, scope: Scope, send: Send) -> None:
        """Take the token from the address into a cookie, so that it is in no link and no history; else say that it is wanted."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = next((value for name, value in query if name == "token"), "")
        if scope["method"] != "GET" or not hmac.compare_digest(given.encode(), self.token.encode()):
            return await _say(send, 401, "open the address with ?token=… once")
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        target = scope["raw_path"].decode("latin-1").lstrip("/\\") + (f"?{rest}" if rest else "")
        kept = f"{COOKIE}={_cookie(self.token)}; HttpOnly; SameSite=Strict; Path=/"
        await _say(send, 303, "", {"location": f"/{target}", "set-cookie": kept})


def _cookie(token: str) -> str:
    """What a browser keeps instead of the token."""
    return "c." + hmac.new(token.encode(), b"agentevolve view", "sha256").hexdigest()


def _headers(nonce: str) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in {**HEADERS, "content-security-policy": policy(nonce)}.items()]


async def _say(send: Send, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
    start: MutableMapping[str, Any] = {"type": "http.response.start", "status": status}
    said = {"content-type": "text/plain; charset=utf-8", **(headers or {})}
    start["headers"] = [(name.encode(), value.encode("latin-1")) for name, value in said.items()]
    await send(start)
    await send({"type": "http.response.body", "body": text.encode()})


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _loopback(host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    return host == "localhost" if address is None else address.is_loopback
