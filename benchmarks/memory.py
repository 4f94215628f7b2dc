"""Peak resident memory of an edit of 4K, by the command itself in a process of its own.

The video is the example portrait, drawn by nobody's camera, enlarged to a frame of 3840 × 2160 and moved by a few
pixels from frame to frame; the voice is longer, so that frames are also read backwards. Frames are read one by one and
at most 256 MB of them are held, so that memory follows their size and not their number. What a long voice costs:
benchmarks/long_video.py.

    python benchmarks/memory.py [--frames 15] [--report docs/results/robustness.md]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from PIL import Image
from table import write_section

ROOT = Path(__file__).parents[1]
MOST = 3.0  # GB
WIDTH, HEIGHT, FPS = 3840, 2160, 25


def write_video(path: Path, frames: int) -> None:
    side = HEIGHT - 100
    face = Image.open(ROOT / "examples" / "portrait.jpg").convert("RGB").resize((side, side))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "ultrafast"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(frames):
            picture = Image.new("RGB", (WIDTH, HEIGHT), (90, 100, 110))
            picture.paste(face, (800 + 4 * number, 50 + number % 7))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
        container.mux(stream.encode(None))


def peak_of_edit(frames: int) -> tuple[float, float, int]:
    """Gigabytes, processor seconds, and frames of the edited video."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_video(folder / "4k.mp4", frames)
        sound = folder / "voice.wav"
        with wave.open(str(ROOT / "examples" / "voice.wav")) as voice, wave.open(str(sound), "wb") as cut:
            cut.setparams(voice.getparams())
            cut.writeframes(voice.readframes(round(1.4 * frames / FPS * voice.getframerate())))
        words = ["generate", "--video", folder / "4k.mp4", "--audio", sound, "-o", folder / "out.mp4", "--steps", "2"]
        process = subprocess.Popen([sys.executable, "-m", "skyreels_audio", *words], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit("the edit failed")
        with av.open(str(folder / "out.mp4")) as container:
            made = container.streams.video[0]
            assert (made.width, made.height) == (WIDTH, HEIGHT)
            return usage.ru_maxrss * 1024 / 1e9, usage.ru_utime + usage.ru_stime, made.frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=15)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    peak, seconds, frames = peak_of_edit(given.frames)
    lines = ["| edit | peak memory | bar | processor time |", "| --- | --- | --- | --- |"]
    lines.append(
        f"| {WIDTH}×{HEIGHT}, {frames} frames of {given.frames} | {peak:.2f} GB | ≤ {MOST:g} GB | {seconds:.0f} s |"
    )
    print("\n".join(lines))
    if given.report:
        write_section(given.report, "Memory", f"{(__doc__ or '').strip()}\n\n" + "\n".join(lines))
    sys.exit(peak > MOST)


if __name__ == "__main__":
    main()
