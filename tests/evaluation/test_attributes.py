import numpy as np
import pytest

from skyreels_audio.evaluation.attributes import WORDS, background_colour, classify, head_gesture


def heads(across: float, up: float, hertz: float = 1.6, frames: int = 65) -> list[np.ndarray]:
    """68 points of a face whose nose swings by these shares of its height."""
    points = np.random.default_rng(0).uniform(60, 200, (68, 2))
    points[27], points[33] = (128, 100), (128, 129.4)  # the ridge of the nose: a face of 100 pixels
    swing = np.sin(2 * np.pi * hertz * np.arange(frames) / 25)
    return [(points + 100 * s * np.array([across, up])).astype(np.float32) for s in swing]


@pytest.mark.parametrize(("across", "up", "word"), [(0, 0, "still"), (0.001, 0.05, "nodding"), (0.05, 0.01, "shaking")])
def test_head_motion_by_where_the_nose_swings(across, up, word):
    assert head_gesture(heads(across, up)) == word


def test_slow_drift_is_no_gesture():
    assert head_gesture(heads(0.03, 0.02, hertz=0.1, frames=250)) == "still"


def test_background_colour_of_a_plain_wall():
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[:32] = (30, 60, 200)
    assert background_colour(frame, np.ones((64, 64), bool)) == "blue"


def test_words_of_people_nobody_has_seen():
    pytest.importorskip("moderngl")
    from skyreels_audio.evaluation.held_out import portrait
    from skyreels_audio.evaluation.subjects import drawn
    from skyreels_audio.synthetic.render import Renderer

    renderer, right = Renderer(256), []
    for number in range(8):
        subject, known = drawn("test", number)
        image, landmarks = portrait(renderer, subject)
        words = classify(image[None], [landmarks])
        assert all(words[name] in WORDS[name] for name in WORDS)
        right += [words["sex"] == known["sex"], words["expression"] == "neutral"]
    assert np.mean(right) > 0.7
