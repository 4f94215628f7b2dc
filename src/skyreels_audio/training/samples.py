"""What a training looks like so far: its videos of clips that it does not see, and how their lips follow."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skyreels_audio.acceleration.ranks import rank
from skyreels_audio.evaluation.lips import correlation
from skyreels_audio.evaluation.motion import amplitude_ratio, aperture, track_landmarks
from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
from skyreels_audio.media import SAMPLE_RATE, VideoWriter, read_audio, read_video


class SampleVideos:
    """Makes a video of each clip's first frame and sound, with whatever weights ``transformer`` has at the moment."""

    def __init__(self, clips: Sequence[Path], model: Path, transformer: Any, device: torch.device) -> None:
        self.clips = clips
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        self.pipe: Any = SkyReelsAudioPipeline.from_pretrained(model, transformer=transformer, dtype=dtype).to(device)
        self.pipe.set_progress_bar_config(disable=True)

    @torch.no_grad()
    def make(self, folder: Path, step: int, size: tuple[int, int], frames: int) -> dict[str, float]:
        """Write ``folder/STEP-CLIP.mp4``, of ``size`` (H, W) and at most so many frames, with the clip's sound.

        In a training of several processes all must ask, since weights may lie in shards; the first one writes.

        Returns:
            means over clips: r of the lips' aperture to that of the clip, and its size over the clip's. A video that
            shows no face yet has none.
        """
        found: dict[str, list[float]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        fps, height, width = self.pipe.settings().fps, *size
        for clip in self.clips:
            true = np.stack(list(islice(read_video(clip, fps), frames)))
            voice_n = read_audio(clip)[: round(len(true) / fps * SAMPLE_RATE)]
            generator = torch.Generator().manual_seed(0)
            output = self.pipe(true[0], voice_n, height=height, width=width, generator=generator)
            made = np.stack(list(output.frames))
            if rank() == 0:
                with VideoWriter(folder / f"{step:07d}-{clip.stem}.mp4", width, height, fps, audio=clip) as video:
                    for frame in made:
                        video.write(frame)
            try:
                lips, aim = (aperture(track_landmarks(shown)) for shown in (made, true))
            except ValueError:
                continue
            lips, aim = lips[: len(aim)], aim[: len(lips)]
            found.setdefault("samples/lips_r", []).append(correlation(lips, aim))
            found.setdefault("samples/lips_amplitude", []).append(amplitude_ratio(lips, aim))
        return {name: float(np.mean(values)) for name, values in found.items()}
