"""Stage 4: what is in the picture: people, faces, text, bars, stills, screens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import PrivateAttr

from skyreels_audio.curation.footage import FPS, footage
from skyreels_audio.curation.schema import Clip
from skyreels_audio.curation.stage import Stage, need_folder, need_packages

EVERY = FPS // 2  # frames between two that are searched for faces
TEXT_FRAMES = 2
TEXT_SIDE = 416  # pixels to which the shorter side is brought for the text detector
TEXT_SURE = 0.5  # its probability from which a pixel counts as text
BLACK = 8  # grey levels: what a bar's brightest pixels stay under; dark walls are brighter
STILL = 0.5  # mean grey step of two frames, in the cell that moves most, below which the picture stands
CELLS = 8  # per side of the picture
FLAT = 0.6  # grey levels: deviation in a block of 8 x 8 pixels that has one colour


class Content(Stage):
    """Counts over time.

    Faces by the offline detector. ``people_model``: a folder of an open-vocabulary detector in transformers' layout
    (OWLv2, Grounding DINO), asked for "a person"; without it ``people`` stays None.
    Text by PP-OCR's detection network, from the package rapidocr-onnxruntime.
    """

    name: ClassVar[str] = "content"
    version: ClassVar[int] = 3
    people_model: Path | None = None
    people_score: float = 0.3
    _people: Any = PrivateAttr(None)
    _text: Any = PrivateAttr(None)

    def check(self) -> None:
        need_packages(self.name, "onnxruntime", "rapidocr_onnxruntime")
        if self.people_model is not None:
            need_folder(self.name, self.people_model, "an open-vocabulary detector")

    def setup(self) -> None:
        self._text = TextDetector()
        if self.people_model is not None:
            from transformers import pipeline

            device = 0 if self.gpus else -1
            self._people = pipeline("zero-shot-object-detection", model=str(self.people_model), device=device)

    def __call__(self, clip: Clip) -> Clip:
        from skyreels_audio.faces import detect_faces

        shown = footage(clip)
        frames_FHWC = shown.frames_FHWC
        sampled = frames_FHWC[EVERY // 2 :: EVERY] if len(frames_FHWC) > EVERY else frames_FHWC[:1]
        faces = [detect_faces(frame) for frame in sampled]
        counts = np.array([len(found) for found in faces])
        at_least_twice = np.sort(counts)[-2:][0]
        looked_at = range(0, len(sampled), max(1, len(sampled) // TEXT_FRAMES))[:TEXT_FRAMES]
        texts = [self._text(sampled[k], [face.box_xyxy for face in faces[k]]) for k in looked_at]
        return replace(
            clip,
            people=self._count_people(sampled),
            faces=float(counts.mean()),
            single_face=float((counts == 1).mean()),
            most_faces=int(at_least_twice),
            text=float(np.mean(texts)),
            letterbox=letterbox(shown.luma_FHW),
            static=static(shown.luma_FHW),
            flat=flat(shown.luma_FHW[len(shown.luma_FHW) // 2]),
        )

    def _count_people(self, frames: np.ndarray) -> float | None:
        """Mean number of people in the frames."""
        if self._people is None:
            return None
        from PIL import Image

        found = [self._people(Image.fromarray(frame), candidate_labels=["a person"]) for frame in frames[::2]]
        return float(np.mean([sum(each["score"] >= self.people_score for each in boxes) for boxes in found]))


class TextDetector:
    """PP-OCRv4's detection network (PaddleOCR, Apache-2.0; Liao et al., "Real-time Scene Text Detection", 2020)."""

    def __init__(self) -> None:
        from importlib.util import find_spec

        import onnxruntime

        package = find_spec("rapidocr_onnxruntime")  # found, not imported: its other parts need more packages
        assert package is not None and package.submodule_search_locations
        path = Path(package.submodule_search_locations[0]) / "models" / "ch_PP-OCRv4_det_infer.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, frame: np.ndarray, faces: Sequence[np.ndarray] = ()) -> float:
        """Share of a picture (uint8 HWC, RGB) that text covers.

        What lies within the boxes of ``faces`` (xyxy, pixels) does not count: the network takes blurred ones for text.
        """
        from PIL import Image

        height, width = frame.shape[:2]
        scale = TEXT_SIDE / min(height, width)
        size = max(32, round(width * scale / 32) * 32), max(32, round(height * scale / 32) * 32)
        small = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR), np.float32)
        pixels = (small[..., ::-1] / 127.5 - 1).transpose(2, 0, 1)[None]  # trained on BGR
        (probability,) = self._session.run(None, {self._input: np.ascontiguousarray(pixels)})
        text_HW = np.asarray(probability)[0, 0] > TEXT_SURE
        for box in faces:
            left, top, right, bottom = np.clip(box * np.tile(np.divide(size, (width, height)), 2), 0, None).astype(int)
            text_HW[top:bottom, left:right] = False
        return float(text_HW.mean())


def letterbox(luma_FHW: np.ndarray) -> float:
    """Share of the picture in black bars at its edges, which stay black all the time and are as wide on both sides: the
    dark wall behind a head is not.
    """
    brightest = luma_FHW.max(axis=0)  # over time
    kept = 1.0
    for axis in (1, 0):
        dark = np.percentile(brightest, 98, axis=axis) < BLACK
        if dark.all():
            return 1.0
        bars = 2 * min(int(np.argmin(dark)), int(np.argmin(dark[::-1])))
        kept *= 1 - bars / len(dark)
    return 1 - kept


def static(luma_FHW: np.ndarray) -> float:
    """Share of the time in which the picture stands still everywhere, but for what an encoder adds: lips are small."""
    if len(luma_FHW) < 2:
        return 1.0
    steps_FHW = np.abs(np.diff(luma_FHW[:, ::2, ::2], axis=0))
    frames, height, width = (side // CELLS * CELLS if axis else side for axis, side in enumerate(steps_FHW.shape))
    cells = steps_FHW[:, :height, :width].reshape(frames, CELLS, height // CELLS, CELLS, width // CELLS)
    return float((cells.mean(axis=(2, 4)).max(axis=(1, 2)) < STILL).mean())


def flat(luma_HW: np.ndarray) -> float:
    """Share of blocks of 8 x 8 pixels that have one colour."""
    height, width = (side // 8 * 8 for side in luma_HW.shape)
    blocks = luma_HW[:height, :width].reshape(height // 8, 8, width // 8, 8)
    return float((blocks.std(axis=(1, 3)) < FLAT).mean())
