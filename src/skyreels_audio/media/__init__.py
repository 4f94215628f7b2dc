"""Pictures, sound and video, in and out: the only room that touches a codec.

Pictures are uint8 HWC arrays in RGB, sound is mono float32 in [-1, 1]. What cannot be read or written raises
``InputError``, whose message is one sentence for a person and names the file.
"""

from skyreels_audio.media.files import InputError
from skyreels_audio.media.image import contact_sheet, read_image, write_image
from skyreels_audio.media.sound import CARRIED_CODECS, SAMPLE_RATE, read_audio
from skyreels_audio.media.stored import StoredFrame, read_stored
from skyreels_audio.media.video import AI_GENERATED, VideoInfo, VideoWriter, probe_video, read_video

__all__ = [
    "AI_GENERATED",
    "CARRIED_CODECS",
    "SAMPLE_RATE",
    "InputError",
    "StoredFrame",
    "VideoInfo",
    "VideoWriter",
    "contact_sheet",
    "probe_video",
    "read_audio",
    "read_image",
    "read_stored",
    "read_video",
    "write_image",
]
