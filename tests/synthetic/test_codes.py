"""Motion of speech as codes relative to the picture."""

import numpy as np
import pytest

from skyreels_audio.models.motion_autoencoder import CHANNELS, REST
from skyreels_audio.synthetic.codes import KEEP_EYES, KEEP_MOUTH, code_of, speech_code, weights_of
from skyreels_audio.synthetic.motion import DIRECTIONS, Manner
from skyreels_audio.synthetic.music import music
from skyreels_audio.synthetic.rig import ACTIONS


def curves(seconds: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Two seconds of silence, then a jaw that opens and closes."""
    count = round(100 * seconds)
    values = np.zeros((count, 9), np.float32)
    values[200:, 0] = 0.4 - 0.4 * np.cos(np.arange(count - 200) / 8)
    return values, values[:, 0]


def test_actions_survive_their_code() -> None:
    codes = np.random.default_rng(0).uniform(size=(5, len(CHANNELS))).astype(np.float32)
    names = {action.removesuffix("Left").removesuffix("Right") for action in ACTIONS}
    back = code_of(weights_of(codes))
    for n, channel in enumerate(CHANNELS):
        assert np.allclose(back[:, n], codes[:, n] if channel in names else 0, atol=1e-6), channel


def test_silence_keeps_the_picture_and_speech_takes_over() -> None:
    codes = speech_code(*curves(), Manner(), np.random.default_rng(0))
    assert np.allclose(codes[:40], REST, atol=1e-3)
    assert codes[70:140, KEEP_MOUTH].mean() < 0.5 and codes[:, CHANNELS.index("jawOpen")].max() > 0.3


def test_what_is_seen_is_what_speech_asks_for() -> None:
    """A code is divided by what it replaces, so that a picture with closed lips opens as far as the jaw should."""
    values, loud = curves()
    codes = speech_code(values, loud, Manner(), np.random.default_rng(0))
    jaw = CHANNELS.index("jawOpen")
    seen = (1 - codes[:, KEEP_MOUTH]) * codes[:, jaw]
    asked = values[::4, 0][: len(codes)]
    assert np.corrcoef(seen[60:], asked[60:])[0, 1] > 0.95


def test_a_blink_needs_the_eyes_and_nothing_else_does() -> None:
    values = np.zeros((1000, 9), np.float32)
    codes = speech_code(values, values[:, 0], Manner(blinks=True), np.random.default_rng(0))
    shut = codes[:, CHANNELS.index("eyeBlink")] > 0.9
    assert shut.any() and np.all(codes[shut, KEEP_EYES] < 0.1)
    assert np.all(codes[codes[:, CHANNELS.index("eyeBlink")] == 0][:, KEEP_EYES] > 0.8)


@pytest.mark.parametrize("gesture", DIRECTIONS)
def test_heads_look_where_they_are_asked_to(gesture: str) -> None:
    values = np.zeros((600, 9), np.float32)
    manner = Manner(head="slight", gesture=gesture)
    codes = speech_code(values, values[:, 0], manner, np.random.default_rng(0))
    yaw, pitch = (codes[75:, CHANNELS.index(name)].mean() for name in ("yaw", "pitch"))
    wanted = np.array(DIRECTIONS[gesture])
    assert np.dot([yaw, pitch], wanted) > 0.6 * np.dot(wanted, wanted)
    assert abs(codes[0, CHANNELS.index("yaw")]) < 1e-3  # the first frame is the picture


def test_music_is_sound_of_the_asked_length() -> None:
    sound = music(3.0, np.random.default_rng(0))
    assert len(sound) == 48000 and np.isfinite(sound).all() and np.abs(sound).max() == pytest.approx(1)
