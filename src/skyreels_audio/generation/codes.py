"""Codes of motion on their way to the screen: calmer, smoother, no wider than who speaks them, and at other times.

Shape letters: F pixel frame, N channel of a code.
"""

import torch
from torch import Tensor

from skyreels_audio.models.inner_mouth import smoothstep
from skyreels_audio.models.motion_autoencoder import CHANNELS

KEEP_MOUTH, KEEP_EYES, HEAD = (CHANNELS.index(name) for name in ("keepMouth", "keepEyes", "yaw"))
JAW, PRESS, BLINK = (CHANNELS.index(name) for name in ("jawOpen", "mouthPress", "eyeBlink"))
# What actions part the lips by, of the face's height, on the rig; and those that are wider or less wide in a person.
OPENS = {
    CHANNELS.index(name): share
    for name, share in (("jawOpen", 0.195), ("mouthFunnel", 0.085), ("mouthUpperUp", 0.026), ("mouthLowerDown", 0.022))
}
PRESSING = [CHANNELS.index(name) for name in ("mouthPress", "mouthRollLower", "mouthRollUpper")]
WIDE = [CHANNELS.index(name) for name in ("jawOpen", "mouthFunnel", "mouthStretch", "mouthUpperUp", "mouthLowerDown")]
PUCKER, PURSES = CHANNELS.index("mouthPucker"), 0.016  # what it takes from that, on the rig
PURSED, ROUND, ROUNDS = (0.15, 0.4), 0.04, (0.004, 0.012)  # from what pucker on lips part at least so far, if so far
WIDER = 1.15  # times as far as is said: by landmarks, lips that are drawn softly are less far apart
HARDLY = 0.004, 0.016  # of the face's height: lips that are apart by less are closed, by more as far as is said
NARROWEST, SILENT, MEETING = 0.5, 0.015, 0.008
SMILE, BARED = 0.12, 0.05  # share of a smile that stays in speech, where lips are so far apart or further (of the face)
GRIN = 0.06  # how far lips may part at least, over the face's height, if they bare teeth
PRESSED = 0.35  # of lips that meet
INERTIA = 2.5  # frames of 25 per second, deviation of a Gaussian; it leaves 0.8 of a nod per second
SETTING_OFF = 10  # frames until the head moves as generated; the first is the picture


def scale_motion(codes_FN: Tensor, motion: float) -> Tensor:
    """Codes of a calmer head: 0 moves the mouth alone, 1 is as generated. Blinks stay whole from 0.5 on."""
    codes_FN = codes_FN.clone()
    codes_FN[:, HEAD:] *= motion
    codes_FN[:, KEEP_EYES] = 1 - (1 - codes_FN[:, KEEP_EYES]) * min(2 * motion, 1.0)
    return codes_FN


def steady_head(codes_FN: Tensor) -> Tensor:
    """Codes whose head has weight: its jumps from latent to latent are smoothed, and it sets off from where it was."""
    from scipy.ndimage import gaussian_filter1d

    codes_FN = codes_FN.clone()
    head_F5 = gaussian_filter1d(codes_FN[:, HEAD:].numpy(), INERTIA, axis=0, mode="nearest")
    setting_off_F = (torch.arange(len(codes_FN)) / SETTING_OFF).clamp(max=1)
    codes_FN[:, HEAD:] = setting_off_F[:, None] * torch.from_numpy(head_F5)
    return codes_FN


def keep_smile(codes_FN: Tensor, aperture: float) -> Tensor:
    """Codes of somebody whose picture bares teeth: they go on smiling while they speak, until lips must meet."""
    share_F = SMILE * min(aperture / BARED, 1.0) * (1 - lips_met(codes_FN))
    codes_FN = codes_FN.clone()
    codes_FN[:, KEEP_MOUTH] += (1 - codes_FN[:, KEEP_MOUTH]) * share_F
    return codes_FN


def speak_as_wide(codes_FN: Tensor, aperture: float) -> Tensor:
    """Codes for somebody whose lips are seldom further apart than ``aperture`` of the face: no wider than that.

    Who keeps silent all the time has shown nothing.
    """
    if aperture < SILENT:
        return codes_FN
    opened_F = parted(codes_FN) * (1 - codes_FN[:, KEEP_MOUTH])
    share = aperture / float(opened_F.quantile(0.95).clamp(min=1e-6))
    codes_FN = codes_FN.clone()
    codes_FN[:, WIDE] *= min(max(share, NARROWEST), 1.0)
    return codes_FN


def at_most(codes_BN: Tensor, aperture: float) -> Tensor:
    """Codes [B, N] of somebody who speaks behind a grin, hardly wider than that: below his teeth nothing is known."""
    own_B = parted(codes_BN).clamp(min=1e-6)
    most = max(aperture, GRIN)
    codes_BN = codes_BN.clone()
    codes_BN[:, WIDE] *= (most * (own_B / most).tanh() / own_B)[:, None]
    return codes_BN


def wider(codes_BN: Tensor) -> Tensor:
    """Codes [B, N] by which soft lips are as far apart as was said."""
    codes_BN = codes_BN.clone()
    codes_BN[:, WIDE] *= WIDER
    return codes_BN


def part_surely(codes_BN: Tensor) -> Tensor:
    """Codes [B, N] of lips that are apart or closed: between lips that hardly part a decoder makes ghosts of teeth."""
    codes_BN = codes_BN.clone()
    codes_BN[:, WIDE] *= smoothstep(*HARDLY, _pursed(codes_BN))[:, None]
    return codes_BN


def part_pursed(codes_BN: Tensor) -> Tensor:
    """Codes [B, N] of pursed lips that are apart for sure or not at all: of half a hole a decoder makes a smudge."""
    said_B, own_B = 1 - codes_BN[:, KEEP_MOUTH], _pursed(codes_BN)
    least_B = ROUND * smoothstep(*PURSED, codes_BN[:, PUCKER]) * smoothstep(*ROUNDS, own_B)
    codes_BN = codes_BN.clone()
    codes_BN[:, JAW] += (least_B - own_B).clamp(min=0) / (OPENS[JAW] * said_B.clamp(min=0.1))
    return codes_BN


def _pursed(codes_BN: Tensor) -> Tensor:
    """How far lips are apart [B] by what is said, less what a pucker takes from it."""
    return ((1 - codes_BN[:, KEEP_MOUTH]) * (parted(codes_BN) - PURSES * codes_BN[:, PUCKER])).clamp(min=0)


def close(codes_BN: Tensor, aperture: float) -> tuple[Tensor, Tensor]:
    """How far lips that are ``aperture`` apart come together, as a share of the way [B], and codes for what is left.

    A code keeps a share of what the picture shows, and that is less open then: the jaw makes up for it.
    """
    own_B = parted(codes_BN)
    wanted_B = own_B + codes_BN[:, KEEP_MOUTH] * (aperture - own_B)
    share_B = (1 - wanted_B / max(aperture, 1e-6)).clamp(min=0)
    codes_BN = codes_BN.clone()
    codes_BN[:, JAW] += (share_B > 0) * (wanted_B - own_B) / OPENS[JAW]
    return codes_BN, share_B


def at_times(codes_FN: Tensor, fps: float, frames: int, code_fps: float = 25.0) -> Tensor:
    """Codes of 25 per second, read at ``frames`` frame times of another rate, between codes in proportion."""
    times = torch.arange(frames, dtype=torch.float64) * code_fps / fps
    first = times.floor().long().clamp(max=len(codes_FN) - 1)
    share = (times - first).clamp(0, 1).to(codes_FN.dtype)[:, None]
    return torch.lerp(codes_FN[first], codes_FN[(first + 1).clamp(max=len(codes_FN) - 1)], share)


def parted(code_N: Tensor) -> Tensor:
    """How far a code [..., N] parts the lips, over the face's height, where nothing is kept of the source's own."""
    return (code_N[..., list(OPENS)] * torch.tensor(list(OPENS.values()))).sum(-1)


def lips_met(code_N: Tensor) -> Tensor:
    """How far lips are to meet [...], 0 to 1."""
    return (code_N[..., PRESS] / PRESSED).clamp(0, 1)
