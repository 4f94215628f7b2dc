import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyreels_audio.faces import Face, portrait_crop
from skyreels_audio.faces.framing import EYES_TO_MOUTH, MOUTH_CENTRE

SIDES = st.integers(16, 2000)


def _face(x: float, y: float, height: float) -> Face:
    """Landmarks in a box, but for eyes and mouth, which stand at 0.36 and 0.75 of its height."""
    box = np.array([x - 0.4 * height, y - height / 2, x + 0.4 * height, y + height / 2], np.float32)
    landmarks = np.zeros((68, 2), np.float32)
    landmarks[36:48] = x, y - 0.14 * height
    landmarks[48:] = x, y + 0.25 * height
    return Face(box, 1.0, landmarks)


@given(SIDES, SIDES, SIDES, SIDES, st.floats(0, 1), st.floats(0, 1), st.floats(0.02, 2))
def test_the_crop_has_its_shape_and_stays_inside(width, height, out_width, out_height, x, y, part):
    image = np.broadcast_to(np.uint8(0), (height, width, 3))
    for face in (None, _face(x * width, y * height, part * height)):
        left, top, right, bottom = portrait_crop(image, face, (out_height, out_width))
        assert -1e-6 <= left < right <= width + 1e-6 and -1e-6 <= top < bottom <= height + 1e-6
        assert (right - left) / (bottom - top) == pytest.approx(out_width / out_height, rel=1e-6)


@given(st.floats(100, 200), st.floats(400, 600))
def test_with_room_mouth_and_eyes_stand_as_in_training(height, x):
    face = _face(x, 500.0, height)
    left, top, right, bottom = portrait_crop(np.zeros((1000, 1000, 3), np.uint8), face, (256, 256))
    assert 0.39 * height / (bottom - top) == pytest.approx(EYES_TO_MOUTH, abs=1e-3)
    assert (x - left) / (right - left) == pytest.approx(MOUTH_CENTRE[0], abs=1e-3)
    assert (500 + 0.25 * height - top) / (bottom - top) == pytest.approx(MOUTH_CENTRE[1], abs=1e-3)
