import numpy as np
import pytest

from skyreels_audio import faces
from skyreels_audio.evaluation.motion import (
    CLOSED,
    amplitude_ratio,
    aperture,
    blink_rate,
    closures,
    head_motion,
    heights,
    jaw_line_distance,
    lip_distance,
)


def face(seed: int = 0) -> np.ndarray:
    """68 points, in pixels: a nose of 29.4 (a face of 100), eyes open to 0.3 of their width, the rest anywhere."""
    points = np.random.default_rng(seed).uniform(60, 200, (68, 2)).astype(np.float32)
    points[27], points[33] = (128, 100), (128, 129.4)
    for first in (36, 42):
        x = 90 + 5 * (first - 36)
        points[first : first + 6] = [(x, 100), (x + 5, 97), (x + 10, 97), (x + 20, 100), (x + 10, 103), (x + 5, 103)]
    return points


def still(frames: int) -> np.ndarray:
    return np.repeat(face()[None], frames, 0)


def test_vectors_say_what_the_scalars_of_faces_say():
    points = np.stack([face(seed) for seed in range(4)])
    np.testing.assert_allclose(aperture(points), [faces.lip_aperture(p) for p in points], rtol=1e-5)
    assert heights(points) == pytest.approx(100, rel=1e-3)


def test_amplitude_is_a_ratio():
    curve = np.sin(np.arange(50.0))
    assert amplitude_ratio(0.5 * curve + 3, curve) == pytest.approx(0.5)
    assert np.isnan(amplitude_ratio(curve, np.ones(50)))


def test_lips_that_meet_on_every_bilabial():
    speech = np.full(200, 0.04)
    phonemes = [(start, start + 0.08, ipa) for start, ipa in ((1.0, "p"), (2.5, "b"), (4.0, "m"), (5.5, "a"))]
    for start, end, _ in phonemes[:3]:
        speech[int(start * 25) : int(end * 25) + 1] = 0
    found = closures(speech, phonemes)
    assert found is not None and (found.share, found.count) == (1, 3)
    assert found.chance < 0.3
    late = closures(np.roll(speech, 10), phonemes)
    assert late is not None and late.share == 0


def test_a_shut_mouth_closes_no_better_than_chance():
    found = closures(np.full(100, CLOSED / 2), [(1.0, 1.1, "m")])
    assert found is not None and found.share == found.chance == 1
    assert closures(np.ones(100), [(1.0, 1.1, "a")]) is None


def test_blinks_are_counted_and_closed_eyes_are_not():
    points = still(250)  # ten seconds
    for first in (36, 42):
        shut = points[:, first : first + 6]
        for at in (20, 90, 200):
            shut[at : at + 4, [1, 2, 4, 5], 1] = 100
        shut[120:150, [1, 2, 4, 5], 1] = 100  # 1.2 s: asleep
    assert blink_rate(points) == pytest.approx(18)
    assert blink_rate(still(250)) == 0


def test_head_motion_is_the_speed_in_face_heights():
    drift = 2 * np.arange(100)[:, None, None] * np.array([1.0, 0.0])  # 2 px a frame of a face of 100
    assert head_motion(still(100) + drift) == pytest.approx(2 / 100 * 25, rel=1e-3)
    assert head_motion(still(100)) == pytest.approx(0, abs=1e-6)
    assert head_motion(still(1)) == 0


def test_distances_ignore_where_the_head_is():
    true = still(5)
    turn = 1.3 * np.array([[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]])
    assert lip_distance(true @ turn.T + 7, true) == pytest.approx(0, abs=1e-5)
    lips, jaw = true.copy(), true.copy()
    lips[:, 48:68, 1] += 3
    jaw[:, 2:15, 1] += 4
    assert lip_distance(lips, true) == pytest.approx(0.03, rel=1e-3)
    assert jaw_line_distance(jaw, true) == pytest.approx(0.04, rel=1e-3)
    assert jaw_line_distance(lips, true) == pytest.approx(0, abs=1e-5)
