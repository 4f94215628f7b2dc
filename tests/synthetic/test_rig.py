import numpy as np
import pytest

from skyreels_audio.faces import LIPS_OUTER
from skyreels_audio.synthetic.rig import ACTIONS, LOWER_LIP, UPPER_LIP, Material, Rig

CHIN, LEFT_UPPER_LID, LEFT_LOWER_LID = 152, 386, 374


@pytest.fixture(scope="module")
def rig():
    return Rig.load()


def landmarks(rig, vertices_V3, **weights):
    for action, weight in weights.items():
        vertices_V3 = vertices_V3 + weight * rig.deltas_KV3[ACTIONS.index(action)]
    return rig.landmarks(vertices_V3[None])[0]


def test_actions_are_arkits_without_gaze_of_the_eyeballs(rig):
    assert len(ACTIONS) == len(set(ACTIONS)) == len(rig.deltas_KV3) == 52
    eyes = np.isin(rig.material_V, [Material.LEFT_EYE, Material.RIGHT_EYE])
    for k, action in enumerate(ACTIONS):
        if action.startswith("eyeLook"):
            assert not rig.deltas_KV3[k, eyes].any()


def test_a_seed_is_one_person(rig):
    a, again, other = rig.identity(3), rig.identity(3), rig.identity(4)
    np.testing.assert_array_equal(a.vertices_V3, again.vertices_V3)
    assert np.abs(a.vertices_V3 - other.vertices_V3).max() > 2e-3


def test_people_differ_in_sex_and_age(rig):
    people = [rig.identity(seed) for seed in range(60)]
    assert {p.sex for p in people} == {"woman", "man"}
    assert {"child", "young", "middle-aged", "elderly"} == {p.age_group for p in people}


@pytest.mark.parametrize("seed", range(8))
def test_lips_of_every_person_meet_at_rest(rig, seed):
    at_rest = landmarks(rig, rig.identity(seed).vertices_V3)
    template = rig.landmarks(rig.template_V3[None])[0]
    gap, closed = ((m[UPPER_LIP, 2] - m[LOWER_LIP, 2]).mean() for m in (at_rest, template))
    assert abs(gap - closed) < 1e-4  # a tenth of a millimetre


def test_actions_do_what_they_say(rig):
    rest, face = landmarks(rig, rig.mean_V3), rig.mean_V3
    assert landmarks(rig, face, jawOpen=1)[CHIN, 2] < rest[CHIN, 2] - 0.01
    lids = landmarks(rig, face, eyeBlinkLeft=1)[[LEFT_UPPER_LID, LEFT_LOWER_LID], 2]
    assert lids[0] - lids[1] < 0.3 * (rest[LEFT_UPPER_LID, 2] - rest[LEFT_LOWER_LID, 2])
    width = lambda points: np.ptp(points[list(LIPS_OUTER), 0])  # noqa: E731
    assert width(landmarks(rig, face, mouthPucker=1)) < 0.9 * width(rest)
    assert width(landmarks(rig, face, mouthSmileLeft=1, mouthSmileRight=1)) > 1.1 * width(rest)


def test_landmarks_lie_on_a_symmetric_face(rig):
    """The template is symmetric, so MediaPipe's facing points must be found in mirrored places."""
    points = rig.landmarks(rig.template_V3[None])[0]
    for left, right in ((263, 33), (291, 61), (454, 234), (362, 133)):
        np.testing.assert_allclose(points[left] * [-1, 1, 1], points[right], atol=4e-3)


def test_normals_point_out_of_the_face(rig):
    normals_V3 = rig.normals(rig.mean_V3[None])[0]
    nose = rig.landmarks(normals_V3[None])[0, 1]
    assert nose[1] < 0 and abs(nose[1]) > 3 * abs(nose[0])
