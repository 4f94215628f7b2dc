from pathlib import Path

import numpy as np
import pytest

from skyreels_audio.faces.align import placement
from skyreels_audio.faces.framing import EYES_TO_MOUTH, MOUTH_CENTRE, anchors
from skyreels_audio.generation.portrait import Portrait
from skyreels_audio.media import read_image


@pytest.fixture(scope="module")
def portrait() -> Portrait:
    found = Portrait.find(read_image(Path(__file__).parents[1] / "faces" / "portrait.jpg"), "mouth")
    assert found is not None
    return found


def test_a_placement_puts_eyes_and_mouth_where_training_has_them():
    landmarks = np.zeros((68, 2), np.float32)
    landmarks[36:48], landmarks[[48, 54]] = (300, 200), (320, 290)
    place = placement(landmarks, (256, 256))
    eyes, mouth = (place[:, :2] @ p + place[:, 2] for p in _standing())
    assert np.allclose(eyes, (300, 200), atol=1e-3) and np.allclose(mouth, (320, 290), atol=1e-3)


def _standing():
    mouth = np.array(MOUTH_CENTRE) * 256
    return mouth - [0, EYES_TO_MOUTH * 256], mouth


def test_outside_the_mouth_the_picture_is_untouched(portrait):
    black = portrait.with_region_of(np.zeros_like(portrait.aligned))
    same = (black == portrait.picture).all(-1)
    assert 0.5 < same.mean() < 0.99
    assert same[:10].all() and same[:, :5].all()


def test_the_same_mouth_gives_the_same_picture(portrait):
    back = portrait.with_region_of(portrait.aligned).astype(float)
    assert np.abs(back - portrait.picture).mean() < 1


def test_no_face_no_portrait():
    assert Portrait.find(np.full((128, 128, 3), 90, np.uint8), "mouth") is None


def test_aligned_face_stands_as_in_training(portrait):
    from skyreels_audio.faces import detect_faces

    eyes, mouth = anchors(detect_faces(portrait.aligned)[0].landmarks)
    height, width = portrait.aligned.shape[:2]
    assert mouth == pytest.approx(np.array(MOUTH_CENTRE) * [width, height], abs=0.02 * height)
    assert np.linalg.norm(mouth - eyes) == pytest.approx(EYES_TO_MOUTH * height, rel=0.05)
