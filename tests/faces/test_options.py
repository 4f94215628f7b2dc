"""Parts that need an extra: DWPose landmarks and face identity."""

import sys

import numpy as np
import pytest

from skyreels_audio.faces import FaceTracker, as_68, lip_aperture, portrait_crop
from skyreels_audio.faces import identity as identity_module
from skyreels_audio.faces.dwpose import DWPose


@pytest.fixture
def whole_body(face):
    """What rtmlib's whole-body model returns for the portrait: 133 keypoints, of which 68 are the face."""

    def model(image_bgr):
        keypoints, scores = np.zeros((1, 133, 2)), np.full((1, 133), 0.9)
        keypoints[0, 23:91] = as_68(face.landmarks) - 0.5
        return keypoints, scores

    return model


def test_dwpose_has_the_interface_of_the_mesh(whole_body, portrait, face):
    pose = DWPose(whole_body)
    (found,) = pose.detect(portrait)
    assert found.landmarks.shape == (68, 2)
    assert lip_aperture(found.landmarks) == pytest.approx(lip_aperture(face.landmarks), abs=1e-4)
    assert np.abs(found.box_xyxy - face.box_xyxy).max() < 0.12 * face.height
    assert len(portrait_crop(portrait, found, (64, 64))) == 4
    tracker = FaceTracker(pose.detect, pose.follow)
    for _ in range(3):
        tracker.update(portrait)
    (track,) = tracker.tracks()
    assert track.runs == [(0, 3)]


def test_dwpose_without_people(portrait):
    pose = DWPose(lambda image: (np.zeros((0, 133, 2)), np.zeros((0, 133))))
    assert pose.detect(portrait) == []


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rtmlib", None)
    with pytest.raises(ImportError, match=r"'\.\[dwpose\]'"):
        DWPose()
    monkeypatch.setattr(identity_module, "find_spec", lambda name: None)
    identity_module._recogniser.cache_clear()
    with pytest.raises(ImportError, match=r"'\.\[eval\]'"):
        identity_module._recogniser()


def test_identity_survives_a_turn_but_not_another_face(portrait, face, moved):
    pytest.importorskip("dlib")
    from skyreels_audio.faces import detect_faces
    from skyreels_audio.faces.identity import face_embedding, identity_distance

    identity_module._recogniser.cache_clear()
    turned, _ = moved((320, 240), 0.9, degrees=15)
    wide = np.ascontiguousarray(portrait.repeat(2, axis=1)[:, 120:360])
    one, same, other = (face_embedding(image, detect_faces(image)[0]) for image in (portrait, turned, wide))
    assert one.shape == (128,) and one.dtype == np.float32
    assert identity_distance(one, one) == 0
    assert identity_distance(one, same) < 0.35 < identity_distance(one, other)
