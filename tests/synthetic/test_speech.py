import importlib.util
import shutil
from dataclasses import replace

import numpy as np
import pytest

from skyreels_audio.synthetic import voices
from skyreels_audio.synthetic.alignment import align
from skyreels_audio.synthetic.bank import SHARES, TEST_VOICES, SpeechBank, compress, decompress, speech_bank
from skyreels_audio.synthetic.sentences import english, is_test, sentence
from skyreels_audio.synthetic.speech import RATE, Utterance, augment, concatenate, cut, replay
from skyreels_audio.synthetic.visemes import curves


def beep(times, duration=1.0) -> Utterance:
    """Silence but for a tone where each phoneme is."""
    waveform = np.zeros(round(duration * RATE), np.float32)
    for start, end in times:
        span = slice(round(start * RATE), round(end * RATE))
        waveform[span] = 0.5 * np.sin(np.arange(span.stop - span.start))
    return Utterance(waveform, tuple((start, end, "a") for start, end in times), "a", "en-us", "test")


def loud_where_said(utterance: Utterance) -> bool:
    """Whether each phoneme sounds throughout and nothing else does (to 5 ms)."""
    said, margin = np.zeros(len(utterance.waveform), bool), RATE // 200
    for start, end, _ in utterance.phonemes:
        said[round(start * RATE) : round(end * RATE)] = True
    loud = np.convolve(np.abs(utterance.waveform), np.ones(81) / 81, "same") > 0.05
    differs = np.flatnonzero(loud != said)
    edges = np.flatnonzero(np.diff(said.astype(int)))
    return all(np.abs(edges - index).min() <= margin for index in differs)


def test_phonemes_stay_with_their_sound():
    one, two = beep([(0.2, 0.5), (0.6, 0.7)]), beep([(0.1, 0.4)])
    for changed in (
        concatenate([one, two], [0.123, 0.4, 1.0]),
        replay(one, 1.17),
        replay(one, 0.81),
        cut(one, 0.33, 2.0),
    ):
        assert len(changed.phonemes) >= 1
        assert loud_where_said(changed)


def test_lips_that_were_seen_stay_with_their_sound():
    """Whoever is heard and seen opens the lips where the sound is, also when both are moved."""
    utterance = replace(beep([(0.4, 0.6)]), seen=tuple((n / 25, float(0.4 <= n / 25 <= 0.6)) for n in range(25)))
    for changed in (
        concatenate([utterance, utterance], [0.123, 0.4, 1.0]),
        replay(utterance, 1.25),
        cut(utterance, 0.3, 1),
    ):
        times, seen = zip(*changed.seen, strict=True)
        for start, end, _ in changed.phonemes:
            parts = curves(changed)[:, 0]
            assert np.interp((start + end) / 2, times, seen) == 1
            assert parts[round(50 * (start + end))] > 0.9
            assert parts[round(100 * (end + 0.09)) :][:5].max() < 0.1


def test_replaying_faster_shortens():
    assert replay(beep([(0.2, 0.5)]), 1.25).duration == pytest.approx(0.8, abs=1e-3)


def test_augmenting_moves_no_sample():
    utterance = beep([(0.3, 0.5)])
    for seed in range(12):
        changed = augment(utterance.waveform, np.random.default_rng(seed))
        assert changed.dtype == np.float32 and len(changed) == len(utterance.waveform)
        assert 0.1 < np.abs(changed).max() <= 0.96
        lags = np.correlate(changed, utterance.waveform[3200:9600], "valid")
        assert abs(int(np.abs(lags).argmax()) - 3200) <= 16  # a filter's group delay: 1 ms
    assert not augment(np.zeros(1000, np.float32), np.random.default_rng(3)).any()


def test_opus_keeps_length_and_place():
    waveform = beep([(0.2, 0.25), (0.7, 0.75)]).waveform[:-123]
    again = decompress(compress(waveform), len(waveform))
    assert len(again) == len(waveform)
    lags = np.correlate(np.pad(again, 400), waveform, "valid")
    assert lags.argmax() == 400


def test_espeak_phonemes_cover_the_sound():
    spoken = voices.say_espeak("The map of Bob", "en-us", "f2", np.random.default_rng(0))
    assert spoken.voice == "espeak:f2" and spoken.waveform.dtype == np.float32
    assert [ipa for *_, ipa in spoken.phonemes][-3:] == ["b", "ɑː", "b"]
    starts, ends = zip(*((start, end) for start, end, _ in spoken.phonemes), strict=True)
    assert all(a < b for a, b in zip(starts, ends, strict=True))
    assert all(a <= b + 1e-9 for a, b in zip(ends, starts[1:], strict=False))
    assert ends[-1] <= spoken.duration + 0.01


def test_unknown_voice_is_refused():
    with pytest.raises(ValueError, match="no voice"):
        voices.say_espeak("hello", "xx-none", "", np.random.default_rng(0))


@pytest.mark.skipif(not shutil.which("flite"), reason="flite is not installed")
def test_alignment_agrees_with_the_synthesiser():
    """Flite tells its phone times; the aligner, which only hears, finds the same ones."""
    pytest.importorskip("pocketsphinx")
    spoken = voices.say_flite("please push the big table", "slt", np.random.default_rng(1))
    found = align(spoken.waveform, spoken.text)
    assert len(found) == pytest.approx(len(spoken.phonemes), abs=2)
    true_times = np.array([start for start, *_ in spoken.phonemes])
    errors = [np.abs(true_times - start).min() for start, *_ in found]
    assert np.median(errors) <= 0.03


@pytest.mark.skipif(not importlib.util.find_spec("pocketsphinx"), reason="pocketsphinx is not installed")
def test_alignment_names_unknown_words():
    with pytest.raises(ValueError, match="zorglub"):
        align(np.zeros(16000, np.float32), "hello zorglub")


def test_grid_sentence():
    assert voices.grid_sentence("bbaf2n") == "bin blue at f two now"
    assert voices.grid_sentence("swwzzp") == "set white with z zero please"


def test_sentences_of_the_splits_are_disjoint():
    rng = np.random.default_rng(0)
    train = {sentence("en-us", rng, test=False).lower() for _ in range(200)}
    test = {sentence("en-us", rng, test=True).lower() for _ in range(200)}
    assert not train & test and all(map(is_test, test))
    assert len(train) > 190
    assert english(np.random.default_rng(5)) == english(np.random.default_rng(5))


def test_bank_resumes_and_splits_voices(tmp_path, monkeypatch):
    monkeypatch.setattr("skyreels_audio.synthetic.bank.SECONDS", (2.0, 3.0))
    monkeypatch.setattr("skyreels_audio.synthetic.bank.SHARD", 2)
    monkeypatch.setattr("skyreels_audio.synthetic.bank.languages", lambda: ["en-us"])
    only_espeak = dict.fromkeys(SHARES, False) | {"espeak": True}
    monkeypatch.setattr(voices, "installed", lambda: only_espeak)
    hours = 8 * 2 * 2.5 / 3600
    speech_bank(tmp_path, hours, seed=3, report=lambda _: None)
    shards = sorted(tmp_path.glob("*.npz"))
    assert len(shards) == 8
    before = [path.read_bytes() for path in shards]
    shards[5].unlink()
    speech_bank(tmp_path, hours, seed=3, report=lambda _: None)
    assert [path.read_bytes() for path in shards] == before

    bank = SpeechBank(tmp_path)
    assert len(bank) == 16 and len(SpeechBank(tmp_path, "test")) == 2
    for index, (*_, row) in enumerate(bank.rows):
        utterance, shapes = bank[index]
        assert len(shapes) == -(-len(utterance.waveform) // 160)
        assert (utterance.voice in TEST_VOICES) == (row["split"] == "test")


def test_empty_bank_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no speech here"):
        SpeechBank(tmp_path)


def test_a_bank_without_the_split_is_refused(tmp_path):
    np.savez(tmp_path / "00000.npz", rows=np.frombuffer(b'[{"split": "train"}]', np.uint8))
    assert len(SpeechBank(tmp_path, "train")) == 1
    with pytest.raises(ValueError, match="test split"):
        SpeechBank(tmp_path, "test")
