"""A face that answers while the voice is still coming: one session, in a process of its own.

Sound comes in as it is spoken and goes out ``AHEAD`` frames later with the frames that belong to it, in one fragmented
MP4, so voice and picture cannot drift apart. The session keeps pace with the clock: while nobody speaks the face idles,
and what was not yet spoken can be dropped at any time.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from skyreels_audio.media import SAMPLE_RATE, read_image
from skyreels_audio.media.fragments import MIME, FragmentWriter

FPS = 25
SAMPLES = SAMPLE_RATE // FPS  # of sound while a frame is shown
HOP = 8  # frames that are made at once
AHEAD = 4  # frames of voice beyond them that are heard first: the look-ahead
IDLE = 2  # frames that are made at once while nobody speaks
LEAD = 0.12  # seconds by which frames leave before they are due
PAUSE = 0.3  # seconds without sound after which what is left is spoken
MOST_SECONDS = 120
LATE = 0.5  # seconds behind the clock at which it is set back
SWAY = 0.004  # of the picture's side: how far an idle head moves


class Speaker(Protocol):
    """Who makes the frames of one portrait: uint8 [H, W, 3], even sides, ``FPS`` a second."""

    rest: np.ndarray
    """The portrait with its mouth at rest."""

    def frames_for(self, voice_n: np.ndarray, ahead_n: np.ndarray) -> list[np.ndarray]:
        """The frames of ``HOP * SAMPLES`` of voice that follow on what was heard so far.

        ``ahead_n`` are the ``AHEAD * SAMPLES`` that come next; they are heard again in the next call.
        """
        ...

    def forget(self) -> None:
        """What was heard so far is over: a pause, or an interruption."""
        ...


class Session:
    """Voice in by ``receive``, bytes of a video out by ``send``."""

    def __init__(
        self, speaker: Speaker, send: Callable[[bytes], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.speaker, self.send, self.clock = speaker, send, clock
        height, width = speaker.rest.shape[:2]
        self.writer = FragmentWriter(width, height, FPS, SAMPLE_RATE)
        self.voice_n = np.zeros(0, np.float32)
        self.heard, self.started, self.frames = -np.inf, clock(), 0
        self.shown, self.speaking, self.late = speaker.rest, False, 0.0

    @property
    def due(self) -> float:
        """Seconds until the next frames have to be made."""
        return self.started + self.frames / FPS - LEAD - self.clock()

    def receive(self, voice_n: np.ndarray) -> None:
        """Sound as it is spoken: float32 at ``SAMPLE_RATE``, up to ``MOST_SECONDS`` in advance."""
        self.voice_n = np.concatenate([self.voice_n, voice_n])[: MOST_SECONDS * SAMPLE_RATE]
        self.heard = self.clock()

    def interrupt(self) -> None:
        """Drop what was not yet spoken."""
        self.voice_n = self.voice_n[:0]
        self.speaker.forget()
        self.speaking = False

    def step(self) -> None:
        """Make and send the frames that are due."""
        if -self.due > LATE:  # this machine does not keep up: go on from here
            self.late -= self.due
            self.started = self.clock() + LEAD - self.frames / FPS
        wanted = (HOP + AHEAD) * SAMPLES
        over = self.clock() - self.heard > PAUSE
        if len(self.voice_n) >= wanted or (len(self.voice_n) and over):
            heard_n = np.pad(self.voice_n[:wanted], (0, max(0, wanted - len(self.voice_n))))
            self.voice_n = self.voice_n[HOP * SAMPLES :]
            voice_n, ahead_n = np.split(heard_n, [HOP * SAMPLES])
            self._show(self.speaker.frames_for(voice_n, ahead_n), voice_n)
            self.speaking = True
        else:
            if self.speaking and over:
                self.speaker.forget()
                self.speaking = False
            # The mouth closes within a few frames, and stays as it is when the voice only comes in late.
            towards = self.shown if self.speaking else self.speaker.rest
            shown = [mix(self.shown, towards, (index + 1) / (2 * IDLE)) for index in range(IDLE)]
            self._show(shown, np.zeros(IDLE * SAMPLES, np.float32))

    def _show(self, frames: list[np.ndarray], sound_n: np.ndarray) -> None:
        data = b""
        for frame, part_n in zip(frames, np.split(sound_n, len(frames)), strict=True):
            data += self.writer.add(sway(frame, self.frames / FPS), part_n)
            self.frames += 1
        self.shown = frames[-1]
        self.send(data)


def mix(one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """``share`` of the other picture, the rest of the one."""
    if one is other:
        return one
    return np.round(one + share * (other.astype(np.float32) - one)).clip(0, 255).astype(np.uint8)


def sway(frame: np.ndarray, seconds: float) -> np.ndarray:
    """The picture moved as a breathing head moves, slowly and by fractions of a pixel; no border comes into sight."""
    height, width = frame.shape[:2]
    x, y = (SWAY * width * np.sin(seconds / 1.7), SWAY * height * np.sin(seconds / 1.1 + 1))
    zoom = 1 - 2 * SWAY
    map_ = (zoom, 0, (1 - zoom) * width / 2 + x, 0, zoom, (1 - zoom) * height / 2 + y)
    moved = Image.fromarray(frame).transform((width, height), Image.Transform.AFFINE, map_, Image.Resampling.BICUBIC)
    return np.asarray(moved)


def main() -> None:
    """Serve one session over pipes of messages: first "o", what to load; then "a", sound, and "i", an interruption."""
    given = json.loads(read_message(sys.stdin.buffer.raw)[1])  # pyright: ignore[reportAttributeAccessIssue]
    module, _, name = given["speaker"].partition(":")
    out = sys.stdout.buffer

    def send(kind: bytes, data: bytes) -> None:
        out.write(message(kind, data))
        out.flush()

    speaker = getattr(import_module(module), name)(given["model"], given["device"], read_image(Path(given["picture"])))
    session = Session(speaker, lambda data: send(b"v", data))
    send(b"r", json.dumps({"mime": MIME, "look_ahead": AHEAD / FPS, "fps": FPS, "rate": SAMPLE_RATE}).encode())
    serve(session, send)


def serve(session: Session, send: Callable[[bytes, bytes], None]) -> None:
    """Take what comes until a step is due, until stdin ends."""
    import select

    source: Any = sys.stdin.buffer.raw  # pyright: ignore[reportAttributeAccessIssue]  # unbuffered: select tells the truth
    session.started = session.clock()
    told = 0
    while True:
        ready, _, _ = select.select([source], [], [], max(0.0, session.due))
        if ready:
            kind, data = read_message(source)
            if kind == b"":
                return
            if kind == b"a":
                session.receive(np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float32) / 32768)
            elif kind == b"i":
                session.interrupt()
        if session.due <= 0:
            session.step()
        if session.frames - told >= FPS:
            told = session.frames
            send(b"s", json.dumps({"seconds": told / FPS, "late": round(session.late, 2)}).encode())


def message(kind: bytes, data: bytes) -> bytes:
    """One letter, the length in four bytes, the data."""
    return kind + len(data).to_bytes(4, "big") + data


def read_message(source: Any) -> tuple[bytes, bytes]:
    """A message; its kind is empty where the source ended."""
    head = _read(source, 5)
    return (head[:1], _read(source, int.from_bytes(head[1:], "big"))) if len(head) == 5 else (b"", b"")


def _read(source: Any, count: int) -> bytes:
    data = b""
    while len(data) < count and (part := source.read(count - len(data))):
        data += part
    return data


if __name__ == "__main__":
    main()
