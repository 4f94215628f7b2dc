"""What the pipeline may be given, checked once, and a picture brought into the frame of the video.

F pixel frame, H W pixels, n samples.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from skyreels_audio.faces import Face, detect_faces, fault, lip_aperture, portrait_crop
from skyreels_audio.faces.align import placement
from skyreels_audio.generation.compositing import Aligned
from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.portrait_from_words import generate_portrait
from skyreels_audio.generation.settings import Settings

log = logging.getLogger(__name__)

PORTRAIT_COMPONENTS = ("portrait_transformer", "portrait_vae", "portrait_text_encoder")

ALIKE = 0.8  # of the chosen face's height: a face that large might have been meant as well

Progress = Callable[[str, int, int], None]
"""Called with the phase ("portrait", "encode", "sample", "decode"), what is done of it, and all of it."""


@dataclass(frozen=True, eq=False)
class Framed:
    """A picture cut to the size of the video.

    Attributes:
        picture_HWC: uint8.
        landmarks: of its largest face, pixels of ``picture_HWC``; None: it has no face.
        faces: what was found, for reports: how many faces, the chosen one's box and the crop in the given picture.
    """

    picture_HWC: np.ndarray
    landmarks: np.ndarray | None
    faces: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Source:
    """The pixels that a video is made from, as the model sees them, and where they lie in a picture.

    Attributes:
        frames_FHWC: uint8; of a still picture one. None: nothing is given.
        known_FHW: which pixels of them stay; None: of a single frame all.
        landmarks: of the face in the first frame; None: there is none, or nobody asked.
        faces: see ``Framed``.
        aligned: the picture whose pixels a model of motion moves.
    """

    frames_FHWC: np.ndarray | None = None
    known_FHW: np.ndarray | None = None
    landmarks: np.ndarray | None = None
    faces: dict[str, Any] = field(default_factory=dict)
    aligned: Aligned | None = None


@dataclass(frozen=True, eq=False)
class Prepared:
    """All that the frames of one video are made from.

    Attributes:
        conditions: of the timeline, on the latent grid of whole frames.
        source: the pixels that they were made of.
        num_frames: of the video.
    """

    conditions: Conditions
    source: Source
    num_frames: int


def frame_picture(image: np.ndarray | Image.Image, size: tuple[int, int], around_face: bool = True) -> Framed:
    """Cut a picture to the aspect of ``size`` (H, W) and resize it.

    It is cut so that its largest face stands where training had faces, or in the middle: without a face, or where
    ``around_face`` is False.

    Raises:
        ValueError: the array is no picture, or it shows only a part of a face.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"image must be uint8 [H, W, 3], not {image.dtype} of shape {image.shape}.")
        image = Image.fromarray(image)
    image = image.convert("RGB")
    picture_HWC = np.asarray(image)
    found = detect_faces(picture_HWC)
    face = next((face for face in found if face.whole), None)
    if found and face is None:
        raise ValueError("Only a part of the face is in the picture: give one that shows all of it.")
    box = portrait_crop(picture_HWC, face if around_face else None, size)
    landmarks = None
    if face is not None:
        landmarks = face.landmarks.copy()
        scale = np.array([size[1], size[0]]) / [box[2] - box[0], box[3] - box[1]]
        landmarks[:, :2] = (landmarks[:, :2] - box[:2]) * scale
        warn_of(face, found, float(scale[1]))
    about = {
        "found": len(found),
        "chosen": None if face is None else [round(float(value), 1) for value in face.box_xyxy],
        "crop": [round(value, 1) for value in box],
        "roll": None if face is None else round(float(np.degrees(face.roll))),
    }
    cut = image.resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box)
    return Framed(np.array(cut), landmarks, about)


def warn_of(face: Face, found: list[Face], scale: float) -> None:
    """Say what may look wrong of a face that is to speak, or that it might as well have been another of those found.

    ``scale``: of the video's pixels to the picture's.
    """
    alike = sum(other.whole and other.height > ALIKE * face.height for other in found)
    if alike > 1:
        place = sorted(float(other.box_xyxy[0]) for other in found).index(float(face.box_xyxy[0])) + 1
        log.warning("%d faces of the picture are about as large; number %d from the left speaks.", alike, place)
    if abs(degrees := round(np.degrees(face.roll))) > 45:
        log.warning("the face in the picture is turned by %d°; it speaks as it lies.", degrees)
    if (reason := fault(replace(face, box_xyxy=face.box_xyxy * min(scale, 1.0)))) is not None:
        log.warning("the face in the picture is %s: its mouth may look wrong.", reason)


def same_shape(image: np.ndarray | Image.Image, size: tuple[int, int]) -> bool:
    """Whether a picture has the aspect of ``size`` (H, W), to a hundredth."""
    width, height = image.size if isinstance(image, Image.Image) else image.shape[1::-1]
    return abs(width * size[0] / (height * size[1]) - 1) < 0.01


def check_audio(audio: np.ndarray | Tensor | None) -> Tensor:
    """The voice as float32 [n].

    Raises:
        ValueError: it is missing, or not a mono array of finite floats.
    """
    if audio is None:
        raise ValueError("audio is missing: give the voice as a mono float array at 16 kHz.")
    waveform_n = torch.as_tensor(audio)
    if waveform_n.ndim != 1 or not waveform_n.is_floating_point():
        raise ValueError(
            f"audio must be a mono float array, not {waveform_n.dtype} of shape {tuple(waveform_n.shape)}."
        )
    if len(waveform_n) == 0 or not torch.isfinite(waveform_n).all():
        raise ValueError("audio is empty or holds values that are not finite.")
    return waveform_n.float()


def video_source(
    image: Any, video: np.ndarray | None, known: np.ndarray | None, num_frames: int, settings: Settings
) -> Source:
    """A video to edit: uint8 [F, H, W, 3], and what stays of it [F, H, W].

    Raises:
        ValueError: they have the wrong shape, or do not go together, or are fewer than the audio needs.
    """
    if video is None:
        raise ValueError("known says which pixels of a video stay, but no video was given.")
    if image is not None or known is None:
        raise ValueError("To edit a video give video and known (which pixels stay), and no image.")
    size = (settings.height, settings.width)
    if video.dtype != np.uint8 or video.shape[1:] != (*size, 3) or known.shape != video.shape[:3]:
        raise ValueError(
            f"video must be uint8 [F, {size[0]}, {size[1]}, 3] and known [F, {size[0]}, {size[1]}], "
            f"not {video.dtype} {video.shape} and {known.shape}."
        )
    if len(video) < num_frames:
        raise ValueError(f"The audio lasts {num_frames} frames but the video has {len(video)}; extend or trim one.")
    faces = detect_faces(video[0]) if settings.colour_strength > 0 else []
    return Source(video[:num_frames], known[:num_frames], faces[0].landmarks if faces else None)


def picture_source(
    model: Any,
    image: np.ndarray | Image.Image | None,
    prompt: str,
    settings: Settings,
    generator: torch.Generator | None,
    report: Progress,
) -> Source:
    """The given picture in the frame of the video. Without one: where its pixels are to move one from words, else none.

    Raises:
        ValueError: pixels are to move, but no face is seen, or this model makes no portraits.
    """
    size = (settings.height, settings.width)
    if not model.moves_pixels:
        return Source() if image is None else _still_source(frame_picture(image, size))
    if image is None:
        framed = frame_picture(_portrait_from_words(model, prompt, generator, report), size)
    else:  # it is cut only where another shape is asked for
        framed = frame_picture(image, size, around_face=not same_shape(image, size))
    if framed.landmarks is None:
        raise ValueError("No face was found in the picture: give one in which a face can be seen clearly.")
    crop = tuple(model.vae.config.size)
    place, aperture = placement(framed.landmarks, crop), lip_aperture(framed.landmarks)
    aligned = Aligned(framed.picture_HWC, place, crop, aperture, framed.landmarks)
    return Source(aligned.crop_HW3[None], landmarks=framed.landmarks, aligned=aligned, faces=framed.faces)


def _still_source(framed: Framed) -> Source:
    """A picture that the model draws anew in every frame."""
    if framed.landmarks is None:
        log.warning("no face found in the picture; going on with the whole frame.")
    return Source(framed.picture_HWC[None], landmarks=framed.landmarks, faces=framed.faces)


def _portrait_from_words(model: Any, prompt: str, generator: torch.Generator | None, report: Progress) -> np.ndarray:
    """A picture, uint8 [H, W, 3], by the components that only do this."""
    transformer, vae, text_encoder = (getattr(model, name) for name in PORTRAIT_COMPONENTS)
    if transformer is None or vae is None or text_encoder is None:
        raise ValueError("This checkpoint makes no portrait from words alone: give an image or a video.")
    report("portrait", 0, 1)
    picture_HWC = generate_portrait(prompt, transformer, vae, text_encoder, model.tokenizer, generator)
    report("portrait", 1, 1)
    return picture_HWC
