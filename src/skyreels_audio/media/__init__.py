"""Pictures, sound and video, in and out: the only room that touches a codec.

Pictures are uint8 HWC arrays in RGB, sound is mono float32 in [-1, 1]. What cannot be read or written raises
``InputError``, whose message is one sentence for a person and names the file.
"""

from skyreels_audio.media.carrying import AudioCodec, Carriage, plan_carriage
from skyreels_audio.media.files import InputError
from skyreels_audio.media.frames import Colour, StoredFrame
from skyreels_audio.media.image import contact_sheet, image_changes, image_note, read_image, write_image
from skyreels_audio.media.sound import SAMPLE_RATE, Sound, read_audio, read_sound
from skyreels_audio.media.video import VideoInfo, probe_video, read_stored, read_video
from skyreels_audio.media.writer import AI_GENERATED, VideoWriter

__all__ = [
    "AI_GENERATED",
    "SAMPLE_RATE",
    "AudioCodec",
    "Carriage",
    "Colour",
    "InputError",
    "Sound",
    "StoredFrame",
    "VideoInfo",
    "VideoWriter",
    "contact_sheet",
    "image_changes",
    "image_note",
    "plan_carriage",
    "probe_video",
    "read_audio",
    "read_image",
    "read_sound",
    "read_stored",
    "read_video",
    "write_image",
]
