import numpy as np
import pytest

from skyreels_audio.synthetic.rig import ACTIONS
from skyreels_audio.synthetic.speech import RATE, Utterance
from skyreels_audio.synthetic.visemes import CURVE_RATE, VISEME_CHANNELS, curves, loudness, segments, to_arkit

PART, PUCKER, PRESS, ROLL = (VISEME_CHANNELS.index(name) for name in ("part", "pucker", "press", "roll"))


def say(*phonemes, seconds, level=0.3) -> Utterance:
    waveform = np.zeros(round(seconds * RATE), np.float32)
    for start, end, _ in phonemes:
        waveform[round(start * RATE) : round(end * RATE)] = level * np.sin(
            np.arange(round(end * RATE) - round(start * RATE))
        )
    return Utterance(waveform, phonemes, "", "en-us", "test")


def word(letters: str, start: float, each: float):
    return tuple((start + i * each, start + (i + 1) * each, letter) for i, letter in enumerate(letters))


def test_one_value_per_hundredth_of_a_second():
    shapes = curves(say((0.1, 0.5, "a"), seconds=1.234))
    assert shapes.shape == (124, 9) and shapes.dtype == np.float32
    assert shapes.min() >= 0 and shapes.max() <= 1


def test_silence_is_exactly_still():
    shapes = curves(say((0.5, 0.8, "a"), (2.0, 2.3, "o"), seconds=3.5))
    for start, end in ((0, 0.4), (0.9, 1.9), (2.4, 3.5)):
        assert not shapes[round(start * CURVE_RATE) : round(end * CURVE_RATE)].any()
    assert not curves(say(seconds=1.0)).any()


def test_sound_without_level_is_silence():
    """A phoneme that cannot be heard (an aligner's mistake in a pause) moves nothing."""
    utterance = say((0.2, 0.5, "a"), (1.2, 1.5, "a"), seconds=2.0)
    utterance.waveform[round(1.0 * RATE) :] = 0
    assert not curves(utterance)[120:].any()


@pytest.mark.parametrize("letter", "pbm")
@pytest.mark.parametrize("each", [0.04, 0.07, 0.12])
def test_bilabials_close_the_lips(letter, each):
    shapes = curves(say(*word(f"a{letter}a{letter}o", 0.3, each), seconds=1.5))
    for place in (1, 3):
        middle = round((0.3 + (place + 0.5) * each - 0.02) * CURVE_RATE)
        assert shapes[middle - 1 : middle + 2, PART].min() < 0.05
        assert shapes[middle - 1 : middle + 2, PRESS].max() > 0.6
    assert shapes[:, PART].max() > 0.15


def test_labiodentals_tuck_the_lower_lip():
    shapes = curves(say(*word("afa", 0.3, 0.1), seconds=1.0))
    middle = round(0.43 * CURVE_RATE)
    assert shapes[middle, ROLL] > 0.7 and shapes[middle, PART] < 0.1 and shapes[middle, PRESS] < 0.05


def test_rounding_starts_before_its_vowel():
    """Coarticulation: /t/ leaves the lips to the /u/ that follows, /i/ does not."""
    before_u, before_i = (curves(say(*word(f"it{vowel}", 0.3, 0.1), seconds=1.0))[45, PUCKER] for vowel in "ui")
    assert before_u > 0.2 > before_i + 0.15


def test_vowels_are_told_apart():
    """Rounded vowels part the lips less than open ones and those that bare teeth."""
    shapes = {vowel: curves(say((0.3, 0.6, vowel), seconds=1.0))[43] for vowel in "aiou"}
    assert min(shapes["a"][PART], shapes["i"][PART]) > shapes["o"][PART] + 0.2 > shapes["u"][PART] + 0.4
    jaw = {vowel: to_arkit(shape[None])[0, ACTIONS.index("jawOpen")] for vowel, shape in shapes.items()}
    assert jaw["u"] < jaw["o"] < jaw["a"] - 0.2


def test_louder_is_wider():
    utterance = say((0.3, 0.6, "a"), (1.3, 1.6, "a"), seconds=2.0)
    utterance.waveform[: round(0.9 * RATE)] *= 0.2
    shapes = curves(utterance)
    assert shapes[43, PART] < 0.8 * shapes[143, PART]


def test_loudness_is_rms():
    assert loudness(np.full(RATE, 0.25, np.float32))[50] == pytest.approx(0.25)
    assert len(loudness(np.zeros(161))) == 2


def test_diphthongs_and_affricates_are_two_shapes():
    assert [letter for *_, letter in segments(((0.0, 0.2, "aɪ"), (0.2, 0.4, "tʃ"), (0.4, 0.5, "ˈɑː")))] == list("aɪtʃɑ")


def test_arkit_weights():
    assert not to_arkit(np.zeros((3, 9))).any()
    weights = to_arkit(np.eye(9), 1.1)
    assert weights.shape == (9, len(ACTIONS)) and weights.max() <= 1
    assert weights[PART].argmax() == ACTIONS.index("jawOpen")
    for index, action in enumerate(ACTIONS):
        if action.endswith("Left"):
            assert np.array_equal(weights[:, index], weights[:, ACTIONS.index(action.replace("Left", "Right"))])
