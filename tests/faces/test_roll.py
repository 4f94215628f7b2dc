"""Faces are found upright wherever they point."""

import numpy as np
import pytest

from skyreels_audio.faces import detect_faces, portrait_crop
from skyreels_audio.faces.framing import anchors


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_face_on_its_side_or_head_is_found_as_it_is(portrait, face, quarters):
    turned = np.ascontiguousarray(np.rot90(portrait, quarters))
    found = detect_faces(turned)[0]
    height, width = portrait.shape[:2]
    x, y = face.landmarks[:, 0], face.landmarks[:, 1]
    truth = np.column_stack([(y, width - x), (width - x, height - y), (height - y, x)][quarters - 1])
    assert np.linalg.norm(found.landmarks[:, :2] - truth, axis=1).mean() < 0.02 * face.height
    expected = face.roll - quarters * np.pi / 2
    assert abs((found.roll - expected + np.pi) % (2 * np.pi) - np.pi) < 0.05


@pytest.mark.parametrize("degrees", [135, 200, 250])
def test_a_face_at_any_angle_is_found(moved, face, degrees):
    picture, matrix = moved((320, 320), 1.0, degrees)
    truth = face.landmarks[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    found = detect_faces(picture)[0]
    assert np.linalg.norm(found.landmarks[:, :2] - truth, axis=1).mean() < 0.03 * face.height


def test_the_crop_of_a_turned_picture_is_the_turned_crop(portrait, face):
    left, top, right, bottom = portrait_crop(portrait, face, (64, 64))
    turned = np.ascontiguousarray(portrait[::-1, ::-1])
    upside = detect_faces(turned)[0]
    height, width = portrait.shape[:2]
    expected = width - right, height - bottom, width - left, height - top
    assert np.allclose(portrait_crop(turned, upside, (64, 64)), expected, atol=0.03 * face.height)
    eyes, mouth = anchors(upside.landmarks)
    assert eyes[1] > mouth[1]
