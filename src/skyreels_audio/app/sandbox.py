"""A process of its own for what a visitor sends: decoded within limits of time and memory, its work a fresh file.

``python -m skyreels_audio.app.sandbox SOCKET`` has the libraries ready and forks for every file: it takes one JSON
object over the socket and answers with one, {"error": a sentence} or what it found. It knows nothing of the server: it
starts with a clean environment, and ends with its stdin.
"""

import json
import os
import resource
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import wave
from pathlib import Path
from typing import Any

from skyreels_audio.rendering import LONGEST_SIDE

GIGABYTES = 4  # of address space, the libraries' own 1.5 included
FACES_GIGABYTES = 16  # for files that were decoded before: following a face takes PyTorch, which maps much
AT_ONCE = threading.Semaphore(4)  # files
SECONDS = 120  # of computing, and of waiting
START_SECONDS = 120
VOICE_RATE = 48_000
SILENT = 1e-3  # a peak below this (-60 dB) is silence


class Refused(ValueError):
    """What a visitor sent cannot be used; the message is a sentence for them."""


class Sandbox:
    """The process that forks; started at first use, and again where it has ended."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.folder: Any = None

    def start(self) -> str:
        """Where it listens, or will in a moment."""
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                self.folder = tempfile.TemporaryDirectory(prefix="skyreels-")
                needed = ("PATH", "PYTHONPATH", "HOME", "LANG")
                environment = {name: os.environ[name] for name in needed if name in os.environ}
                environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
                command = [sys.executable, "-m", "skyreels_audio.app.sandbox", f"{self.folder.name}/socket"]
                self.process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
            return f"{self.folder.name}/socket"

    def connect(self) -> socket.socket:
        """Raises OSError where it does not start."""
        end = time.monotonic() + START_SECONDS
        while True:
            connected = socket.socket(socket.AF_UNIX)
            try:
                connected.connect(self.start())
                return connected
            except OSError:
                connected.close()
                if time.monotonic() > end:
                    raise
            time.sleep(0.02)


SANDBOX = Sandbox()


def run(work: str, path: Path, seconds: float = SECONDS, **options: Any) -> dict[str, Any]:
    """Do one of ``WORKS`` to a file in a process of its own. Raises Refused."""
    given = json.dumps({"work": work, "path": str(path), "seconds": seconds, "options": options})
    with AT_ONCE, SANDBOX.connect() as connected:
        connected.settimeout(seconds + 5)  # it ends by itself before
        try:
            connected.sendall(given.encode() + b"\n")
            answer = b"".join(iter(lambda: connected.recv(1 << 16), b""))
        except (TimeoutError, ConnectionError):
            answer = b""
    try:
        found = json.loads(answer)
    except ValueError:
        raise Refused("This file cannot be read: it takes more memory or time than is allowed.") from None
    if "error" in found:
        raise Refused(found["error"])
    return found


def picture(path: Path, target: str) -> dict[str, Any]:
    """Write the picture's pixels alone as PNG, no larger than ``LONGEST_SIDE``."""
    from skyreels_audio.media import read_image, write_image

    pixels_HWC = read_image(path, LONGEST_SIDE)
    height, width = pixels_HWC.shape[:2]
    if min(height, width) < 32:
        raise Refused(f"This picture has only {width}×{height} pixels; a face needs more.")
    write_image(target, pixels_HWC)
    return {"width": width, "height": height}


def voice(path: Path, target: str, most_seconds: float) -> dict[str, Any]:
    """Write the sound alone as a WAV file of 16 bits, one channel."""
    import numpy as np

    from skyreels_audio.media import read_audio

    waveform_n = read_audio(path, VOICE_RATE)
    seconds = len(waveform_n) / VOICE_RATE
    if seconds > most_seconds:
        raise Refused(f"This voice lasts {seconds:.0f} s; at most {most_seconds:.0f} s are taken.")
    if np.abs(waveform_n).max() < SILENT:
        raise Refused("This sound is silent: nothing in it is louder than -60 dB.")
    with wave.open(target, "wb") as file:
        file.setparams((1, 2, VOICE_RATE, 0, "NONE", ""))
        file.writeframes((waveform_n.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
    return {"seconds": round(seconds, 3)}


def video(path: Path, most_seconds: float) -> dict[str, Any]:
    """Decode every frame once; the file stays as it is, for its pixels are to be kept."""
    from skyreels_audio.media import probe_video, read_video

    info = probe_video(path)
    if max(info.width, info.height) > LONGEST_SIDE:
        raise Refused(f"This video is {info.width}×{info.height}; at most {LONGEST_SIDE} pixels a side are taken.")
    if not 1 <= info.fps <= 120:
        raise Refused(f"This video has {info.fps:g} frames per second; from 1 to 120 can be edited.")
    frames = 0
    for _ in read_video(path):
        frames += 1
        if frames / info.fps > most_seconds:
            raise Refused(f"This video lasts longer than {most_seconds:.0f} s, the most that is taken.")
    return {"width": info.width, "height": info.height, "seconds": round(frames / info.fps, 3), "sound": info.has_audio}


def faces_of_picture(path: Path) -> dict[str, Any]:
    from skyreels_audio.app.render import look_at_picture

    return look_at_picture(path)


def faces_of_video(path: Path, seconds: float, face: str, target: str) -> dict[str, Any]:
    from skyreels_audio.app.render import look_at_video

    return look_at_video(path, seconds, face, target)


WORKS = {work.__name__: work for work in (picture, voice, video, faces_of_picture, faces_of_video)}


class Work(socketserver.StreamRequestHandler):
    """One file, in a fork, within limits that it cannot lift again."""

    def handle(self) -> None:
        given = json.loads(self.rfile.readline())
        signal.setitimer(signal.ITIMER_REAL, given["seconds"])  # ends the process
        for limit, most in (
            (resource.RLIMIT_AS, (FACES_GIGABYTES if "faces" in given["work"] else GIGABYTES) << 30),
            (resource.RLIMIT_CPU, SECONDS),
            (resource.RLIMIT_FSIZE, 1 << 30),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(limit, (most, most))
        path = Path(given["path"])
        try:
            found = WORKS[given["work"]](path, **given["options"])
        except MemoryError:
            found = {"error": "This file takes more memory to read than is allowed."}
        except ValueError as error:  # InputError and Refused; they name the file, which is the server's own
            found = {"error": str(error).replace(str(path), "This file")}
        self.wfile.write(json.dumps(found).encode())


class Forking(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    max_children = 8


def main() -> None:
    import skyreels_audio.media  # noqa: F401  # what every file needs, before the first comes

    def end_with_parent() -> None:
        sys.stdin.buffer.raw.read(1)  # pyright: ignore[reportAttributeAccessIssue]  # takes no lock into the forks
        os._exit(0)

    threading.Thread(target=end_with_parent, daemon=True).start()
    with Forking(sys.argv[1], Work) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
