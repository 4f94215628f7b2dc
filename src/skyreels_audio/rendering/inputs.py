"""What a voice and a video must be to be rendered. Imports little by itself."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skyreels_audio.media import Sound

SILENT = 1e-3  # a peak below this (-60 dB) is silence


def read_voice(path: Path) -> "Sound":
    """The sound as the model hears it, at 16 kHz. Raises InputError for silence."""
    from skyreels_audio.media import InputError, read_sound

    sound = read_sound(path)
    if abs(sound.waveform_n).max() < SILENT:
        raise InputError(f"{path} is silent: nothing in it is louder than -60 dB.")
    return sound


def frame_rate(video: Path) -> float:
    """Frames per second of a video. Raises InputError where that is not within reason."""
    from skyreels_audio.media import InputError, probe_video

    fps = probe_video(video).fps
    if not 1 <= fps <= 120:
        raise InputError(f"{video} has {fps:g} frames per second; from 1 to 120 can be edited.")
    return fps
