"""Stage 9: what a clip looks and sounds like in a few bits, again and again, and which clips of a pool are the same.

Legend: T moments of the sound, ten a second; B differences between bands.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from skyreels_audio.curation.footage import RATE, footage
from skyreels_audio.curation.schema import Clip
from skyreels_audio.curation.stage import Stage

SIDE = 32  # pixels of the picture that is hashed
EVERY = 5  # frames between pictures: a copy that begins elsewhere is at most two and a half of them beside
BANDS = 17  # of the sound: 16 differences between neighbours
HOP, WINDOW = RATE // 10, RATE // 2  # samples: windows overlap so that one of a copy that begins elsewhere is near
PER_PICTURE = 2  # sound hashes between two pictures
LEVELLED = 17  # hashes about whose mean a difference is large or small: a longer one would change where a copy begins
FLOOR = 0.01  # of the mean power of a band, under which sound is no longer told apart: codecs and noise change it
INDEXED = 40  # hashes from a clip's beginning by which it is found
SHARED = 2  # of them that must agree exactly at one distance in time for two clips to be compared at all
OVERLAP = 0.6  # of the hashes of the longer clip, for which both must have one


class Fingerprint(Stage):
    """Perceptual hashes: the signs of a picture's lowest frequencies, and of the slope of a sound's spectrum."""

    name: ClassVar[str] = "fingerprint"
    version: ClassVar[int] = 2

    def __call__(self, clip: Clip) -> Clip:
        shown = footage(clip)
        video = [picture_hash(luma_HW) for luma_HW in shown.luma_FHW[EVERY // 2 :: EVERY]]
        audio = sound_hashes(shown.sound_n) if clip.has_audio else []
        return replace(clip, video_hash=video, audio_hash=audio)


def picture_hash(luma_HW: np.ndarray) -> int:
    """64 signs of the DCT's lowest frequencies about their median (pHash; Zauner, 2010), as a signed integer."""
    from PIL import Image
    from scipy.fft import dctn

    small = Image.fromarray(np.asarray(luma_HW, np.float32)).resize((SIDE, SIDE), Image.Resampling.BOX)
    lowest = np.asarray(dctn(np.asarray(small, np.float64)))[:8, :8].ravel()
    return int(np.packbits(lowest > np.median(lowest[1:])).view(">i8")[0])


def sound_hashes(sound_n: np.ndarray) -> list[int]:
    """For every ``HOP`` 16 signs: is a band louder against its neighbour than around that time.

    After Haitsma & Kalker, "A highly robust audio fingerprinting system", 2002.
    """
    from scipy.ndimage import uniform_filter1d

    if len(sound_n) < WINDOW:
        return []
    windows_TN = np.lib.stride_tricks.sliding_window_view(sound_n, WINDOW)[::HOP]
    power_TK = np.square(np.abs(np.fft.rfft(windows_TN * np.hanning(WINDOW), axis=1)))
    edges = np.geomspace(200, 4000, BANDS + 1) * WINDOW / RATE
    band_TB = np.add.reduceat(power_TK[:, : int(edges[-1])], edges[:-1].astype(int), axis=1)
    slope_TB = np.diff(np.log(band_TB + FLOOR * band_TB.mean() + 1e-9), axis=1)
    signs_TB = slope_TB > uniform_filter1d(slope_TB, LEVELLED, axis=0, mode="nearest")
    return np.packbits(signs_TB, axis=1).view(">u2")[:, 0].astype(int).tolist()


@dataclass(frozen=True, eq=False)
class _Print:
    """What is kept of a clip to compare others with: picture hashes as uint64, sound hashes as uint16."""

    id: str
    video: np.ndarray
    audio: np.ndarray

    @property
    def key(self) -> tuple[bool, list[int]]:
        """Whether by sound, and the sixteen bits by which it is found; without sound the pictures' first."""
        words = self.audio if len(self.audio) else self.video >> np.uint64(48)
        return bool(len(self.audio)), words[:INDEXED].tolist()


def near_duplicates(clips: Iterable[Clip], video_bits: int, audio_bits: int) -> dict[str, str]:
    """Clip → an earlier clip with the same pictures and the same sound, at whatever distance in time.

    Pictures alone do not tell: a speaker's clips before the same wall all look alike. A pool is read once, and memory
    grows with the clips.
    """
    known: dict[tuple[bool, int], list[tuple[int, int]]] = defaultdict(list)  # hash → which clip has it, where
    kept: list[_Print] = []
    found: dict[str, str] = {}
    for clip in clips:
        mine = _Print(clip.id, _words(clip.video_hash, np.uint64), _words(clip.audio_hash, np.uint16))
        by_sound, words = mine.key
        votes = Counter(
            (other, at - here) for here, word in enumerate(words) if word for other, at in known[by_sound, word]
        )  # 0 is what silence sounds like
        least = min(SHARED, len(words))
        pairs = (pair for pair, count in votes.most_common() if count >= least)
        twin = next((kept[k].id for k, late in pairs if _same(mine, kept[k], late, video_bits, audio_bits)), None)
        if twin is not None:
            found[clip.id] = twin
            continue
        for at, word in enumerate(words):
            known[by_sound, word].append((len(kept), at))
        kept.append(mine)
    return found


def _same(a: _Print, b: _Print, late: int, video_bits: int, audio_bits: int) -> bool:
    """Whether they agree, in the mean of what both have, if ``b`` has everything ``late`` hashes later."""
    if not len(a.audio):
        return _apart(a.video, b.video, late) <= video_bits
    heard, seen = _apart(a.audio, b.audio, late), _apart(a.video, b.video, round(late / PER_PICTURE))
    return heard <= audio_bits and seen <= video_bits


def _apart(a: np.ndarray, b: np.ndarray, late: int) -> float:
    """Of 64 bits, how many differ in the mean; all if too little overlaps."""
    first, second = a[max(0, -late) :], b[max(0, late) :]
    count = min(len(first), len(second))
    if count < max(1.0, OVERLAP * max(len(a), len(b))):
        return 64.0
    return float(np.bitwise_count(first[:count] ^ second[:count]).mean()) * 8 / a.itemsize


def _words(hashes: list[int] | None, kind: type) -> np.ndarray:
    return np.array(hashes or [], np.int64).astype(kind)
