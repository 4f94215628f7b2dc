"""The examples of docs/app.md, run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running import PATIENCE, Running

from skyreels_audio.media import read_audio, read_video

ROOT = Path(__file__).parents[2]
TOKEN = "a token for the documents"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "docs" / "app.md").read_text(), flags=re.M | re.S)


def test_the_examples_of_the_api_run(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    with Running(tmp_path / "data", token=TOKEN) as server:
        environment = os.environ | {"SERVER": server.url, "SKYREELS_TOKEN": TOKEN}
        shutil.copytree(ROOT / "examples", tmp_path / "examples")
        (curl,) = blocks("bash")
        how: Any = {"env": environment, "cwd": tmp_path, "timeout": PATIENCE}
        got = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, **how)
        assert '"state":"' in got.stdout.replace(" ", ""), got
        (python,) = blocks("python")
        subprocess.run([sys.executable, "-c", python], check=True, **how)
        assert b"ftyp" in (tmp_path / "talking.mp4").read_bytes()[:16]


def test_a_text_to_speech_stream_drives_a_live_face(tmp_path: Path) -> None:
    if shutil.which("espeak-ng") is None or shutil.which("ffmpeg") is None:
        pytest.skip("espeak-ng or ffmpeg is not installed")
    with Running(tmp_path / "data", workers=0, speaker="stub_speaker:StubSpeaker") as server:
        address = f"ws://127.0.0.1:{server.options.port}/api/live"
        command = [sys.executable, str(ROOT / "examples" / "live_speech.py"), str(tmp_path / "live.mp4"), address]
        subprocess.run(command, input="Hello there.\n", text=True, check=True, timeout=PATIENCE)
    bright = [float(frame[64, 64].mean()) for frame in read_video(tmp_path / "live.mp4")]
    sound_n = read_audio(tmp_path / "live.mp4")
    assert max(bright) > 60 > min(bright)  # the mouth of the stub is as bright as the voice is loud
    assert abs(len(sound_n) / 16_000 - len(bright) / 25) < 0.5 and abs(sound_n).max() > 0.1
