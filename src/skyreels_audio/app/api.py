"""The HTTP API under /api: submit, status, events, result, cancel. Its OpenAPI page is at /api/docs."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio.to_thread
from fastapi import APIRouter, Depends, File, Form, HTTPException, Response, UploadFile
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from skyreels_audio.app.jobs import Job, Status
from skyreels_audio.app.render import FACE, Request
from skyreels_audio.app.service import Service
from skyreels_audio.app.speech import MOST_CHARACTERS, speakers
from skyreels_audio.app.uploads import Kind

EVENT_EVERY = 0.25  # seconds between looks at a job whose events are followed
STILL_THERE = 15.0  # seconds after which an event stream says that it lives


class Submission(Request):
    """What a video is made of, files and fields of one form."""

    picture: UploadFile | None = Field(default=None, description="Portrait.")
    video: UploadFile | None = Field(default=None, description="Video whose speaker shall speak with the voice.")
    voice: UploadFile | None = Field(default=None, description="The voice: a sound file, or a video's sound.")
    text: str = Field(default="", max_length=MOST_CHARACTERS, description="Instead of a voice: a text to speak.")
    speaker: str | None = Field(default=None, description="Who speaks the text; see /api/server.")
    consent: bool = Field(default=False, description="The people shown and heard agree, or do not exist.")


class Problem(BaseModel):
    """Why a request was not done, in a sentence."""

    detail: str


class Server(BaseModel):
    """How this server is doing, and what it takes."""

    waiting: int
    upload_mb: int
    voice_seconds: float
    disk_used_bytes: int
    disk_limit_bytes: int
    speakers: list[str]


PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem} for code in (400, 401, 403, 404, 409, 413, 422, 429)
}


def service_of(request: HttpRequest) -> Service:
    return request.app.state.service


def owner_of(request: HttpRequest) -> str:
    return request.state.owner


def job_of(id: str, request: HttpRequest) -> Job:
    """The job of that id, if it is the asking session's own; else it is as if there were none."""
    job = service_of(request).jobs.job(id) if re.fullmatch(r"[\w-]{10,40}", id, re.ASCII) else None
    if job is None or job.owner != owner_of(request):
        raise HTTPException(404, "There is no such video.")
    return job


Its = Annotated[Job, Depends(job_of)]
Serving = Annotated[Service, Depends(service_of)]
Owner = Annotated[str, Depends(owner_of)]
router = APIRouter(prefix="/api", responses=PROBLEMS)


async def received(service: Service, owner: str, file: UploadFile, kind: Kind) -> Path:
    async def chunks() -> AsyncIterator[bytes]:
        while chunk := await file.read(1 << 20):
            yield chunk

    return (await service.uploads.receive(owner, chunks(), (kind,))).path


@router.post("/jobs", status_code=202, response_model=Status, summary="Submit a video to be made")
async def submit(service: Serving, owner: Owner, given: Annotated[Submission, File()]) -> JSONResponse:
    """A picture, a video, or only a prompt; and a voice, or a text to speak. 202 and the job; follow its events."""
    kinds: tuple[Kind, ...] = ("picture", "video", "voice")
    files: list[Path] = []
    try:
        for kind in kinds:
            if (file := getattr(given, kind)) is not None:
                files.append(await received(service, owner, file, kind))
        if given.voice is None and given.text:
            who = given.speaker or next(iter(speakers()), "")
            files.append((await anyio.to_thread.run_sync(service.speech, owner, given.text, who)).path)
        request = Request(**given.model_dump(include=set(Request.model_fields)))
        job = await anyio.to_thread.run_sync(service.submit, owner, request, files, given.consent)
    finally:  # the job has its own copies
        for path in files:
            service.uploads.drop(path)
    return JSONResponse(asdict(service.jobs.status(job)), 202)


@router.post("/look", summary="See what will move before any time is spent")
async def look(
    service: Serving,
    owner: Owner,
    picture: Annotated[UploadFile | None, File()] = None,
    video: Annotated[UploadFile | None, File()] = None,
    seconds: Annotated[float, Form(gt=0, le=300, description="How much of a video.")] = 10.0,
    face: Annotated[str, Form(pattern=FACE)] = "largest",
) -> dict[str, Any]:
    """The faces of a picture or video, and the region of the chosen one that would change, in pixels."""
    given = picture or video
    if given is None:
        raise HTTPException(422, "Send a picture or a video.")
    path = await received(service, owner, given, "picture" if picture else "video")
    try:
        return await anyio.to_thread.run_sync(service.look, path, seconds, face)
    finally:
        service.uploads.drop(path)


@router.get("/jobs", response_model=list[Status], summary="One's own jobs, newest first")
def list_jobs(service: Serving, owner: Owner) -> JSONResponse:
    return JSONResponse([asdict(service.jobs.status(job)) for job in service.jobs.owned(owner)])


@router.get("/jobs/{id}", response_model=Status, summary="Where a job stands")
async def job_status(service: Serving, job: Its) -> JSONResponse:
    return JSONResponse(asdict(service.jobs.status(job)))


@router.get("/jobs/{id}/events", summary="The same as server-sent events, until the job ends")
async def job_events(service: Serving, job: Its) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        last, quiet = "", 0.0
        while True:
            status = service.jobs.status(job)
            text = json.dumps(asdict(status))
            if text != last:
                yield f"event: status\ndata: {text}\n\n"
                last, quiet = text, 0.0
            if status.state in ("finished", "failed", "cancelled"):
                return
            await asyncio.sleep(EVENT_EVERY)
            quiet += EVENT_EVERY
            if quiet >= STILL_THERE:
                yield ": still there\n\n"
                quiet = 0.0

    return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})


@router.get("/jobs/{id}/preview", summary="The latest frame of a running job, a JPEG", response_class=Response)
async def job_preview(service: Serving, job: Its) -> Response:
    frame = service.jobs.preview(job.id)
    if frame is None:
        raise HTTPException(404, "There is no frame yet, or not any more.")
    return Response(frame, media_type="image/jpeg", headers={"cache-control": "no-store"})


FILES = {"result": ("result.mp4", "video/mp4"), "sheet": ("sheet.png", "image/png")}
FILES["report"] = ("report.json", "application/json")


@router.get("/jobs/{id}/{what}", summary="The video, its contact sheet, its report", response_class=Response)
def job_file(
    service: Serving, job: Its, what: Literal["result", "sheet", "report"], request: HttpRequest, save: bool = False
) -> Response:
    """The finished video (byte ranges are answered), with ``save`` as a download."""
    status = service.jobs.status(job)
    if status.state != "finished":
        raise HTTPException(409, f"This video is {status.state}.")
    name, media_type = FILES[what]
    return stored(service, job.id, f"{status.attempt}/{name}", media_type, request, f"talking-{name}" if save else None)


@router.get("/jobs/{id}/source/{name}", summary="What was given, for comparison", response_class=Response)
def job_source(
    service: Serving, job: Its, name: Annotated[str, "picture.png, voice.wav or video.*"], request: HttpRequest
) -> Response:
    if name not in job.inputs:
        raise HTTPException(404, "There is no such file.")
    kinds = {".png": "image/png", ".wav": "audio/wav", ".webm": "video/webm", ".ogg": "video/ogg"}
    return stored(service, job.id, name, kinds.get(Path(name).suffix, "video/mp4"), request, None)


@router.delete("/jobs/{id}", summary="Cancel a job; delete an ended one", response_model=Status)
def cancel(service: Serving, job: Its) -> JSONResponse:
    """A waiting job ends at once, a running one within a step. Asked again, the ended job and its files are deleted."""
    before = service.jobs.status(job)
    if before.state in ("waiting", "running"):
        service.jobs.cancel(job.id)
        return JSONResponse(asdict(service.jobs.status(job)))
    service.jobs.delete(job.id)
    return JSONResponse(asdict(before))


@router.get("/server", summary="How the server is doing, and what it takes", response_model=Server)
def server(service: Serving) -> Server:
    return Server(
        waiting=len(service.jobs.queued()),
        upload_mb=service.options.upload_mb,
        voice_seconds=service.options.voice_seconds,
        disk_used_bytes=service.jobs.used_bytes(),
        disk_limit_bytes=round(service.options.keep_gb * 1e9),
        speakers=list(speakers()),
    )


def stored(
    service: Service, id: str, name: str, media_type: str, request: HttpRequest, save_as: str | None
) -> Response:
    """A stored file, or the bytes of it that the ``Range`` header asks for."""
    try:
        size = service.jobs.files.size(id, name)
    except FileNotFoundError:
        raise HTTPException(404, "This file was deleted.") from None
    headers = {"accept-ranges": "bytes", "cache-control": "private"}
    if save_as:
        headers["content-disposition"] = f'attachment; filename="{save_as}"'
    first, last, status = 0, size - 1, 200
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if asked and any(asked.groups()):
        start, end = (int(part) if part else None for part in asked.groups())
        first = max(0, size - (end or 0)) if start is None else start
        last = size - 1 if start is None or end is None else min(end, size - 1)
        if first > last:
            return Response(status_code=416, headers={"content-range": f"bytes */{size}"})
        status = 206
        headers["content-range"] = f"bytes {first}-{last}/{size}"
    headers["content-length"] = str(last + 1 - first)
    return StreamingResponse(service.jobs.files.read(id, name, first, last), status, headers, media_type)
