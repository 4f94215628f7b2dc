"""Faces at the edge of the picture: the mesh goes on where the picture ends, so somebody must notice."""

from pathlib import Path

import numpy as np
import pytest

from skyreels_audio.faces import detect_faces, fault
from skyreels_audio.generation.inputs import frame_picture
from skyreels_audio.media import read_image

PICTURE = read_image(Path(__file__).with_name("portrait.jpg"))
BOX = detect_faces(PICTURE)[0].box_xyxy.astype(int)
MIDDLE = (BOX[:2] + BOX[2:]) // 2


@pytest.mark.parametrize(
    "part",
    [np.s_[:, : MIDDLE[0]], np.s_[:, MIDDLE[0] :], np.s_[: MIDDLE[1]], np.s_[MIDDLE[1] :]],
    ids=["left half", "right half", "above the mouth", "below the eyes"],
)
def test_half_a_face_is_refused_and_not_edited(part) -> None:
    half = np.ascontiguousarray(PICTURE[part])
    faces = detect_faces(half)
    assert all(fault(face) in ("cut off", "hidden") for face in faces)
    if any(face.score > 0.9 for face in faces):
        with pytest.raises(ValueError, match="Only a part of the face is in the picture"):
            frame_picture(half, half.shape[:2])


def test_a_picture_may_end_at_the_forehead() -> None:
    close = np.ascontiguousarray(PICTURE[BOX[1] + 8 :, BOX[0] - 10 : BOX[2] + 10])
    assert fault(detect_faces(close)[0]) is None


def test_what_may_look_wrong_is_said(caplog: pytest.LogCaptureFixture) -> None:
    turned = np.ascontiguousarray(np.rot90(PICTURE, 2))
    assert frame_picture(turned, turned.shape[:2]).landmarks is not None
    assert "it speaks as it lies" in caplog.text
