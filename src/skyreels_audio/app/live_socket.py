"""The WebSocket of a live session, and the process that serves it.

The visitor sends {"picture": path of an upload, "consent": true} once, then sound as binary messages (16-bit little-
endian samples, mono, 16 kHz) and {"interrupt": true}; the server answers {"mime": …, "look_ahead": …} once, then the
video as binary messages, and {"seconds": …, "late": …, "spoken": …} once a second: how long the video is, how far it
fell behind the clock, and how much of the voice it has spoken.
"""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, Form, Response, WebSocket, WebSocketDisconnect

from skyreels_audio.app.api import PROBLEMS, Owner, Serving
from skyreels_audio.app.live import message
from skyreels_audio.app.sandbox import Refused
from skyreels_audio.app.service import Service
from skyreels_audio.app.speech import MOST_CHARACTERS, speakers
from skyreels_audio.bundled import bundled

MOST_BYTES = 1 << 20  # of one message

router = APIRouter(responses=PROBLEMS)


class Sessions:
    """How many are running; a machine keeps pace with few."""

    running = 0


@router.websocket("/api/live")
async def live(socket: WebSocket) -> None:
    service: Service = socket.app.state.service
    await socket.accept()
    if Sessions.running >= service.options.live_sessions:
        return await refuse(socket, "Somebody is talking with this machine already; try again later.")
    Sessions.running += 1
    process = None
    try:
        picture = await chosen_picture(service, socket.state.owner, await socket.receive_text())
        process = await start(service, picture)
        with contextlib.suppress(WebSocketDisconnect, ConnectionError, asyncio.IncompleteReadError):
            await talk(socket, process)
    except (Refused, ValueError, KeyError) as error:  # KeyError: bytes where text was due
        await refuse(socket, str(error) if isinstance(error, Refused) else "The first message says which picture.")
    except WebSocketDisconnect:
        pass
    finally:
        Sessions.running -= 1
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@router.post("/api/speech", summary="A text spoken by an installed synthesizer, as WAV", response_class=Response)
async def speech(
    service: Serving,
    owner: Owner,
    text: Annotated[str, Form(max_length=MOST_CHARACTERS)],
    speaker: Annotated[str | None, Form()] = None,
) -> Response:
    spoken = await anyio.to_thread.run_sync(service.speech, owner, text, speaker or next(iter(speakers()), ""))
    return Response(await anyio.Path(spoken.path).read_bytes(), media_type="audio/wav")


async def refuse(socket: WebSocket, sentence: str) -> None:
    await socket.send_json({"error": sentence})
    await socket.close(1008)


async def chosen_picture(service: Service, owner: str, text: str) -> Path:
    """The picture of an upload of the session, or the example. Raises Refused, ValueError."""
    asked = json.loads(text[:4096])
    if not isinstance(asked, dict):
        raise ValueError
    if not asked.get("picture"):
        return bundled("examples/portrait.jpg")
    if asked.get("consent") is not True:
        raise Refused("Say that the person shown agrees to this, or does not exist.")
    return await anyio.to_thread.run_sync(service.uploads.owned, owner, str(asked["picture"]))


async def start(service: Service, picture: Path) -> asyncio.subprocess.Process:
    options = service.options
    given = {"model": options.model, "device": options.device, "picture": str(picture), "speaker": options.speaker}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "skyreels_audio.app.live"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=dict(os.environ),
    )
    assert process.stdin is not None
    process.stdin.write(message(b"o", json.dumps(given).encode()))
    return process


async def talk(socket: WebSocket, process: asyncio.subprocess.Process) -> None:
    """Carry messages both ways until one side ends."""
    assert process.stdin is not None and process.stdout is not None
    sides = [asyncio.create_task(hear(socket, process.stdin)), asyncio.create_task(show(socket, process.stdout))]
    try:
        done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        for side in done:
            side.result()
    finally:
        for side in sides:
            side.cancel()


async def hear(socket: WebSocket, target: asyncio.StreamWriter) -> None:
    while True:
        got: Any = await socket.receive()
        if got["type"] == "websocket.disconnect":
            return
        data, text = got.get("bytes"), got.get("text")
        if data is not None and len(data) <= MOST_BYTES:
            target.write(message(b"a", data))
        elif text and '"interrupt"' in text:
            target.write(message(b"i", b""))
        await target.drain()


async def show(socket: WebSocket, source: asyncio.StreamReader) -> None:
    while True:
        head = await source.readexactly(5)
        data = await source.readexactly(int.from_bytes(head[1:], "big"))
        if head[:1] == b"v":
            await socket.send_bytes(data)
        else:
            await socket.send_text(data.decode())
