"""A process of its own for what a visitor sends: decoded within limits of time and memory, its work a fresh file.

``python -m skyreels_audio.app.sandbox`` reads one JSON object from stdin and prints one: {"error": a sentence} or
what it found.
"""

import json
import os
import resource
import subprocess
import sys
import threading
import wave
from pathlib import Path
from typing import Any

GIGABYTES = 4  # of address space, the libraries' own 1.5 included
FACES_GIGABYTES = 16  # for files that were decoded before: following a face takes PyTorch, which maps much
AT_ONCE = threading.Semaphore(4)  # processes
SECONDS = 120  # of computing, and of waiting
MOST_SIDE = 4096  # pixels of a picture or video
VOICE_RATE = 48_000
SILENT = 1e-3  # a peak below this (-60 dB) is silence


class Refused(ValueError):
    """What a visitor sent cannot be used; the message is a sentence for them."""


def run(work: str, path: Path, seconds: float = SECONDS, **options: Any) -> dict[str, Any]:
    """Do one of ``WORKS`` to a file in a process of its own. Raises Refused."""
    given = json.dumps({"work": work, "path": str(path), "options": options})
    command = [sys.executable, "-m", "skyreels_audio.app.sandbox"]
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "LANG") if name in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        with AT_ONCE:
            how: Any = {"capture_output": True, "text": True, "timeout": seconds, "env": environment}
            done = subprocess.run(command, input=given, **how)
    except subprocess.TimeoutExpired:
        raise Refused(f"Reading this file took longer than {seconds:g} s, so it was given up.") from None
    try:
        found = json.loads(done.stdout.rpartition("\n")[2] or done.stdout)
    except ValueError:
        raise Refused("This file cannot be read: it takes more memory or time than is allowed.") from None
    if "error" in found:
        raise Refused(found["error"])
    return found


def picture(path: Path, target: str) -> dict[str, Any]:
    """Write the picture's pixels alone as PNG, no larger than ``MOST_SIDE``."""
    from skyreels_audio.media import read_image, write_image

    pixels_HWC = read_image(path, MOST_SIDE)
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
    if max(info.width, info.height) > MOST_SIDE:
        raise Refused(f"This video is {info.width}×{info.height}; at most {MOST_SIDE} pixels a side are taken.")
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


def main() -> None:
    """Within limits that the process cannot lift again."""
    given = json.loads(sys.stdin.read())
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
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
