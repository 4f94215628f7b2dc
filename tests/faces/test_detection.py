import numpy as np
import pytest

from skyreels_audio.faces import detect_faces
from skyreels_audio.faces.detect import _FULL_RANGE, _SHORT_RANGE, _tiles


def _mean_error(found, truth) -> float:
    """Mean distance of landmarks in face heights."""
    height = np.ptp(truth[:, 1])
    return float(np.linalg.norm(found[:, :2] - truth, axis=1).mean() / height)


def test_one_face_where_it_is(portrait, face):
    assert len(detect_faces(portrait)) == 1
    assert face.landmarks.shape == (478, 3) and face.landmarks.dtype == np.float32
    assert face.score > 0.99
    assert np.allclose(face.box_xyxy, [*face.landmarks[:, :2].min(axis=0), *face.landmarks[:, :2].max(axis=0)])
    eyes, mouth, chin = face.landmarks[[33, 263], 1].max(), face.landmarks[13, 1], face.landmarks[152, 1]
    assert eyes < mouth < chin
    assert face.landmarks[468, 0] < face.landmarks[473, 0], "irises: left on screen first"


@pytest.mark.parametrize(("scale", "degrees"), [(1.0, 25.0), (1.0, -25.0), (0.7, 0.0), (1.4, 10.0), (3.0, 0.0)])
def test_landmarks_move_with_the_picture(moved, face, scale, degrees):
    size = (round(320 * scale), round(240 * scale))
    picture, matrix = moved(size, scale, degrees)
    truth = face.landmarks[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    assert _mean_error(detect_faces(picture)[0].landmarks, truth) < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_no_face_in_patterns(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    assert detect_faces(noise.repeat(20, axis=0).repeat(20, axis=1)) == []


def test_tiny_and_strange_pictures():
    for shape in [(1, 1, 3), (5, 300, 3), (300, 5, 3)]:
        assert detect_faces(np.zeros(shape, np.uint8)) == []


def test_small_face_is_found_by_tiles(moved, face):
    picture, matrix = moved((720, 1280), scale=0.4, shift=(300, 100))
    truth = face.landmarks[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    found = detect_faces(picture)
    assert len(found) == 1 and np.ptp(truth[:, 1]) < 45
    assert _mean_error(found[0].landmarks, truth) < 0.04


def test_several_faces_largest_first(moved):
    large, _ = moved((320, 320), scale=1.3)
    small, _ = moved((320, 320), scale=0.8)
    found = detect_faces(np.concatenate([small, large], axis=1))
    assert [face.box_xyxy[0] > 320 for face in found] == [True, False]
    assert found[0].height > found[1].height


def test_anchors_are_those_of_the_networks():
    assert len(_SHORT_RANGE.anchors()) == 896
    assert len(_FULL_RANGE.anchors()) == 48 * 48


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (500, 500), (1000, 100)])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_tiles_cover_the_picture(size, level):
    seen = np.zeros((size[1], size[0]), bool)
    for left, top, side in _tiles(size, level):
        assert side == max(size) / 2**level
        seen[max(0, round(top)) : round(top + side), max(0, round(left)) : round(left + side)] = True
    assert seen.all()
