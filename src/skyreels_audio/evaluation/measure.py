"""One generated video measured against its case. Shape letters: F frame."""

import json
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from skyreels_audio import faces, media
from skyreels_audio.evaluation import artefacts, motion, quality
from skyreels_audio.evaluation.cases import Case
from skyreels_audio.evaluation.features import efficientnet_weights
from skyreels_audio.evaluation.identity import distances, identities
from skyreels_audio.evaluation.lips import correlation, curve_agreement
from skyreels_audio.evaluation.protocol import Protocol
from skyreels_audio.generation.edit_plan import COMPLETE
from skyreels_audio.models.rope import FRAMES_PER_LATENT

RATE = 16000
FEATURES = "inception", "i3d", "efficientnet"  # networks whose features are those of a set of videos
SAMPLED = 8  # frames of a clip for what hardly changes over time
SILENT = 10 ** (-35 / 20)  # of the voice's loud frames; below it a frame is silent
LONGEST_DELAY = 1.0  # seconds within which a sound track is looked for in the voice
TILES = (8, 16, 32)  # pixels: sides of the blocks of autoencoders and patches
MARGIN = 0.25  # of the lower face's box, left around it before what lies outside is judged


@dataclass(frozen=True)
class Networks:
    """Weight files given; None: not given. Sync is judged by our own expert where SyncNet's weights are not given."""

    inception: Path | None = None
    i3d: Path | None = None
    syncnet: Path | None = None
    efficientnet: Path | None = field(default_factory=efficientnet_weights)  # of the proxy for FID


@dataclass(frozen=True, eq=False)
class Seen:
    """What a video shows, in the protocol's size and rate."""

    frames_FHWC: np.ndarray
    points_F682: np.ndarray
    boxes_F4: np.ndarray  # nan where no face is seen
    sound_n: np.ndarray | None
    fps: float

    @classmethod
    def of(cls, path: Path, protocol: Protocol) -> "Seen":
        """Raises InputError for a broken file, ValueError without a face."""
        frames = read_frames(path, protocol)
        tracks = faces.track_faces(frames)
        if not tracks:
            raise ValueError("no frame shows a face")
        boxes = [np.full(4, np.nan) if face is None else face.box_xyxy for face in tracks[0].faces]
        try:
            sound_n = media.read_audio(path, RATE)
        except media.InputError:  # silent
            sound_n = None
        return cls(frames, motion.interpolated(tracks[0]), np.stack(boxes), sound_n, protocol.fps)

    @cached_property
    def aperture_F(self) -> np.ndarray:
        return motion.aperture(self.points_F682)

    @cached_property
    def still_HW(self) -> np.ndarray:
        """Where nothing moves when somebody speaks."""
        return quality.static_mask(self.points_F682[0], self.frames_FHWC.shape[1:3])

    @cached_property
    def identities(self) -> list[np.ndarray | None]:
        """Who is seen in the sampled frames. Raises ImportError without ``[eval]``."""
        return identities(self.frames_FHWC[self.sampled])

    @property
    def sampled(self) -> np.ndarray:
        return np.linspace(0, len(self.frames_FHWC) - 1, min(SAMPLED, len(self.frames_FHWC))).round().astype(int)


def read_frames(path: Path, protocol: Protocol) -> np.ndarray:
    """uint8 [F, H, W, 3] at the protocol's rate and size: the middle of the picture, scaled. Raises InputError."""
    size, frames = (protocol.width, protocol.height), []
    for frame in media.read_video(path, protocol.fps):
        if frame.shape[1::-1] != size:
            height, width = frame.shape[:2]
            scale = min(width / size[0], height / size[1])
            left, top = (width - scale * size[0]) / 2, (height - scale * size[1]) / 2
            box = (left, top, width - left, height - top)
            frame = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS, box=box))
        frames.append(frame)
        if len(frames) == protocol.frames:
            break
    if len(frames) < 3:
        raise media.InputError(f"{path} has {len(frames)} frames, too few to measure.")
    info = media.probe_video(path)
    if info.whole and len(frames) < COMPLETE * min(info.duration * protocol.fps, protocol.frames):
        shown = len(frames) / protocol.fps
        raise media.InputError(f"{path} is truncated: it holds {shown:.2f} s of {info.duration:.2f} s of picture.")
    return np.stack(frames)


@dataclass
class Measured:
    """Figures and curves of one video, as they are found; ``missing`` says why one is not there. All go into JSON."""

    values: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)


def measure(
    video: Path, case: Case, truth: Seen | None, protocol: Protocol, networks: Networks
) -> tuple[Measured, dict[str, np.ndarray]]:
    """All figures of a video but those of whole sets, and the features (float32 [N, D]) that these need.

    ``truth`` is what ``case.truth`` shows. ``video`` may be that clip itself: comparisons with it are left out then.
    Raises InputError or ValueError, in one sentence, for a video that cannot be measured.
    """
    own = truth if truth is not None and video == case.truth else Seen.of(video, protocol)
    sound = case.sound
    voice_n = own.sound_n if sound is None or sound == video else media.read_audio(sound, RATE)
    out = Measured()
    _alone(own, out)
    _sync(own, networks, out)
    _identity(own, case, truth, out)
    _voice(own, voice_n, case, video, protocol, out)
    reference = _reference(case, truth, own)
    out.values["mouth_sharpness"] = artefacts.mouth_sharpness(
        own.frames_FHWC[own.sampled], own.points_F682[own.sampled], *reference
    )
    lips = artefacts.lip_colours(own.frames_FHWC[own.sampled], own.points_F682[own.sampled])
    out.values["lip_colour"] = artefacts.colour_drift(lips, np.nanmean(artefacts.lip_colours(*reference), 0))
    if truth is not None and truth is not own:
        _against(own, truth, protocol, out)
    features = {}
    for name in FEATURES:
        if (path := getattr(networks, name)) is not None:
            features[name] = network(name, path)(own.frames_FHWC)
    known = {name: float(value) for name, value in out.values.items() if np.isfinite(value)}
    return Measured(known, out.missing, out.curves), features


@cache
def network(name: str, path: Path) -> Any:
    """A feature network, loaded once per process."""
    from skyreels_audio.evaluation import features

    return getattr(features, name)(path)


@cache
def sync_expert(syncnet: Path | None) -> Any:
    """The published SyncNet of a file, or our own; raises InputError where there is none."""
    from skyreels_audio.models.syncnet import SyncNet, load_sync_expert

    return load_sync_expert() if syncnet is None else SyncNet.from_public(syncnet)


def _alone(own: Seen, out: Measured) -> None:
    """What needs nothing but the video."""
    frames, points, fps = own.frames_FHWC, own.points_F682, own.fps
    second = min(round(fps), len(frames) // 2)
    first, last = (
        artefacts.region_colours(part[:: max(second // 4, 1)], own.still_HW)
        for part in (frames[:second], frames[-second:])
    )
    lower = quality.box_mask(faces.lower_face_box(points[0]), frames.shape[1:3])
    out.values |= {
        "sharpness": artefacts.sharpness(frames[own.sampled]),
        "tiles": max(artefacts.tile_border_ratio(frames[own.sampled], tile, lower) for tile in TILES),
        "flicker": artefacts.flicker(frames[: 4 * SAMPLED], own.still_HW),
        "repeated": artefacts.repeated_frames(frames, lower),
        "jerks": artefacts.jerks(frames, FRAMES_PER_LATENT),
        "colour_drift": artefacts.colour_drift(last, first.mean(0)),
        "blinks": motion.blink_rate(points, fps),
        "head_motion": motion.head_motion(points, fps),
    }
    out.curves["lips"] = np.round(own.aperture_F, 4).tolist()


def _sync(own: Seen, networks: Networks, out: Measured) -> None:
    names = ("sync_c", "sync_d", "sync_offset")
    if own.sound_n is None:
        out.missing |= dict.fromkeys(names, "the video has no sound")
        return
    try:
        from skyreels_audio.models.syncnet import face_crops

        expert = sync_expert(networks.syncnet)
        found = expert.offset_and_confidence(face_crops(own.frames_FHWC, own.boxes_F4), own.sound_n)
    except (media.InputError, ImportError) as error:
        out.missing |= dict.fromkeys(names, f"needs syncnet_v2.model ({error})")
    except ValueError as error:
        out.missing |= dict.fromkeys(names, str(error))
    else:
        out.values |= dict(zip(names, (found.confidence, found.distance, float(found.offset)), strict=True))


def _identity(own: Seen, case: Case, truth: Seen | None, out: Measured) -> None:
    try:
        if case.portrait is None:
            reference = (truth or own).identities[0]
        else:
            (reference,) = identities([media.read_image(case.portrait)])
        found = distances(reference, own.identities)
    except ImportError:
        out.missing |= dict.fromkeys(("identity", "identity_drift"), "needs dlib: pip install '.[eval]'")
        return
    if len(found):
        out.values["identity"] = float(found.mean())
    if len(found) == SAMPLED:
        out.values["identity_drift"] = float(found[-2:].mean() - found[:2].mean())


def _voice(own: Seen, voice_n: np.ndarray | None, case: Case, video: Path, protocol: Protocol, out: Measured) -> None:
    """Lips against what is heard, and the sound track against the voice."""
    if voice_n is None:
        for name in ("voice_r", "closures", "silence", "sound_offset", "length_error"):
            out.missing[name] = "there is no voice"
        return
    frames, fps = len(own.aperture_F), own.fps
    loud_F = loudness(voice_n, frames, fps)
    out.curves["voice"] = np.round(loud_F / max(float(loud_F.max()), 1e-6), 3).tolist()
    out.values["voice_r"] = correlation(own.aperture_F, loud_F)
    silent_F = loud_F < SILENT * np.percentile(loud_F, 95)
    out.values["silence"] = quality.silence_ratio(own.aperture_F, silent_F, fps)
    if np.isnan(out.values["silence"]):
        out.missing["silence"] = "the voice has no pause of a second"
    if case.phonemes is None:
        out.missing["closures"] = "needs NAME.phonemes.json in the reference folder"
    elif (found := motion.closures(own.aperture_F, json.loads(case.phonemes.read_text()), fps)) is not None:
        out.values |= {"closures": found.share, "closures_chance": found.chance}
    if case.sound not in (None, video):
        if own.sound_n is not None:
            out.values["sound_offset"] = 1000 * delay(own.sound_n, voice_n)
        length, cut = media.probe_video(video).duration, protocol.frames / fps
        out.values["length_error"] = min(length, cut) - min(len(voice_n) / RATE, cut)


def loudness(sound_n: np.ndarray, frames: int, fps: float) -> np.ndarray:
    """Root mean square of the sound during each frame [F]."""
    edges = np.round(np.arange(frames + 1) * RATE / fps).astype(int)
    squares = np.concatenate([[0.0], np.cumsum(np.square(sound_n, dtype=np.float64))])
    sums = np.diff(squares[edges.clip(0, len(sound_n))])
    return np.sqrt(np.maximum(sums, 0) * fps / RATE)


def delay(sound_n: np.ndarray, voice_n: np.ndarray) -> float:
    """Seconds by which a sound track comes later than the voice it carries; the best fit within ``LONGEST_DELAY``."""
    from scipy.signal import correlate

    count, reach = min(len(sound_n), len(voice_n)), round(LONGEST_DELAY * RATE)
    scores = correlate(sound_n[:count], voice_n[:count], method="fft")
    middle = count - 1
    near = scores[max(middle - reach, 0) : middle + reach + 1]
    return (int(near.argmax()) - min(reach, middle)) / RATE


def _reference(case: Case, truth: Seen | None, own: Seen) -> tuple[np.ndarray, np.ndarray]:
    """Frames and landmarks of what the picture should look like: the true clip, else the portrait, else the start."""
    if truth is not None:
        return truth.frames_FHWC[truth.sampled], truth.points_F682[truth.sampled]
    if case.portrait is not None:
        picture = media.read_image(case.portrait)
        found = faces.detect_faces(picture)
        if found:
            return picture[None], faces.landmarks_68(found[0])[None]
    return own.frames_FHWC[:1], own.points_F682[:1]


def _against(own: Seen, truth: Seen, protocol: Protocol, out: Measured) -> None:
    """Comparisons with the true clip, and in editing with the source, which is the same."""
    count = min(len(own.frames_FHWC), len(truth.frames_FHWC))
    lips, true_lips = own.aperture_F[:count], truth.aperture_F[:count]
    out.curves["true lips"] = np.round(true_lips, 4).tolist()
    if count > 20:
        agreement = curve_agreement(lips, true_lips)
        out.values |= {"lips_r": agreement.r, "lips_lag": float(agreement.lag)}
    chosen = np.linspace(0, count - 1, min(SAMPLED, count)).round().astype(int)
    frames, true = own.frames_FHWC[chosen], truth.frames_FHWC[chosen]
    out.values |= {
        "lips_amplitude": motion.amplitude_ratio(lips, true_lips),
        "lip_distance": 100 * motion.lip_distance(own.points_F682, truth.points_F682),
        "psnr": min(quality.psnr(own.frames_FHWC[:count:4], truth.frames_FHWC[:count:4]), 100.0),
        "ssim": float(np.mean([quality.ssim(a, b) for a, b in zip(frames, true, strict=True)])),
    }
    if protocol.task == "edit":
        out.values |= {
            "jaw_line": 100 * motion.jaw_line_distance(own.points_F682, truth.points_F682),
            "chin": artefacts.chin_change(frames, true, truth.points_F682[chosen]),
            "outside": artefacts.error_over_codec(
                own.frames_FHWC[:count], truth.frames_FHWC[:count], outside(truth), protocol.fps
            ),
        }


def outside(seen: Seen) -> np.ndarray:
    """Where no edit of the lower face reaches in any frame: bool [H, W]."""
    boxes = np.stack([faces.lower_face_box(points) for points in seen.points_F682])
    left, top, right, bottom = (*boxes[:, :2].min(0), *boxes[:, 2:].max(0))
    across, down = MARGIN * (right - left), MARGIN * (bottom - top)
    box = np.array([left - across, top - down, right + across, bottom + down])
    return ~quality.box_mask(box, seen.frames_FHWC.shape[1:3])
