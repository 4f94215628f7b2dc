"""The page on which raters answer: plain HTML forms, served on this machine alone.

It works without scripts, by keyboard and with a screen reader; nothing in it or its addresses tells whose video it is.
"""

import html
import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from urllib.parse import parse_qs, quote, urlsplit

from skyreels_audio.evaluation.study import QUESTIONS, SCALE, Item, Study

LONGEST = 4096  # bytes of a form
STYLE = """
body { font: 18px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
video { width: 100%; max-height: 60vh; background: #000; }
fieldset { margin: 1rem 0; border: 1px solid #767676; } label { margin-right: 1.5rem; white-space: nowrap; }
input[type=radio] { width: 1.3rem; height: 1.3rem; vertical-align: middle; }
button { font: inherit; padding: .5rem 1.5rem; } .check { border: 3px solid #8a4b00; padding: 0 1rem; }
:focus-visible { outline: 3px solid #0b62a4; outline-offset: 2px; }
"""
PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; style-src 'unsafe-inline'",
}


class StudyServer(ThreadingHTTPServer):
    """On loopback, not yet serving; port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, study: Study, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.study, self.lock = study, Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StudyServer

    def do_GET(self) -> None:
        if not self._local():
            return
        study, url = self.server.study, urlsplit(self.path)
        rater = parse_qs(url.query).get("rater", [""])[0].strip()[:60]
        if url.path == "/":
            self._page("Video study", _welcome(len(study.videos)))
        elif url.path == "/rate" and rater:
            item, done, total = study.next_item(rater)
            if item is None:
                self._page("Thank you", "<h1>Thank you</h1><p>You have answered everything.</p>")
            else:
                self._page(f"Video {done + 1} of {total}", _question(item, rater, done, total))
        elif url.path.startswith("/video/") and (path := study.video(url.path.removeprefix("/video/"))):
            self._video(path)
        else:
            self._not_found()

    def do_POST(self) -> None:
        if not self._local():
            return
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= LONGEST or self.path != "/answer":
            self.close_connection = True
            return self._not_found()
        entries = parse_qs(self.rfile.read(length).decode("utf-8", "replace"))
        form = {name: values[0] for name, values in entries.items()}
        try:
            scores = {question: int(form[question]) for question in QUESTIONS}
            with self.server.lock:
                self.server.study.answer(form["rater"], form["token"], scores)
        except (KeyError, ValueError):
            back = f'<p><a href="/rate?rater={quote(form.get("rater", ""))}">Back</a></p>'
            body = f"<h1>Please answer both questions</h1>{back}"
            return self._page("Not complete", body, HTTPStatus.BAD_REQUEST)
        self._head(HTTPStatus.SEE_OTHER, {"Location": f"/rate?rater={quote(form['rater'])}", "Content-Length": "0"})

    def _local(self) -> bool:
        """Whether it was asked for by this machine's name: another site's page must not answer for a rater."""
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        origin = urlsplit(self.headers.get("Origin") or "http://127.0.0.1").hostname
        if host in ("127.0.0.1", "localhost") and origin in ("127.0.0.1", "localhost"):
            return True
        self.close_connection = True
        self._page("Refused", "<h1>Refused</h1>", HTTPStatus.FORBIDDEN)
        return False

    def _not_found(self) -> None:
        self._page("Not found", "<h1>There is no such page</h1>", HTTPStatus.NOT_FOUND)

    def _page(self, title: str, body: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        text = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
            f"<body><main>{body}</main></body></html>"
        ).encode()
        self._head(status, PAGE_HEADERS | {"Content-Length": str(len(text))})
        self.wfile.write(text)

    def _video(self, path: Path) -> None:
        """The file, or the part of it that a player asks for."""
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        first = int(asked[1]) if asked else 0
        last = min(int(asked[2]), size - 1) if asked and asked[2] else size - 1
        if first > last:
            nothing = {"Content-Range": f"bytes */{size}", "Content-Length": "0"}
            return self._head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, nothing)
        part = {"Content-Range": f"bytes {first}-{last}/{size}"} if asked else {}
        whole = {"Content-Type": "video/mp4", "Accept-Ranges": "bytes", "Content-Length": str(last + 1 - first)}
        self._head(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK, whole | part)
        with path.open("rb") as file:
            file.seek(first)
            self.wfile.write(file.read(last + 1 - first))

    def _head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal is the person's who runs the study."""


def _welcome(count: int) -> str:
    return (
        f"<h1>Video study</h1><p>You will see {count} short videos with sound, one at a time, and answer two questions "
        "about each. Use headphones if you can. You may stop at any time and go on later under the same name; answers "
        "cannot be changed.</p>"
        '<form action="/rate"><p><label for="rater">Your name, or any word of your own</label><br>'
        '<input id="rater" name="rater" required maxlength="60" autocomplete="off"></p>'
        "<button>Begin or go on</button></form>"
    )


def _question(item: Item, rater: str, done: int, total: int) -> str:
    fields = []
    for name, question in QUESTIONS.items():
        choices = "".join(
            f'<label><input type="radio" name="{name}" value="{value}" required> {value}: {word}</label>'
            for value, word in SCALE.items()
        )
        fields.append(f"<fieldset><legend>{question}</legend>{choices}</fieldset>")
    check = ""
    if item.check is not None:
        wanted = " and ".join(f"“{SCALE[item.check[name]]}” to “{question}”" for name, question in QUESTIONS.items())
        check = f'<div class="check" role="note"><p>This page checks attention. Please answer {wanted}</p></div>'
    return (
        f"<h1>Video {done + 1} of {total}</h1>{check}"
        f'<video controls preload="auto" aria-label="Video {done + 1}" src="/video/{item.token}"></video>'
        f'<form method="post" action="/answer"><input type="hidden" name="rater" value="{html.escape(rater)}">'
        f'<input type="hidden" name="token" value="{item.token}">{"".join(fields)}<button>Next</button></form>'
    )
