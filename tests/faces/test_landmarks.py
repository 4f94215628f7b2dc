import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyreels_audio.faces import (
    LIPS_INNER,
    LIPS_OUTER,
    as_68,
    face_box,
    landmarks_68,
    lip_aperture,
    lip_mask,
    lower_face_box,
)


def test_both_layouts_say_the_same(face):
    sparse = landmarks_68(face)
    assert sparse.shape == (68, 2)
    assert np.array_equal(as_68(sparse), sparse)
    assert lip_aperture(face.landmarks) == lip_aperture(sparse)
    assert np.array_equal(lower_face_box(face.landmarks), lower_face_box(sparse))
    assert np.allclose(face_box(face.landmarks), face.box_xyxy)
    assert np.abs(face_box(sparse) - face.box_xyxy).max() < 0.12 * face.height


@given(st.floats(-0.5, 0.5), st.floats(0.2, 5), st.floats(-500, 500))
def test_aperture_ignores_where_the_face_is(angle, scale, shift):
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 100, (68, 2))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert lip_aperture(points @ turn.T + shift) == pytest.approx(lip_aperture(points), rel=1e-3)


def test_aperture_grows_with_the_gap(face):
    lower = [index for index in LIPS_INNER if index in (95, 88, 178, 87, 14, 317, 402, 318, 324)]
    apertures = []
    for gap in (0, 2, 4):
        points = face.landmarks.copy()
        points[lower, 1] += gap
        apertures.append(lip_aperture(points))
    assert apertures[0] < apertures[1] < apertures[2]
    assert apertures[0] < 0.02, "her lips are closed"


def test_lower_face_holds_mouth_and_chin_but_not_eyes(face):
    left, top, right, bottom = lower_face_box(face.landmarks)
    x, y = face.landmarks[list(LIPS_OUTER) + [152, 58, 288], :2].T
    assert (left < x).all() and (x < right).all() and (top < y).all() and (y < bottom).all()
    assert top > face.landmarks[[33, 133, 362, 263], 1].max()


def test_lip_mask_has_the_area_of_the_lips(face, portrait):
    mask = lip_mask(face.landmarks, portrait.shape[:2])
    x, y = face.landmarks[list(LIPS_OUTER), :2].T.astype(np.float64)
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert mask.shape == portrait.shape[:2] and mask.dtype == np.float32
    assert mask.min() >= 0 and mask.max() == 1
    assert mask.sum() == pytest.approx(area, rel=0.12)
    rows, columns = np.nonzero(mask)
    assert abs(np.average(columns + 0.5, weights=mask[rows, columns]) - x.mean()) < 2
    assert abs(np.average(rows + 0.5, weights=mask[rows, columns]) - y.mean()) < 2


def test_lip_mask_may_leave_the_picture(face):
    assert lip_mask(face.landmarks, (10, 10)).sum() == 0
