"""Stage 9: what a clip looks and sounds like in 64 bits per second, and which clips of a pool are the same material."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from skyreels_audio.curation.footage import FPS, RATE, footage
from skyreels_audio.curation.schema import Clip
from skyreels_audio.curation.stage import Stage

SIDE = 32  # pixels of the picture that is hashed
BANDS, PARTS = 17, 4  # of a second's sound: 16 differences between bands, in each of 4 parts
PIECE = 16  # bits of a hash that must agree exactly for two clips to be compared at all


class Fingerprint(Stage):
    """Perceptual hashes: the signs of a picture's lowest frequencies, and of the slope of a sound's spectrum."""

    name: ClassVar[str] = "fingerprint"

    def __call__(self, clip: Clip) -> Clip:
        shown = footage(clip)
        video = [picture_hash(luma_HW) for luma_HW in shown.luma_FHW[FPS // 2 :: FPS]]
        audio = sound_hashes(shown.sound_n) if clip.has_audio else []
        return replace(clip, video_hash=video, audio_hash=audio)


def picture_hash(luma_HW: np.ndarray) -> int:
    """64 signs of the DCT's lowest frequencies about their median (pHash; Zauner, 2010), as a signed integer."""
    from PIL import Image
    from scipy.fft import dctn

    small = Image.fromarray(np.asarray(luma_HW, np.float32)).resize((SIDE, SIDE), Image.Resampling.BOX)
    lowest = np.asarray(dctn(np.asarray(small, np.float64)))[:8, :8].ravel()
    return _bits_to_int(lowest > np.median(lowest[1:]))


def sound_hashes(sound_n: np.ndarray) -> list[int]:
    """For each whole second 64 signs: is a band's share of the sound growing against its neighbour's.

    After Haitsma & Kalker, "A highly robust audio fingerprinting system", 2002.
    """
    edges = np.geomspace(200, 4000, BANDS + 1)
    out = []
    for second_n in (sound_n[at : at + RATE] for at in range(0, len(sound_n) - RATE + 1, RATE)):
        levels = []
        for part_n in np.array_split(second_n, PARTS):
            power = np.square(np.abs(np.fft.rfft(part_n * np.hanning(len(part_n)))))
            hertz = np.fft.rfftfreq(len(part_n), 1 / RATE)
            index = np.digitize(hertz, edges) - 1
            levels.append([np.log(power[index == band].sum() + 1e-9) for band in range(BANDS)])
        slopes = np.diff(np.array(levels, float), axis=1)
        out.append(_bits_to_int(np.greater(slopes, np.median(slopes, axis=0)).ravel()))
    return out


def near_duplicates(clips: Iterable[Clip], video_bits: int, audio_bits: int) -> dict[str, str]:
    """Clip → an earlier clip with the same pictures and the same sound, second by second.

    Pictures alone do not tell: a speaker's clips before the same wall all look alike. Candidates share a sixteen-bit
    piece of a second's sound, or without sound of its picture; a pool is read once, and memory grows with the clips.
    """
    known: dict[tuple[bool, int, int], list[Clip]] = defaultdict(list)
    found: dict[str, str] = {}
    for clip in clips:
        key = clip.audio_hash or clip.video_hash or []
        pieces = [(bool(clip.audio_hash), k, (word >> (PIECE * k)) & 0xFFFF) for word in key[:2] for k in range(4)]
        candidates = {other.id: other for piece in pieces for other in known[piece]}
        twin = next((o for o in candidates.values() if _same(clip, o, video_bits, audio_bits)), None)
        if twin is not None:
            found[clip.id] = twin.id
            continue
        light = replace(clip, landmarks=None, boxes=None)
        for piece in pieces:
            known[piece].append(light)
    return found


def _same(a: Clip, b: Clip, video_bits: int, audio_bits: int) -> bool:
    if abs((a.seconds or 0) - (b.seconds or 0)) > 0.5 or bool(a.audio_hash) != bool(b.audio_hash):
        return False
    video = _distance(a.video_hash or [], b.video_hash or [])
    audio = _distance(a.audio_hash or [], b.audio_hash or [])
    return video <= video_bits and audio <= audio_bits


def _distance(a: Sequence[int], b: Sequence[int]) -> float:
    """Mean number of bits in which the seconds that both have differ."""
    pairs = list(zip(a, b, strict=False))
    return float(np.mean([((x ^ y) & (1 << 64) - 1).bit_count() for x, y in pairs])) if pairs else 0.0


def _bits_to_int(bits: np.ndarray) -> int:
    return int(np.packbits(np.asarray(bits, bool)).view(">i8")[0])
