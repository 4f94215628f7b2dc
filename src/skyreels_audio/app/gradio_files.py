"""Files between Gradio's components and ours, instead of Gradio's own way.

Gradio would keep a visitor's file names, serve any upload to whoever knows its hash, and fetch a URL that is given in
place of a file. Here a file is checked as the API checks it, and belongs to its session.
"""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import anyio.to_thread
from fastapi import APIRouter, HTTPException
from fastapi import Request as HttpRequest
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.datastructures import UploadFile
from starlette.types import ASGIApp, Receive, Scope, Send

from skyreels_audio.app.sandbox import Refused
from skyreels_audio.app.service import Service
from skyreels_audio.app.uploads import Kind

router = APIRouter(include_in_schema=False)


@router.post("/gradio_api/upload")
async def upload(request: HttpRequest) -> Response:
    """Checked files of the session, as the paths that Gradio's components then send along."""
    service: Service = request.app.state.service
    paths = []
    async with request.form(max_files=2) as form:
        for file in form.getlist("files"):
            if not isinstance(file, UploadFile):
                raise HTTPException(422, "This is no file.")
            sound = (file.content_type or "").startswith("audio/")
            kinds: tuple[Kind, ...] = ("picture", "voice", "video") if sound else ("picture", "video", "voice")
            try:
                paths.append(str((await service.uploads.receive(request.state.owner, chunks(file), kinds)).path))
            except Refused as error:
                return PlainTextResponse(str(error), 422)
    return JSONResponse(paths)


@router.get("/gradio_api/file={path:path}")
async def file(path: str, request: HttpRequest) -> Response:
    """A file that the session itself uploaded."""
    service: Service = request.app.state.service
    try:
        found = service.uploads.owned(request.state.owner, path)
    except Refused as error:
        raise HTTPException(404, str(error)) from None
    return FileResponse(found, headers={"cache-control": "private"})


async def chunks(file: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await file.read(1 << 20):
        yield chunk


class Guard:
    """Lets an event of the page through only if every file in it is one that the session uploaded."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/gradio_api/queue/join":
            return await self.app(scope, receive, send)
        messages, body = [], b""
        while not messages or messages[-1].get("more_body"):
            messages.append(await receive())
            body += messages[-1].get("body", b"")
        try:
            for path in paths_in(json.loads(body)):
                await anyio.to_thread.run_sync(self.service.uploads.owned, scope["state"]["owner"], str(path))
        except (Refused, ValueError, RecursionError):
            return await JSONResponse({"detail": "This file is not here; send it again."}, 422)(scope, receive, send)

        async def replayed() -> Any:
            return messages.pop(0) if messages else await receive()

        await self.app(scope, replayed, send)


def paths_in(value: Any) -> list[Any]:
    """The "path" of every file in a JSON value, at any depth."""
    if isinstance(value, list):
        return [path for each in value for path in paths_in(each)]
    if not isinstance(value, dict):
        return []
    here = [value["path"]] if "path" in value else []
    return here + [path for each in value.values() for path in paths_in(each)]


def as_file_data(path: str) -> dict[str, Any]:
    """An uploaded file as Gradio's components take it."""
    name = path.rpartition("/")[2]
    address = f"/gradio_api/file={quote(path)}"
    return {"path": path, "url": address, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
