import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from skyreels_audio.faces import Track, as_68, track_faces
from skyreels_audio.faces.align import RIGID, crop, crop_boxes, feather, paste, placement, placements, similarity
from skyreels_audio.faces.framing import EYES_TO_MOUTH, MOUTH_CENTRE, anchors
from skyreels_audio.faces.warp import invert, warp

SIZE = 128, 128


@pytest.fixture(scope="module")
def scene(moved):
    """A face that sways and nears, its track, and where its crops lie."""
    frames = [
        moved((240, 320), 0.8 + 0.02 * k, degrees=12 * np.sin(k / 3), shift=(12 * np.cos(k / 4), 3 * np.sin(k / 2)))[0]
        for k in range(12)
    ]
    (track,) = track_faces(frames)
    return frames, track, placements(track, SIZE)


def _in_crop(points, place):
    back = invert(place)
    return points[:, :2] @ back[:, :2].T + back[:, 2]


@given(st.floats(-3, 3), st.floats(0.1, 10), st.floats(-50, 50), st.integers(0, 99))
def test_similarity_recovers_a_similarity(angle, scale, shift, seed):
    points = np.random.default_rng(seed).normal(size=(5, 2))
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    truth = np.array([[c, -s, shift], [s, c, -shift]])
    assert np.allclose(similarity(points, points @ truth[:, :2].T + truth[:, 2]), truth, atol=1e-8 * (1 + scale))


@given(st.floats(0.5, 2), st.floats(-1, 1), st.floats(-50, 50))
def test_inverse_of_a_map(scale, angle, shift):
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.array([[c, -s, shift], [s, c, shift]])
    points = np.arange(8.0).reshape(4, 2)
    there = points @ matrix[:, :2].T + matrix[:, 2]
    back = invert(matrix)
    assert np.allclose(there @ back[:, :2].T + back[:, 2], points, atol=1e-9)


def test_the_identity_warp_changes_nothing(portrait):
    same = warp(portrait, np.eye(2, 3), portrait.shape[:2])
    assert np.array_equal(same, portrait)


def test_past_the_edge_the_border_goes_on():
    picture = Image.fromarray(np.full((4, 4, 3), 77, np.uint8))
    assert (warp(picture, np.array([[1.0, 0, -6], [0, 1, -6]]), (16, 16)) == 77).all()


def test_the_face_stands_still_and_as_in_training(scene):
    _, track, places = scene
    rigid = np.stack([_in_crop(as_68(f.landmarks)[RIGID], p) for f, p in zip(track.faces, places, strict=True)])
    source = np.stack([as_68(f.landmarks)[RIGID] for f in track.faces])
    assert rigid.std(axis=0).mean() < 1.5 < source.std(axis=0).mean() / 2
    seen = [anchors(_in_crop(as_68(f.landmarks), p)) for f, p in zip(track.faces, places, strict=True)]
    eyes, mouth = np.mean(seen, axis=0) / SIZE[0]
    assert np.linalg.norm(mouth - eyes) == pytest.approx(EYES_TO_MOUTH, abs=0.01)
    assert tuple(mouth) == pytest.approx(MOUTH_CENTRE, abs=0.01)


def test_the_lower_face_is_in_the_crop(scene):
    _, track, places = scene
    for box in crop_boxes(track, places):
        assert box is not None
        left, top, right, bottom = box / SIZE[0]
        assert 0 < left < 0.4 and 0.6 < right < 1 and 0.4 < top < 0.7 and 0.7 < bottom < 1


def test_paste_changes_the_region_and_nothing_else(scene):
    frames, track, places = scene
    region = np.zeros(SIZE, bool)
    region[70:110, 40:90] = True
    mask = feather(region, 8)
    assert mask[~region].max() < 0.05 and mask[90, 65] > 0.95
    for frame, place in zip(frames, places, strict=True):
        out = paste(frame, np.full((*SIZE, 3), (255, 0, 255), np.uint8), place, mask)
        changed = (out != frame).any(axis=-1)
        y, x = np.nonzero(changed)
        back = _in_crop(np.stack([x + 0.5, y + 0.5], axis=1), place)
        assert len(x) and (back > [36, 66]).all() and (back < [94, 114]).all()
        assert np.array_equal(out[~changed], frame[~changed])


def test_an_unedited_crop_pastes_back_unseen(scene):
    frames, track, places = scene
    region = np.zeros(SIZE, bool)
    region[60:120, 30:100] = True
    crops = crop(frames, places, SIZE)
    for frame, cut, place in zip(frames, crops, places, strict=True):
        assert cut is not None
        out = paste(frame, cut, place, feather(region, 10)).astype(float)
        assert 10 * np.log10(255**2 / ((out - frame) ** 2).mean()) > 38


def test_an_empty_mask_returns_the_frame(scene):
    frames, _, places = scene
    out = paste(frames[0], np.zeros((*SIZE, 3), np.uint8), places[0], np.zeros(SIZE))
    assert np.array_equal(out, frames[0]) and out is not frames[0]


def test_gaps_have_no_crop(face, portrait):
    places = placements(Track((face, None, face)), SIZE)
    crops = list(crop([portrait] * 3, places, SIZE))
    assert [place is None for place in places] == [cut is None for cut in crops] == [False, True, False]
    assert placements(Track((None, None)), SIZE) == [None, None]


def test_a_placement_puts_eyes_and_mouth_where_training_has_them():
    landmarks = np.zeros((68, 2), np.float32)
    landmarks[36:48], landmarks[[48, 54]] = (300, 200), (320, 290)
    place, mouth = placement(landmarks, (256, 256)), np.array(MOUTH_CENTRE) * 256
    standing = mouth - [0, EYES_TO_MOUTH * 256], mouth
    for point, expected in zip(standing, ((300, 200), (320, 290)), strict=True):
        assert np.allclose(place[:, :2] @ point + place[:, 2], expected, atol=1e-3)
