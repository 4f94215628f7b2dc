"""Every way to a video makes the same bytes: the command, ``python -m``, and Python as the README has it."""

import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from skyreels_audio import SkyReelsAudioPipeline, cli
from skyreels_audio.cli.benchmark import store
from skyreels_audio.media import VideoWriter, read_audio, read_image

FACE = Path(__file__).parents[1] / "faces" / "portrait.jpg"


def test_the_command_the_module_and_python_make_the_same_bytes(
    pipeline: SkyReelsAudioPipeline, voice: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sound = tmp_path / "model", tmp_path / "voice.wav"
    pipeline.save_pretrained(model)
    store(model, silence_guidance_fade=True, width=96, height=96)
    with wave.open(str(sound), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((voice * 32767).astype("<i2").tobytes())
    words = ["generate", "--image", str(FACE), "--audio", str(sound), "--model", str(model), "--seed", "7", "-o"]

    command = tmp_path / "command.mp4"
    monkeypatch.setattr(sys, "argv", ["skyreels-audio", *words, str(command)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code

    module = tmp_path / "module.mp4"
    one_thread = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run([sys.executable, "-m", "skyreels_audio", *words, str(module)], check=True, env=one_thread)

    python = tmp_path / "python.mp4"
    loaded = SkyReelsAudioPipeline.from_pretrained(model)
    video = loaded(image=read_image(FACE), audio=read_audio(sound), generator=torch.Generator().manual_seed(7))
    frames = list(video.frames)
    with VideoWriter(python, 96, 96, video.fps, audio=sound) as writer:
        for frame in frames:
            writer.write(frame)

    assert video.faces["found"] == 1 and len(frames) == 30
    assert any((frame != frames[0]).any() for frame in frames)
    assert command.read_bytes() == module.read_bytes() == python.read_bytes()
