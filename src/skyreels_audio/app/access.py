"""Who may come in: the ASGI layer around page and API that knows sessions, the token, and limits.

A session is a random cookie; with a token it is signed by it, so that the cookie proves that the token was shown.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections import defaultdict, deque
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skyreels_audio.app.options import Options

COOKIE = "skyreels_session"
YEAR = 365 * 24 * 3600
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
TOKEN_WANTED = "Show the token: open the address with ?token=… once, or send it as a Bearer."
SMALL_BODY = 2 << 20  # bytes of a request that carries no files
COUNTED = {"/api/jobs", "/api/look", "/api/speech", "/gradio_api/upload"}  # POSTs that cost work
WITH_FILES = COUNTED - {"/api/speech"}
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob: ws: wss:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
}
DOCS = "/api/docs"  # FastAPI's page takes Swagger UI from a CDN
DOCS_POLICY = "default-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; img-src 'self' data: https:"

# Of Gradio's own routes only those that the page needs. What fetches URLs, serves the server's files or calls
# functions past the page is not among them; uploads and files are ours, see ``page``.
_GRADIO = re.compile(
    r"/gradio_api/(queue/(join|data)|heartbeat/\w+|app_id|startup-events|info/?|reset/?|cancel/?|upload|upload_progress"
    r"|file=.*|theme\.css|custom_component/.*)$"
)


class Access:
    """``scope["state"]["owner"]`` of what passes is the session's name, which owns jobs and uploads."""

    def __init__(self, app: ASGIApp, options: Options) -> None:
        self.app, self.options = app, options
        self.calls: defaultdict[str, deque[float]] = defaultdict(deque)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        asked = HTTPConnection(scope)
        refusal = self._refusal(asked)
        if refusal is not None:
            return await refuse(scope, receive, send, *refusal)
        owner, cookie = self._session(asked)
        if owner is None:
            if scope["type"] == "http" and self._shows_token(parse_qs(asked.url.query).get("token", [""])[0]):
                answer = RedirectResponse(asked.url.path, 303)
                answer.raw_headers.append((b"set-cookie", self._new_cookie()[1].encode()))
                return await answer(scope, receive, send)
            return await refuse(
                scope,
                receive,
                send,
                401,
                TOKEN_WANTED,
            )
        scope.setdefault("state", {})["owner"] = owner

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                shown = HEADERS | ({"content-security-policy": DOCS_POLICY} if asked.url.path == DOCS else {})
                headers = [(name.encode(), value.encode()) for name, value in shown.items()]
                message["headers"] = [*message.get("headers", []), *headers]
                if cookie is not None:
                    message["headers"].append((b"set-cookie", cookie.encode()))
            await send(message)

        await self.app(scope, self._limited(asked, receive), send_with_headers)

    def _refusal(self, asked: HTTPConnection) -> tuple[int, str] | None:
        """Status and sentence, where something is wrong whoever asks."""
        host = asked.headers.get("host", "")
        if self.options.loopback and (urlsplit(f"//{host}").hostname or "") not in LOOPBACK:
            return 403, "This server answers to localhost only."  # not to a name that someone points here
        origin, method = asked.headers.get("origin"), asked.scope.get("method", "GET")
        changes = asked.scope["type"] == "websocket" or method not in ("GET", "HEAD")
        if changes and origin and urlsplit(origin).netloc != host:
            return 403, "Requests from other sites are not answered."
        path = asked.url.path
        if path.startswith("/gradio_api") and not _GRADIO.match(path):
            return 404, "There is nothing here."
        if method == "POST" and path in COUNTED and not self._within_rate(asked):
            return 429, f"At most {self.options.requests_per_minute} requests of this kind a minute; wait a little."
        return None

    def _within_rate(self, asked: HTTPConnection) -> bool:
        address, now = asked.client.host if asked.client else "", time.monotonic()
        calls = self.calls[address]
        while calls and now - calls[0] > 60:
            calls.popleft()
        if len(self.calls) > 10_000:
            self.calls.clear()
        calls.append(now)
        return len(calls) <= self.options.requests_per_minute

    def _session(self, asked: HTTPConnection) -> tuple[str | None, str | None]:
        """The session's name, and the cookie to set where it is new."""
        kind, _, given = asked.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._shows_token(given):
            return session_name(f"token {given}"), None
        cookie = asked.cookies.get(COOKIE, "")
        session, _, signed = cookie.partition(".")
        if len(session) >= 32 and hmac.compare_digest(signed.encode(), self._sign(session).encode()):
            return session_name(session), None
        if self.options.token:
            return None, None
        return self._new_cookie()

    def _new_cookie(self) -> tuple[str, str]:
        session = secrets.token_urlsafe(32)
        cookie: Any = SimpleCookie({COOKIE: f"{session}.{self._sign(session)}"})
        cookie[COOKIE].update({"path": "/", "max-age": str(YEAR), "httponly": True, "samesite": "Lax"})
        return session_name(session), cookie[COOKIE].OutputString()

    def _sign(self, session: str) -> str:
        return hmac.new((self.options.token or "").encode(), session.encode(), "sha256").hexdigest()

    def _shows_token(self, given: str) -> bool:
        return bool(self.options.token) and hmac.compare_digest(given.encode(), (self.options.token or "").encode())

    def _limited(self, asked: HTTPConnection, receive: Receive) -> Receive:
        """``receive`` that stops when a body is larger than what its address takes."""
        if asked.scope["type"] == "websocket":
            return receive
        with_files = asked.url.path in WITH_FILES
        most = (3 * self.options.upload_mb << 20) + SMALL_BODY if with_files else SMALL_BODY
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413, f"This request is larger than {most >> 20} MB.")
            return message

        return limited


async def refuse(scope: Scope, receive: Receive, send: Send, status: int, sentence: str) -> None:
    """Answer with a sentence; a WebSocket is closed before it opens."""
    if scope["type"] == "websocket":
        return await send({"type": "websocket.close", "code": 1008, "reason": sentence[:120]})
    answer: Response = JSONResponse({"detail": sentence}, status, {"retry-after": "10"} if status == 429 else None)
    await answer(scope, receive, send)


def session_name(session: str) -> str:
    """By which a session's jobs and files are kept; who reads it there cannot make the cookie from it."""
    return hashlib.sha256(session.encode()).hexdigest()[:32]
