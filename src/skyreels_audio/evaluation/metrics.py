"""Every figure that a table may show: its name, which way is better, and what it needs."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """``proxy``: stands for something it is not. ``compares``: with the true clip, which itself then has no figure."""

    title: str
    better: Literal["↑", "↓", "→"]  # →: like the ground truth's
    unit: str = ""
    digits: int = 2
    proxy: bool = False
    compares: bool = False


METRICS = {
    "fid": Metric("FID", "↓", compares=True),
    "fvd": Metric("FVD", "↓", compares=True),
    "frechet_proxy": Metric("Fréchet distance of EfficientNet-Lite features, for FID", "↓", compares=True, proxy=True),
    "sync_c": Metric("Sync-C", "↑"),
    "sync_d": Metric("Sync-D", "↓"),
    "sync_offset": Metric("sync offset: sound late by", "→", "frames", 1),
    "iqa": Metric("IQA (Q-Align)", "↑"),
    "ase": Metric("ASE (Q-Align)", "↑"),
    "sharpness": Metric("sharpness by re-blurring, for IQA", "↑", "0…1", 3, proxy=True),
    "identity": Metric("identity: distance to the reference (dlib)", "↓", digits=3),
    "identity_drift": Metric("identity: last second's distance less the first's", "→", digits=3),
    "lips_r": Metric("lips: aperture against the true clip, r", "↑", compares=True),
    "lips_lag": Metric("lips: aperture late by", "→", "frames", 1, compares=True),
    "lips_amplitude": Metric("lips: amplitude over the true clip's", "→", compares=True),
    "lip_distance": Metric("lips: landmark distance to the true clip", "↓", "% of face", compares=True),
    "voice_r": Metric("lips: aperture against the voice's loudness, r", "↑", proxy=True),
    "closures": Metric("lips meet on p b m", "↑", "share"),
    "closures_chance": Metric("lips meet at random times", "→", "share"),
    "silence": Metric("movement in silence over that in speech", "↓"),
    "sound_offset": Metric("sound track late against the voice by", "→", "ms", 0),
    "length_error": Metric("video longer than the voice by", "→", "s"),
    "mouth_sharpness": Metric("sharpness of the mouth over the reference's", "→"),
    "tiles": Metric("steps at borders of tiles over those elsewhere", "→", digits=3),
    "flicker": Metric("flicker where nothing moves", "↓", "levels"),
    "repeated": Metric("repeated frames", "↓", "share"),
    "jerks": Metric("steps at every fourth frame over those between", "→"),
    "colour_drift": Metric("colour drift, last second to the first", "↓", "ΔE"),
    "lip_colour": Metric("colour of the lips, to the reference's", "↓", "ΔE"),
    "blinks": Metric("blinks", "→", "per minute", 1),
    "head_motion": Metric("head motion", "→", "face/s", 3),
    "jaw_line": Metric("jaw line, distance to the source's", "↓", "% of face", compares=True),
    "chin": Metric("below the chin, difference to the source", "↓", "levels", compares=True),
    "outside": Metric("error outside the edit over the codec's own", "↓", "×", 1, compares=True),
    "psnr": Metric("PSNR to the true clip", "↑", "dB", 1, compares=True),
    "ssim": Metric("SSIM to the true clip", "↑", digits=3, compares=True),
}
