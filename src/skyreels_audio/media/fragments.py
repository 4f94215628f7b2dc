"""A video that is played while it is written: fragmented MP4, as browsers' Media Source takes it."""

from fractions import Fraction

import av
import numpy as np
from av.audio.frame import AudioFrame

from skyreels_audio.media.frames import Colour, to_yuv420p
from skyreels_audio.media.writer import AI_GENERATED

MIME = 'video/mp4; codecs="avc1.42C01F, flac"'
"""H.264 Constrained Baseline, level 3.1, and FLAC: neither holds frames or samples back, so sound and picture agree."""


class FragmentWriter:
    """Frames and the sound that belongs to them, in; bytes of an MP4, out, a fragment for each packet.

    Args:
        width, height: of the frames, even.
        fps: frames per second.
        rate: of the sound, in Hz.
    """

    def __init__(self, width: int, height: int, fps: int, rate: int) -> None:
        self.rate, self._bytes = rate, bytearray()
        # A fragment per frame by its duration: FFmpeg's own flag for that (frag_every_frame) shifts frames by one.
        options = {"movflags": "empty_moov+default_base_moof", "frag_duration": str(1_000_000 // fps)}
        self._output = av.open(self, "w", format="mp4", options=options | {"flush_packets": "1"})
        self._output.metadata["comment"] = AI_GENERATED
        how = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "level": "3.1", "crf": "20"}
        self._video = self._output.add_stream("libx264", rate=Fraction(fps), options=how | {"g": str(fps)})
        self._video.width, self._video.height, self._video.pix_fmt = width, height, "yuv420p"
        Colour().tag(self._video.codec_context)
        self._sound = self._output.add_stream("flac", rate=rate)
        self._sound.codec_context.format, self._sound.codec_context.layout = "s16", "mono"
        self._frames = self._samples = 0
        self._fps = fps

    def write(self, data: bytes) -> int:
        """The codec library's side: what it writes."""
        self._bytes += data
        return len(data)

    def add(self, frame_HWC: np.ndarray, sound_n: np.ndarray) -> bytes:
        """A frame (uint8) and the sound while it is shown (float in [-1, 1]) → what the file grows by."""
        picture = to_yuv420p(frame_HWC, Colour())
        picture.pts, picture.time_base = self._frames, Fraction(1, self._fps)
        self._frames += 1
        self._output.mux(self._video.encode(picture))
        sound = AudioFrame.from_ndarray((sound_n.clip(-1, 1) * 32767).astype(np.int16)[None], "s16", "mono")
        sound.rate, sound.pts, sound.time_base = self.rate, self._samples, Fraction(1, self.rate)
        self._samples += len(sound_n)
        self._output.mux(self._sound.encode(sound))
        return self._taken()

    def close(self) -> bytes:
        """The end of the file."""
        self._output.mux(self._video.encode(None))
        self._output.mux(self._sound.encode(None))
        self._output.close()
        return self._taken()

    def _taken(self) -> bytes:
        taken = bytes(self._bytes)
        self._bytes.clear()
        return taken
