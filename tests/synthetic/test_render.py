import dataclasses

import numpy as np
import pytest

from skyreels_audio.faces.framing import FACE_CENTRE, FACE_HEIGHT
from skyreels_audio.synthetic.appearance import LOOKS, sample_appearance
from skyreels_audio.synthetic.background import Background, sample_background
from skyreels_audio.synthetic.motion import Motion
from skyreels_audio.synthetic.person import dress
from skyreels_audio.synthetic.render import Renderer
from skyreels_audio.synthetic.rig import ACTIONS
from skyreels_audio.synthetic.subject import rotation_matrices

SIZE = 128


@pytest.fixture(scope="module")
def renderer():
    return Renderer(SIZE)


def still(frames: int, rotation=(0, 0, 0), **weights):
    weights_TK = np.zeros((frames, len(ACTIONS)), np.float32)
    for action, curve in weights.items():
        weights_TK[:, ACTIONS.index(action)] = curve
    zero = np.zeros((frames, 3), np.float32)
    return Motion(weights_TK, zero + np.array(rotation, np.float32), zero, zero[:, :2])


def plain_wall() -> Background:
    return Background(np.full((8, 8, 3), 200, np.uint8), "plain", "light grey")


def person(rig, seed: int, **changes):
    identity = rig.identity(seed)
    return dress(rig, identity, dataclasses.replace(sample_appearance(seed, identity), **changes), plain_wall())


def test_same_seed_same_frames(renderer):
    first, second = (renderer.render(person(renderer.rig, 1), still(2, jawOpen=[0, 0.5])) for _ in range(2))
    np.testing.assert_array_equal(first.frames, second.frames)
    np.testing.assert_array_equal(first.mesh_TL2, second.mesh_TL2)


def test_no_trace_of_the_clip_before(renderer):
    subject, motion = person(renderer.rig, 2), still(1)
    before = renderer.render(subject, motion).frames
    renderer.render(person(renderer.rig, 3), still(1, jawOpen=[1]))
    np.testing.assert_array_equal(renderer.render(subject, motion).frames, before)


def test_labels_have_the_frames_shape(renderer):
    clip = renderer.render(person(renderer.rig, 4), still(3))
    assert clip.frames.shape == (3, SIZE, SIZE, 3) and clip.frames.dtype == np.uint8
    assert clip.lip_mask.shape == (3, SIZE, SIZE) and clip.lip_mask.dtype == np.uint8
    assert clip.landmarks_T682.shape == (3, 68, 2) and clip.lower_face_box_T4.shape == (3, 4)


@pytest.mark.parametrize("seed", range(6))
def test_the_face_stands_where_training_expects_it(renderer, seed):
    mesh = renderer.render(person(renderer.rig, seed), still(1)).mesh_TL2[0]
    low, high = mesh.min(0) / SIZE, mesh.max(0) / SIZE
    assert FACE_HEIGHT - 0.081 < high[1] - low[1] < FACE_HEIGHT + 0.101
    assert abs((low + high) / 2 - FACE_CENTRE).max() < 0.041


def test_an_opening_jaw_moves_the_mouth_and_hardly_anything_above(renderer):
    clip = renderer.render(person(renderer.rig, 5, look="realistic"), still(2, jawOpen=[0, 0.8]))
    area = clip.lip_mask.reshape(2, -1).sum(1)
    assert area[1] > 1.5 * area[0]
    left, top, right, bottom = clip.lower_face_box_T4[1].round().astype(int)
    change = np.abs(clip.frames[1].astype(int) - clip.frames[0]).mean(-1)
    assert change[: top - SIZE // 20].mean() < 0.02 * change[top:bottom, left:right].mean()


def test_the_lip_mask_covers_the_lips_landmarks(renderer):
    clip = renderer.render(person(renderer.rig, 6), still(1, jawOpen=[0.4]))
    rows, columns = np.nonzero(clip.lip_mask[0] > 127)
    lips = clip.landmarks_T682[0, 48:60]
    assert abs(rows.mean() - lips[:, 1].mean()) < 2 and abs(columns.mean() - lips[:, 0].mean()) < 2
    assert np.ptp(columns) == pytest.approx(np.ptp(lips[:, 0]), abs=3)


def test_how_much_of_a_pixel_is_inside_a_mouth_does_not_depend_on_their_number(renderer):
    mouths = person(renderer.rig, 6), still(3, jawOpen=[0.0, 0.1, 0.4])
    inside_THW = renderer.insides(*mouths)
    finer_THW = Renderer(2 * SIZE).insides(*mouths).reshape(3, SIZE, 2, SIZE, 2).mean((2, 4))
    area_T, finer_T = inside_THW.sum((1, 2)), finer_THW.sum((1, 2))
    assert (np.diff(area_T) > 0).all() and area_T[1:] == pytest.approx(finer_T[1:], rel=0.1)
    assert not inside_THW[renderer.render(*mouths).lip_mask == 0].any()


def test_turning_left_moves_the_nose_to_the_right_of_the_frame(renderer):
    subject = person(renderer.rig, 7)
    straight, turned = (renderer.render(subject, still(1, rotation=r)).landmarks_T682 for r in ((0, 0, 0), (0.2, 0, 0)))
    assert turned[0, 30, 0] > straight[0, 30, 0] + 2


def test_rotations_are_rotations():
    turns = rotation_matrices(np.random.default_rng(0).normal(size=(5, 3)))
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.tile(np.eye(3), (5, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-6)


def test_black_and_white_is_without_colour(renderer):
    frames = renderer.render(person(renderer.rig, 8, look="black-and-white photograph"), still(1)).frames.astype(int)
    assert np.ptp(frames, axis=-1).max() <= 1
    assert set(LOOKS) >= {"realistic", "cartoon", "painting"}


def test_a_drifting_background_stays_inside_its_picture():
    for seed in range(40):
        background = sample_background(np.random.default_rng(seed))
        corners = np.array([background.offset(frame) for frame in range(0, 500, 7)])
        assert corners.min() >= 0 and (corners + background.extent).max() <= 1 + 1e-9
        assert background.moving == (np.ptp(corners) > 0)
