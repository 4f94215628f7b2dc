"""DWPose's 68 face points through rtmlib (extra ``[dwpose]``), behind the same interface as the mesh.

Its weights are fetched by rtmlib on first use. Faces have 68 landmarks and no depth.
Source: Yang et al., "Effective Whole-body Pose Estimation with Two-stages Distillation", 2023.
"""

from typing import Any

import numpy as np
from PIL import Image

from skyreels_audio.faces.landmarks import face_box
from skyreels_audio.faces.mesh import Face

FACE = slice(23, 91)  # of COCO-WholeBody's 133 points
MIN_SCORE = 0.5
WEIGHTS = (  # DWPose-l, 384x288, as OpenMMLab publishes it
    "https://download.openmmlab.com/mmpose/v1/projects/rtmposev1/onnx_sdk/"
    "rtmpose-l_simcc-ucoco_dw-ucoco_270e-384x288-2438fd99_20230728.zip"
)


class DWPose:
    """People's faces by whole-body pose estimation: finds profiles and small faces that a face detector misses.

    model: a callable ``image BGR → (keypoints [N, 133, 2], scores [N, 133])``; None: rtmlib's whole-body DWPose.
    Raises ImportError without extra ``[dwpose]``.
    """

    def __init__(self, model: Any = None):
        if model is None:
            try:
                from rtmlib import Wholebody
            except ImportError as error:
                raise ImportError("landmarks by DWPose need rtmlib: pip install '.[dwpose]'") from error
            model = Wholebody(pose=WEIGHTS, pose_input_size=(288, 384), backend="onnxruntime")
        self._model = model

    def detect(self, image: np.ndarray) -> list[Face]:
        """Faces of a picture (uint8 HWC, RGB), largest first; landmarks float32 [68, 2], pixels."""
        keypoints, scores = self._model(np.ascontiguousarray(image[..., ::-1]))
        faces = []
        for points, confidence in zip(keypoints[:, FACE], scores[:, FACE], strict=True):
            landmarks = points.astype(np.float32) + np.float32(0.5)  # from pixel indices to continuous pixels
            score = float(np.clip(confidence.mean(), 0, 1))
            if score >= MIN_SCORE:
                faces.append(Face(face_box(landmarks), score, landmarks))
        return sorted(faces, key=lambda face: -face.height)

    def follow(self, picture: Image.Image, face: Face) -> Face:
        """The face nearest to ``face`` in the next frame; ``face`` with score 0 if there is none."""
        middle = face.landmarks.mean(axis=0)
        faces = self.detect(np.asarray(picture))
        if not faces:
            return Face(face.box_xyxy, 0.0, face.landmarks)
        return min(faces, key=lambda other: float(np.linalg.norm(other.landmarks.mean(axis=0) - middle)))
