from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from skyreels_audio.bundled import bundled
from skyreels_audio.faces import Face, FaceTracker, Track, choose, detect_faces, fault, lip_aperture, track_faces
from skyreels_audio.faces.shots import CutDetector
from skyreels_audio.faces.track import PATIENCE, REDETECT, smooth_runs, yaw


@pytest.fixture(scope="module")
def walk(moved):
    """14 frames of a face that goes right and turns; hidden by a board in frames 5 and 6."""
    frames = [moved((240, 320), 0.7, degrees=2.0 * k, shift=(4.0 * k - 30, 0.0))[0].copy() for k in range(14)]
    for frame in frames[5:7]:
        frame[70:190, 80:210] = 90
    return frames


def _track(*boxes, score=1.0) -> Track:
    landmarks = np.zeros((68, 2), np.float32)
    faces = (None if box is None else Face(np.array(box, np.float32), score, landmarks) for box in boxes)
    return Track(tuple(faces))


def test_a_face_is_followed_through_a_gap(walk):
    (track,) = track_faces(walk)
    assert len(track.faces) == len(walk)
    assert track.runs == [(0, 5), (7, 14)]
    centres = np.array([seen.box_xyxy[[0, 2]].mean() for seen in track.seen])
    assert np.abs(np.polyfit(track.frames, centres, 1)[0] - 4.0) < 1.0
    apertures = [lip_aperture(seen.landmarks) for seen in track.seen]
    assert max(apertures) - min(apertures) < 0.02, "a still mouth stays still"


@pytest.fixture(scope="module")
def stranger():
    """Another person, drawn, in the middle of a picture of 240 by 320."""
    picture = Image.open(bundled("examples/portrait.jpg")).convert("RGB").resize((240, 240))
    return np.asarray(ImageOps.pad(picture, (320, 240), color=(60, 90, 130)))


def test_shots_of_one_person_are_one_track_and_those_of_another_are_not(moved, stranger):
    near, far = (moved((240, 320), scale, shift=shift)[0] for scale, shift in ((1.0, (20, 10)), (0.7, (-50, 0))))
    far = np.clip(far * 0.6 + 10, 0, 255).astype(np.uint8)  # another light
    frames = [near] * 4 + [stranger] * 4 + [far] * 4 + [stranger] * 2
    first, second = sorted(track_faces(frames), key=lambda track: track.frames[0])
    assert first.cuts == second.cuts == (4, 8, 12)
    assert first.frames == [0, 1, 2, 3, 8, 9, 10, 11] and second.frames == [4, 5, 6, 7, 12, 13]


def test_a_person_who_leaves_and_returns_elsewhere_is_the_same(moved):
    here, there = (moved((240, 480), 0.7, shift=(x, 0.0))[0] for x in (-140.0, 140.0))
    empty = np.full_like(here, 90)
    (track,) = track_faces([here] * 3 + [empty] * (PATIENCE + 5) + [there] * 14)
    assert track.frames[:3] == [0, 1, 2] and track.frames[-1] == PATIENCE + 21


def test_motion_light_and_noise_are_no_cuts(moved):
    rng = np.random.default_rng(0)
    for change in ("pan", "zoom", "fade", "noise", "turn"):
        detector, cuts = CutDetector(), []
        for k in range(20):
            shift = (6.0 * k - 60, 0.0) if change == "pan" else (0.0, 0.0)
            frame = moved((240, 320), 1 + 0.03 * k * (change == "zoom"), 3.0 * k * (change == "turn"), shift)[0]
            frame = frame * (1 - 0.04 * k * (change == "fade")) + rng.normal(0, 12, frame.shape) * (change == "noise")
            cuts.append(detector(Image.fromarray(np.clip(frame, 0, 255).astype(np.uint8))))
        assert not any(cuts), change


def test_smoothing_stops_at_cuts():
    values: list[np.ndarray | None] = [*[np.array([0.0])] * 10, *[np.array([100.0])] * 10]
    smooth = [float(value[0]) for value in smooth_runs(values, (10,)) if value is not None]
    assert np.allclose(smooth, [0.0] * 10 + [100.0] * 10)
    across = [float(value[0]) for value in smooth_runs(values) if value is not None]
    assert np.abs(np.array(across) - smooth).max() > 5


def test_faces_are_searched_no_more_often_than_they_may_come(moved, face):
    searches, present = [], range(30, 50)
    frames = [np.zeros((8, 8, 3), np.uint8)] * 120

    def detect(frame):
        searches.append(tracker._frame)
        return [face] if tracker._frame in present else []

    def follow(picture, last):
        return replace(last, score=1.0 if tracker._frame in present else 0.0)

    tracker = FaceTracker(detect, follow)
    for frame in frames:
        tracker.update(frame)
    (track,) = tracker.tracks()
    assert track.frames == list(range(36, 50))
    while_it_may_return = set(range(50, 50 + PATIENCE))
    assert set(searches) == while_it_may_return | set(range(0, 120, REDETECT))


def test_a_newcomer_is_found_and_a_followed_face_alone_is_not_searched_again(moved):
    left, empty = moved((240, 240), 0.7)[0], np.full((240, 240, 3), 90, np.uint8)
    fades = np.clip(np.arange(-REDETECT - 1, REDETECT) / (REDETECT - 1), 0, 1)  # at once it would be a cut
    searches = []

    def detect(frame):
        searches.append(tracker._frame)
        return detect_faces(frame)

    tracker = FaceTracker(detect)
    for share in fades:
        tracker.update(np.concatenate([left, (empty + share * (left.astype(float) - empty)).astype(np.uint8)], axis=1))
    assert [track.frames[0] for track in tracker.tracks()] == [0, 2 * REDETECT]
    assert searches == [0, 2 * REDETECT]


def test_two_faces_are_two_tracks_and_can_be_chosen(moved):
    frames = []
    for k in range(3):
        left, right = moved((240, 240), 0.7, shift=(k, 0))[0], moved((240, 240), 0.9, shift=(-k, 0))[0]
        frames.append(np.concatenate([left, right], axis=1))
    tracks = track_faces(frames)
    assert [track.frames for track in tracks] == [[0, 1, 2]] * 2
    assert choose(tracks, "left") is tracks[1]
    assert choose(tracks, "right") is choose(tracks) is choose(tracks, 0) is choose(tracks, "0") is tracks[0]


def test_left_ignores_people_far_behind():
    main, beside, passer = _track([50, 0, 90, 50]), _track([95, 0, 130, 45]), _track([0, 0, 5, 5])
    assert choose([main, passer, beside], "left") is main
    assert choose([main, passer, beside], "right") is beside


@pytest.mark.parametrize("which", ["middle", 3, "7"])
def test_choosing_what_is_not_there(which):
    with pytest.raises(ValueError, match="face"):
        choose([_track([0, 0, 9, 9])], which)
    with pytest.raises(ValueError, match="no face"):
        choose([], "largest")


def test_landmarker_must_be_known():
    with pytest.raises(ValueError, match="'mediapipe' or 'dwpose'"):
        track_faces([], landmarker="magic")


def test_faults(face):
    assert fault(face) is None
    assert fault(Face(face.box_xyxy, 0.5, face.landmarks)) == "hidden"
    assert fault(Face(face.box_xyxy / 10, 1.0, face.landmarks / 10)) == "too small"
    turned = face.landmarks.copy()
    turned[[4], 0] += 0.9 * face.height
    assert fault(Face(face.box_xyxy, 1.0, turned)) == "turned away"


def test_yaw_sees_a_mirror(face):
    mirrored = face.landmarks.copy()
    mirrored[:, 0] *= -1
    pairs = {127: 356, 356: 127}
    mirrored[list(pairs)] = mirrored[list(pairs.values())]
    assert abs(yaw(face.landmarks)) < np.radians(15)
    assert yaw(mirrored) == pytest.approx(-yaw(face.landmarks), abs=1e-6)


@settings(deadline=None)  # the first call imports scipy
@given(st.integers(3, 40), st.floats(-1, 1), st.floats(-1, 1), st.floats(-0.1, 0.1))
def test_smoothing_keeps_steady_motion_and_gaps(length, a, b, c):
    series = [np.array([a + b * k + c * k * k]) for k in range(length)]
    values = [*series, None, *series]
    smooth = smooth_runs(values)
    assert smooth[length] is None
    assert np.allclose(
        np.concatenate([value for value in smooth[:length] if value is not None]),
        np.concatenate(series),
        atol=1e-6 * length**2,
    )


def test_smoothing_calms_noise():
    noise = np.random.default_rng(0).normal(size=(200, 4))
    smooth = np.stack([value for value in smooth_runs(list(noise)) if value is not None])
    assert smooth.std() < 0.6 * noise.std()
