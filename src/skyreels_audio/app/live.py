"""A face that answers while the voice is still coming: one session, in a process of its own.

Sound comes in as it is spoken and goes out ``AHEAD`` frames later with the frames that belong to it, in one fragmented
MP4, so voice and picture cannot drift apart. The session keeps pace with the clock: while nobody speaks the face idles,
and what was not yet spoken can be dropped at any time.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from skyreels_audio.media import SAMPLE_RATE, InputError, read_image
from skyreels_audio.media.fragments import MIME, FragmentWriter

FPS = 25
SAMPLES = SAMPLE_RATE // FPS  # of sound while a frame is shown
HOP = 8  # frames whose poses are made at once
AHEAD = 4  # frames of voice beyond them that are heard first: the look-ahead
STEP = 2  # frames that are shown at once
LEAD = 0.12  # seconds by which frames leave before they are due
PAUSE = 0.3  # seconds without sound after which what is left is spoken
MOST_SECONDS = 120
LATE = 0.5  # seconds behind the clock at which it is set back


class Speaker(Protocol):
    """Who makes the frames of one portrait, ``FPS`` a second. A pose is what a frame shows, before it is drawn."""

    size: tuple[int, int]
    """Height and width of the frames, even."""

    def speak(self, voice_n: np.ndarray, ahead_n: np.ndarray) -> Sequence[Any]:
        """The next ``HOP`` poses, of ``HOP * SAMPLES`` of voice.

        ``ahead_n`` are the ``AHEAD * SAMPLES`` that come next; they are heard again in the next call.
        """
        ...

    def idle(self, count: int, waiting: bool) -> Sequence[Any]:
        """The next poses, in which nobody speaks; ``waiting`` for a voice that comes in late the mouth stays."""
        ...

    def show(self, poses: Sequence[Any], sound_n: np.ndarray) -> Sequence[np.ndarray]:
        """Their frames, uint8 [H, W, 3]; what follows goes on from them and their sound."""
        ...


class Session:
    """Voice in by ``receive``, bytes of a video out by ``send``."""

    def __init__(
        self, speaker: Speaker, send: Callable[[bytes], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.speaker, self.send, self.clock = speaker, send, clock
        height, width = speaker.size
        self.writer = FragmentWriter(width, height, FPS, SAMPLE_RATE)
        self.voice_n = np.zeros(0, np.float32)
        self.heard, self.started, self.frames = -np.inf, clock(), 0
        self.coming: list[tuple[Any, np.ndarray]] = []  # poses and their sound, not yet shown
        self.speaking, self.late, self.spoken = False, 0.0, 0.0

    @property
    def due(self) -> float:
        """Seconds until the next frames have to be made."""
        return self.started + self.frames / FPS - LEAD - self.clock()

    def receive(self, voice_n: np.ndarray) -> None:
        """Sound as it is spoken: float32 at ``SAMPLE_RATE``, up to ``MOST_SECONDS`` in advance."""
        self.voice_n = np.concatenate([self.voice_n, voice_n])[: MOST_SECONDS * SAMPLE_RATE]
        self.heard = self.clock()

    def interrupt(self) -> None:
        """Drop what was not yet shown."""
        self.voice_n, self.coming, self.speaking = self.voice_n[:0], [], False

    def step(self) -> None:
        """Make and send the frames that are due."""
        if -self.due > LATE:  # this machine does not keep up: go on from here
            self.late -= self.due
            self.started = self.clock() + LEAD - self.frames / FPS
        if not self.coming:
            self._plan()
        shown, self.coming = self.coming[:STEP], self.coming[STEP:]
        poses, sounds = zip(*shown, strict=True)
        data = b""
        for frame, sound_n in zip(self.speaker.show(poses, np.concatenate(sounds)), sounds, strict=True):
            data += self.writer.add(frame, sound_n)
        self.frames += len(shown)
        self.send(data)

    def _plan(self) -> None:
        """The poses that come next."""
        wanted = (HOP + AHEAD) * SAMPLES
        over = self.clock() - self.heard > PAUSE
        if len(self.voice_n) >= wanted or (len(self.voice_n) and over):
            heard_n = np.pad(self.voice_n[:wanted], (0, max(0, wanted - len(self.voice_n))))
            self.spoken += min(len(self.voice_n), HOP * SAMPLES) / SAMPLE_RATE
            self.voice_n = self.voice_n[HOP * SAMPLES :]
            voice_n, ahead_n = np.split(heard_n, [HOP * SAMPLES])
            poses, self.speaking = self.speaker.speak(voice_n, ahead_n), True
        else:
            self.speaking = self.speaking and not over
            voice_n, poses = np.zeros(STEP * SAMPLES, np.float32), self.speaker.idle(STEP, self.speaking)
        self.coming = list(zip(poses, np.split(voice_n, len(poses)), strict=True))


def main() -> None:
    """Serve one session over pipes of messages: first "o", what to load; then "a", sound, and "i", an interruption."""
    given = json.loads(read_message(sys.stdin.buffer.raw)[1])  # pyright: ignore[reportAttributeAccessIssue]
    module, _, name = given["speaker"].partition(":")
    out = sys.stdout.buffer

    def send(kind: bytes, data: bytes) -> None:
        out.write(message(kind, data))
        out.flush()

    make_speaker = getattr(import_module(module), name)
    try:
        speaker = make_speaker(given["model"], given["device"], read_image(Path(given["picture"])))
    except InputError as error:
        return send(b"e", json.dumps({"error": str(error)}).encode())
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
            how = {"seconds": told / FPS, "late": session.late, "spoken": session.spoken}
            send(b"s", json.dumps({name: round(value, 2) for name, value in how.items()}).encode())


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
