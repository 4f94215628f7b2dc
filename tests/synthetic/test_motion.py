import numpy as np
import pytest

from skyreels_audio.synthetic.motion import (
    EXPRESSIONS,
    GESTURE_REACH,
    GESTURES,
    HEADS,
    MOUTH_ONLY,
    Manner,
    animate,
    to_frames,
)
from skyreels_audio.synthetic.rig import ACTIONS
from skyreels_audio.synthetic.visemes import VISEME_CHANNELS, to_arkit

MOUTH = [index for index, weights in enumerate(to_arkit(np.eye(9)).T) if weights.any()]
BLINK = ACTIONS.index("eyeBlinkLeft")


def speech(seconds=4.0, seed=0):
    """Random curves of a talking mouth with a second of silence, and their loudness."""
    rng = np.random.default_rng(seed)
    curves = np.repeat(rng.uniform(0, 0.7, (round(seconds * 10), 9)), 10, 0).astype(np.float32)
    curves[100:200] = 0
    return curves, curves[:, 0] * 0.3


def test_frame_k_is_at_k_over_fps():
    ramp = np.arange(400, dtype=np.float32) / 100
    assert to_frames(ramp, 100)[1:-1] == pytest.approx(np.arange(1, 99) / 25, abs=1e-5)
    assert to_frames(np.ones((50, 9)), 20) == pytest.approx(np.ones((20, 9)))  # past the end: as at the end


def test_mouth_only_moves_nothing_else():
    motion = animate(*speech(), np.random.default_rng(1), MOUTH_ONLY)
    others = np.delete(motion.weights_TK, MOUTH, axis=1)
    assert len(motion) == 100 and not others.any()
    assert not motion.rotation_T3.any() and not motion.translation_T3.any() and not motion.gaze_T2.any()
    assert motion.weights_TK[:, MOUTH].any()
    assert not motion.weights_TK[28:48].any()  # silence


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("gesture", [None, *GESTURES])
def test_heads_stay_within_their_limits(head, gesture):
    if head == "still" and gesture:
        with pytest.raises(ValueError, match="gesture"):
            Manner(head=head, gesture=gesture)
        return
    turn, shift = HEADS[head]
    turn = max(turn, GESTURE_REACH if gesture else 0)
    for seed in range(5):
        motion = animate(*speech(), np.random.default_rng(seed), Manner(head=head, gesture=gesture))
        assert np.abs(motion.rotation_T3).max() <= turn and np.abs(motion.translation_T3).max() <= shift
        assert not motion.rotation_T3[0].any()
        if head != "still":
            assert np.abs(motion.rotation_T3).max() > 0.1 * turn


def test_gestures_turn_about_their_axis():
    for gesture, (axis, _) in GESTURES.items():
        gains = []
        for seed in range(8):
            plain, with_gesture = (
                animate(*speech(), np.random.default_rng(seed), Manner(head="slight", gesture=g))
                for g in (None, gesture)
            )
            gains.append(with_gesture.rotation_T3.std(0) / plain.rotation_T3.std(0))
        assert np.mean(gains, 0).argmax() == axis


def test_blinks_can_be_switched():
    curves, loudness = np.zeros((2000, 9), np.float32), np.zeros(2000, np.float32)
    with_blinks, without = (
        animate(curves, loudness, np.random.default_rng(0), Manner(blinks=b)) for b in (True, False)
    )
    closed = with_blinks.weights_TK[:, BLINK] > 0.9
    assert 3 <= np.count_nonzero(np.diff(closed.astype(int)) == 1) <= 14  # in 20 s
    assert not without.weights_TK[:, BLINK].any()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_lip_closures_close_in_every_expression(expression):
    curves, loudness = speech()
    curves[300:310], curves[300:310, VISEME_CHANNELS.index("press")] = 0, 0.7
    motion = animate(
        curves, loudness, np.random.default_rng(2), Manner(expression, "slight", blinks=True, upper_face=True)
    )
    openers = [ACTIONS.index(name) for name in ("jawOpen", "mouthUpperUpLeft", "mouthLowerDownRight", "mouthFunnel")]
    assert motion.weights_TK[76, openers].max() < 0.05
    assert motion.weights_TK[76, ACTIONS.index("mouthPressLeft")] > 0.3
    for action, weight in EXPRESSIONS[expression].items():
        if not action.startswith(("mouth", "brow")):
            shown = [index for index, name in enumerate(ACTIONS) if name.startswith(action)]
            assert (motion.weights_TK[:, shown].mean(0) > 0.4 * weight).all()


def test_same_seed_same_motion():
    first, second = (
        animate(*speech(), np.random.default_rng(9), Manner("smiling", "lively", "nodding", True, True))
        for _ in range(2)
    )
    for name in ("weights_TK", "rotation_T3", "translation_T3", "gaze_T2"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="smiling"):
        Manner(expression="happy")
    with pytest.raises(ValueError, match="lively"):
        Manner(head="wild")
