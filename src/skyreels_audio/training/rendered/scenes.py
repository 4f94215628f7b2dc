"""One training clip before encoding: a drawn person, an animated photograph, or a recorded speaker."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from skyreels_audio import faces, media
from skyreels_audio.faces.align import placement
from skyreels_audio.faces.framing import MOUTH_CENTRE
from skyreels_audio.faces.warp import invert, warp
from skyreels_audio.synthetic.motion import Manner, Motion, animate
from skyreels_audio.training.rendered.recipe import ClipShare, ClipsRecipe

if TYPE_CHECKING:
    from skyreels_audio.training.rendered.render import Speech

STILLS = 3  # the face at rest or the photograph, the first frame, a frame from anywhere
GESTURE_SHARE = 0.25  # of clips whose head moves
UNSMILING = 0.5  # share of expressions whose face at rest is neutral, so that the words alone ask for them
JITTER = 0.04, 0.012  # deviation of a face's size and place from the frame's rule: landmarks are never exact
FINE = 512  # side of a photograph that is to be animated


@dataclass(frozen=True)
class Scene:
    frames_FHWC: np.ndarray
    stills_RHWC: np.ndarray
    lip_mask_FHW: np.ndarray  # uint8
    speech: "Speech"
    caption: str
    kind: str


def scene_of(
    kind: ClipShare,
    recipe: ClipsRecipe,
    split: str,
    seed: int,
    speak: Callable[[int, int], "Speech"],
    listen: Callable[[np.ndarray], torch.Tensor],
) -> Scene | None:
    """A scene of this kind; None where the drawn photograph or recording cannot be used."""
    rng = np.random.default_rng(seed)
    frames = recipe.data.frames
    if kind.source == "video":
        assert recipe.data.videos is not None
        return recorded(recipe.data.videos, split, frames, recipe.data.size, rng, listen)
    manner = sample_manner(kind, rng)
    if kind.source == "photograph":
        assert recipe.data.photographs is not None
        manner = replace(manner, expression="neutral")  # on top of its own, which no words tell
        subject = photograph(recipe.data.photographs, split, manner, rng)
    else:
        # Odd seeds are people of training, even seeds are held out.
        subject = person(2 * (seed // 2) + (split == "train"), manner, rng)
    if subject is None:
        return None
    return rendered(*subject, kind.source, manner, speak(frames, seed), frames, recipe.data.size, seed)


def posed(recipe: ClipsRecipe, split: str, seed: int, silence: "Speech") -> Scene:
    """One frame of a drawn person who says nothing: what a sentence without a picture is learned from."""
    rng = np.random.default_rng(seed)
    manner = sample_manner(recipe.data.kinds[0], rng)
    subject = person(2 * (seed // 2) + (split == "train"), manner, rng)
    return rendered(*subject, "synthetic", manner, silence, 1, recipe.data.size, seed)


def sample_manner(kind: ClipShare, rng: np.random.Generator) -> Manner:
    expressions = ["neutral", "smiling", "sad", "surprised", "angry"]
    moves = kind.head != "still"
    return Manner(
        expression=str(rng.choice(expressions, p=[0.45, 0.3, 0.09, 0.08, 0.08])) if kind.expressions else "neutral",
        head=kind.head,
        gesture=str(rng.choice(["nodding", "shaking"])) if moves and rng.random() < GESTURE_SHARE else None,
        blinks=kind.blinks,
        upper_face=moves,
    )


def person(seed: int, manner: Manner, rng: np.random.Generator):
    """A drawn person as the renderer's subject, and a caption."""
    from skyreels_audio.synthetic.appearance import sample_appearance
    from skyreels_audio.synthetic.background import sample_background
    from skyreels_audio.synthetic.captions import background_attributes, caption, manner_attributes, person_attributes
    from skyreels_audio.synthetic.person import dress
    from skyreels_audio.synthetic.rig import Rig

    rig = Rig.load()
    identity = rig.identity(seed)
    appearance = sample_appearance(seed, identity)
    background = sample_background(rng)
    known = person_attributes(identity, appearance) | background_attributes(background) | manner_attributes(manner)
    subject = dress(rig, identity, appearance, background)
    return replace(subject, view_projection=aligned(rig, subject, jitter(rng))), caption(known, rng)


def jitter(rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """How much larger, and how far off its place (in fractions of the frame), a face stands."""
    size, place = JITTER
    return float(np.exp(rng.normal(0, size))), rng.normal(0, place, 2)


def aligned(rig, subject, deviation: tuple[float, np.ndarray] = (1.0, np.zeros(2))) -> np.ndarray:
    """The subject's camera matrix, its lens shifted and zoomed so that the mouth stands as `faces.framing` wants it."""
    from skyreels_audio.faces.framing import EYES_TO_MOUTH, MOUTH_CENTRE, anchors
    from skyreels_audio.faces.landmarks import MESH_TO_68

    matrix = subject.view_projection.copy()
    points = np.c_[rig.landmarks(subject.vertices_V3[None])[0][list(MESH_TO_68)], np.ones(68)] @ matrix.T
    eyes, mouth = anchors(points[:, :2] / points[:, 3:])
    zoom = deviation[0] * 2 * EYES_TO_MOUTH / float(np.linalg.norm(mouth - eyes))
    x, y = MOUTH_CENTRE + deviation[1]
    wanted = np.array([2 * x - 1, 1 - 2 * y])
    matrix[:2] = zoom * matrix[:2] + (wanted - zoom * mouth)[:, None] * matrix[3]
    return matrix


def photograph(folder: Path, split: str, manner: Manner, rng: np.random.Generator):
    """An animated photograph as the renderer's subject, and a caption; None if the picture does not lend itself."""
    from skyreels_audio.synthetic.captions import caption, manner_attributes
    from skyreels_audio.synthetic.photograph import animate_photograph, suitable

    paths = _photographs(folder, split)
    image, face = _portrait(paths[int(rng.integers(len(paths)))])
    if face is None or not suitable(face):
        return None
    size, place = jitter(rng)
    image, face = _framed(image, face, size, place)
    if not suitable(face):  # now upright
        return None
    return animate_photograph(image, face, framed=True), caption(manner_attributes(manner), rng)


def _framed(image: np.ndarray, face: faces.Face, size: float, place: np.ndarray) -> tuple[np.ndarray, faces.Face]:
    """The photograph as `generate` aligns a portrait, but for a jitter."""
    to_picture = placement(face.landmarks, (FINE, FINE))
    middle = FINE * np.array(MOUTH_CENTRE)
    to_picture = np.c_[to_picture[:, :2] / size, to_picture @ [*(middle - (middle + FINE * place) / size), 1.0]]
    points = face.landmarks.astype(np.float64)
    back = invert(to_picture)
    scale = np.sqrt(abs(np.linalg.det(back[:, :2])))
    points = np.c_[points[:, :2] @ back[:, :2].T + back[:, 2], points[:, 2] * scale].astype(np.float32)
    framed = warp(Image.fromarray(image), to_picture, (FINE, FINE))
    return framed, replace(face, landmarks=points, box_xyxy=faces.face_box(points))


@lru_cache(maxsize=4)
def _photographs(folder: Path, split: str) -> list[Path]:
    from skyreels_audio.synthetic import photograph as photographs
    from skyreels_audio.training.autoencoder import IMAGE_TYPES

    pictures = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_TYPES)
    return [path for path in pictures if photographs.split(path.name) == split]


@lru_cache(maxsize=512)
def _portrait(path: Path) -> tuple[np.ndarray, faces.Face | None]:
    image = media.read_image(path)
    return image, next(iter(faces.detect_faces(image)), None)


@lru_cache(maxsize=1)
def _renderer(size: int):
    from skyreels_audio.synthetic.render import Renderer

    return Renderer(size)


def rendered(
    subject, caption: str, kind: str, manner: Manner, speech: "Speech", frames: int, size: int, seed: int
) -> Scene:
    """Animate and draw a subject: one frame at rest, then the clip."""
    silence = np.zeros_like(speech.curves)
    at_rest = replace(manner, blinks=False)
    if frames > 1 and np.random.default_rng([seed, 1]).random() < UNSMILING:
        at_rest = replace(at_rest, expression="neutral")
    rest = animate(silence, np.zeros_like(speech.loudness), np.random.default_rng(seed), at_rest, 1)
    motion = animate(speech.curves, speech.loudness, np.random.default_rng(seed), manner, frames)
    weights, rotation, translation, gaze = map(np.concatenate, zip(_arrays(rest), _arrays(motion), strict=True))
    both = Motion(weights, rotation, translation, gaze)
    result = _renderer(size).render(subject, both)
    anywhere = int(np.random.default_rng(seed).integers(1, frames + 1))
    stills = result.frames[[0, 1, anywhere]]
    if subject.skin == "photograph":  # which may show teeth that the rig at rest hides
        stills[0] = Image.fromarray(subject.background.picture).resize((size, size), Image.Resampling.LANCZOS)
    return Scene(
        frames_FHWC=result.frames[1:],
        stills_RHWC=stills,
        lip_mask_FHW=result.lip_mask[1:],
        speech=speech,
        caption=caption,
        kind=kind,
    )


def _arrays(motion: Motion) -> tuple[np.ndarray, ...]:
    return motion.weights_TK, motion.rotation_T3, motion.translation_T3, motion.gaze_T2


@lru_cache(maxsize=64)
def _recording(path: Path, size: int) -> tuple[np.ndarray, list[faces.Face | None], np.ndarray]:
    """Frames of a recording cut around the face of its first frame, the faces in the cut frames, and its sound."""
    everything = list(media.read_video(path))
    found = faces.detect_faces(everything[0])
    box = faces.portrait_crop(everything[0], found[0] if found else None, (size, size))
    frames = [
        np.asarray(Image.fromarray(f).resize((size, size), Image.Resampling.BICUBIC, box=box)) for f in everything
    ]
    detected = [faces.detect_faces(frame) for frame in frames]
    return np.stack(frames), [d[0] if d else None for d in detected], media.read_audio(path)


def recorded(folder: Path, split: str, frames: int, size: int, rng: np.random.Generator, listen) -> Scene | None:
    """A stretch of a recorded speaker. Its viseme curves are unknown: they stay NaN and are left out of their loss."""
    from skyreels_audio.synthetic.captions import caption
    from skyreels_audio.synthetic.visemes import VISEME_CHANNELS
    from skyreels_audio.training.autoencoder import VIDEO_TYPES, files_of
    from skyreels_audio.training.rendered.clips import AUDIO_MARGIN
    from skyreels_audio.training.rendered.render import Speech

    paths = files_of(folder, VIDEO_TYPES, test=split == "test")
    everything, found, waveform = _recording(paths[int(rng.integers(len(paths)))], size)
    if len(everything) < frames or any(face is None for face in found):
        return None
    first = int(rng.integers(len(everything) - frames + 1))
    window = slice(first, first + frames)
    landmarks = [face.landmarks for face in found[window] if face is not None]
    features = listen(waveform)
    tokens = np.arange(2 * first - AUDIO_MARGIN, 2 * (first + frames) + AUDIO_MARGIN).clip(0, len(features) - 1)
    unknown = torch.full((len(tokens), len(VISEME_CHANNELS)), float("nan"))
    speech = Speech(np.zeros((0, 9)), np.zeros(0), features[torch.from_numpy(tokens)], unknown)
    apertures = [faces.lip_aperture(points) for points in landmarks]
    anywhere = int(rng.integers(first, first + frames))
    return Scene(
        frames_FHWC=everything[window],
        stills_RHWC=everything[[first + int(np.argmin(apertures)), first, anywhere]],
        lip_mask_FHW=np.stack([(255 * faces.lip_mask(p, (size, size))).astype(np.uint8) for p in landmarks]),
        speech=speech,
        caption=caption({"noun": "young man", "sex": "man"}, rng),
        kind="video",
    )
