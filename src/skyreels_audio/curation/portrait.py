"""Stage 5: the main face: how large, which way it looks, whether something hides it, how steady it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import PrivateAttr

from skyreels_audio.curation.footage import footage
from skyreels_audio.curation.schema import Clip
from skyreels_audio.curation.stage import Stage, need_packages
from skyreels_audio.faces.mesh import Face
from skyreels_audio.faces.track import Track

CHIN, FOREHEAD = 152, 10  # of the mesh's points
SHOULDERS, NOSE = [5, 6], 0  # of COCO's 17 body points
SURE = 0.3  # score of a body point that counts


class Portrait(Stage):
    """Follows every face through all frames and measures the one that fills most of the clip.

    pose: "dwpose" measures head to body too (extra ``[dwpose]``; rtmlib fetches its weights); None leaves it None.
    """

    name: ClassVar[str] = "portrait"
    pose: Literal["dwpose"] | None = None
    _pose: Any = PrivateAttr(None)

    def check(self) -> None:
        if self.pose is not None:
            need_packages(self.name, "rtmlib")

    def setup(self) -> None:
        if self.pose is not None:
            from skyreels_audio.faces.dwpose import DWPose

            self._pose = DWPose()._model

    def __call__(self, clip: Clip) -> Clip:
        from skyreels_audio.faces import track_faces
        from skyreels_audio.faces.landmarks import as_68

        frames_FHWC = footage(clip).frames_FHWC
        tracks = track_faces(frames_FHWC)
        if not tracks:
            return replace(clip, coverage=0.0)
        track = tracks[0]
        angles = np.abs([_angles(face) for face in track.seen])
        yaw, pitch, roll = np.percentile(angles, 95, axis=0).tolist()
        scale = (clip.height or frames_FHWC.shape[1]) / frames_FHWC.shape[1]  # measured pixels → the source's
        nothing = np.full((68, 2), np.nan, np.float32), np.full(4, np.nan, np.float32)
        points = [nothing if face is None else (as_68(face.landmarks), face.box_xyxy) for face in track.faces]
        return replace(
            clip,
            face_share=float(np.median([face.height for face in track.seen]) / frames_FHWC.shape[1]),
            coverage=len(track.seen) / len(track.faces),
            yaw=yaw,
            pitch=pitch,
            roll=roll,
            visibility=float(np.percentile([face.score for face in track.seen], 5)),
            stability=_unsteadiness(track),
            head_to_body=self._head_to_body(frames_FHWC, track),
            landmarks=(np.stack([each for each, _ in points]) * scale).round(2).ravel(),
            boxes=(np.stack([each for _, each in points]) * scale).round(2).ravel(),
        )

    def _head_to_body(self, frames_FHWC: np.ndarray, track: Track) -> float | None:
        """Median height of the face over the width of the shoulders, where both shoulders are seen."""
        if self._pose is None:
            return None
        ratios = []
        for index in track.frames[:: max(1, len(track.frames) // 4)]:
            face = track.faces[index]
            keypoints, scores = self._pose(np.ascontiguousarray(frames_FHWC[index][..., ::-1]))
            assert face is not None
            middle = (face.box_xyxy[:2] + face.box_xyxy[2:]) / 2
            for points, score in zip(keypoints, scores, strict=True):
                near = np.linalg.norm(points[NOSE] - middle) < face.height / 2
                if near and score[SHOULDERS].min() >= SURE:
                    ratios.append(face.height / max(1e-6, float(np.linalg.norm(np.subtract(*points[SHOULDERS])))))
        return float(np.median(ratios)) if ratios else None


def _angles(face: Face) -> tuple[float, float, float]:
    """Yaw, pitch and roll of a face in degrees; pitch needs the mesh's depth."""
    from skyreels_audio.faces.landmarks import as_68
    from skyreels_audio.faces.track import yaw

    points = as_68(face.landmarks)
    x, y = points[42:48].mean(0) - points[36:42].mean(0)
    pitch = 0.0
    if face.landmarks.shape[1] == 3:
        _, down, depth = face.landmarks[CHIN] - face.landmarks[FOREHEAD]
        pitch = np.arctan2(depth, down)
    return float(np.degrees(yaw(face.landmarks))), float(np.degrees(pitch)), float(np.degrees(np.arctan2(y, x)))


def _unsteadiness(track: Track) -> float:
    """Median step of the face's centre from frame to frame, in face heights."""
    steps = [
        np.linalg.norm((b.box_xyxy - a.box_xyxy).reshape(2, 2).mean(0)) / a.height
        for a, b in zip(track.faces[:-1], track.faces[1:], strict=True)
        if a is not None and b is not None
    ]
    return float(np.median(steps)) if steps else 0.0
