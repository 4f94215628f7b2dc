"""A home that cannot be written, as containers and services have it: the command works all the same."""

import os
import subprocess
import sys
from pathlib import Path

from making import tones, write_wav

from skyreels_audio.media import probe_video


def test_no_home_is_needed(tmp_path: Path) -> None:
    """Not even root can make a folder in a device."""
    voice = write_wav(tmp_path / "voice.wav", tones(0.2, 16000, 1), 16000)
    homeless = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_", "TORCH_"))}
    command = [sys.executable, "-m", "skyreels_audio", "generate", "--audio", voice, "-o", tmp_path / "out.mp4"]
    ended = subprocess.run(
        [*command, "--steps", "1"], env=homeless | {"HOME": "/dev/null"}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "Warning" not in ended.stderr and "Traceback" not in ended.stderr
    assert probe_video(tmp_path / "out.mp4").frames == 5
