from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skyreels_audio.faces import detect_faces
from skyreels_audio.faces.framing import EYES_TO_MOUTH, anchors
from skyreels_audio.generation.inputs import frame_picture
from skyreels_audio.media import read_image

PICTURE = Path(__file__).parents[1] / "faces" / "portrait.jpg"


@pytest.mark.parametrize("size", [(192, 192), (160, 256)])
def test_a_picture_is_cut_around_its_face_and_the_face_is_found_once(size, monkeypatch):
    picture = read_image(PICTURE)
    wide = np.pad(picture, ((0, 0), (200, 100), (0, 0)))
    searched = []
    monkeypatch.setattr(
        "skyreels_audio.generation.inputs.detect_faces", lambda x: searched.append(1) or detect_faces(x)
    )
    framed = frame_picture(wide, size)
    assert framed.picture_HWC.shape == (*size, 3) and searched == [1]
    assert framed.landmarks is not None and framed.faces["found"] == 1
    eyes, mouth = anchors(framed.landmarks)
    seen = anchors(detect_faces(framed.picture_HWC)[0].landmarks)
    assert np.abs(np.array(seen) - [eyes, mouth]).max() < 1.5
    left, top, right, bottom = framed.faces["crop"]
    expected = min(np.linalg.norm(np.subtract(*anchors(detect_faces(wide)[0].landmarks))) / EYES_TO_MOUTH, len(wide))
    assert bottom - top == pytest.approx(expected, abs=0.2) and right - left == pytest.approx(
        expected * size[1] / size[0], abs=0.2
    )


def test_without_a_face_the_middle_is_taken():
    picture = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    framed = frame_picture(Image.fromarray(picture), (90, 90))
    nobody = {"found": 0, "chosen": None, "crop": [35.0, 0.0, 125.0, 90.0], "roll": None}
    assert framed.landmarks is None and framed.faces == nobody
    assert (framed.picture_HWC == picture[:, 35:125]).all()


def test_a_face_need_not_be_cut_around():
    picture = read_image(PICTURE)
    side = min(picture.shape[:2])
    framed = frame_picture(picture, (side, side), around_face=False)
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    assert (framed.picture_HWC == picture[top : top + side, left : left + side]).all() and framed.landmarks is not None


def test_of_two_equal_faces_it_is_said_who_speaks(caplog):
    picture = np.asarray(Image.fromarray(read_image(PICTURE)).resize((160, 160)))
    frame_picture(picture, (160, 160))
    assert not caplog.messages
    frame_picture(np.concatenate([picture, picture], 1), (160, 320))
    assert len(caplog.messages) == 1 and "2 faces of the picture are about as large; number" in caplog.messages[0]


def test_a_face_that_becomes_small_in_the_video_is_told(caplog):
    picture = np.pad(read_image(PICTURE), ((0, 0), (900, 900), (0, 0)))
    frame_picture(picture, (len(picture), picture.shape[1]), around_face=False)
    assert not caplog.messages
    frame_picture(picture, (len(picture) // 8, picture.shape[1] // 8), around_face=False)
    assert caplog.messages == ["the face in the picture is too small: its mouth may look wrong."]
