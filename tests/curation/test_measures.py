"""What the stages measure, against pictures and sounds whose truth is known."""

from pathlib import Path

import numpy as np
import pytest
from curation_support import RATE, scene, sound, write
from scipy.ndimage import gaussian_filter

from skyreels_audio.curation import quality, synchrony
from skyreels_audio.curation.audio import bandwidth, clipping, loudness, music, snr
from skyreels_audio.curation.audit import cohens_kappa, decide, wilson
from skyreels_audio.curation.caption import measured_caption
from skyreels_audio.curation.content import flat, letterbox, static
from skyreels_audio.curation.fingerprint import near_duplicates, picture_hash, sound_hashes
from skyreels_audio.curation.footage import Source
from skyreels_audio.curation.schema import Clip
from skyreels_audio.curation.sources import Probe, Split
from skyreels_audio.curation.voices import turn_distance
from skyreels_audio.media import InputError
from skyreels_audio.media.span import read_sound_span, read_span

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def clips_of(path: Path, **settings) -> list[Clip]:
    with Source(str(path)):
        return Split(**settings)(Probe()(Clip("x", str(path))))


def test_clips_begin_at_cuts_and_hold_none(tmp_path: Path) -> None:
    frames = np.concatenate([scene(1, 60), scene(2, 55), scene(3, 70)])
    clips = clips_of(write(tmp_path / "a.mp4", frames))
    assert [round(clip.start * 25) for clip in clips] == [0, 60, 115]
    assert clips[-1].end == pytest.approx(185 / 25, abs=1e-3)
    assert all(clip.decoded == 1 for clip in clips)


def test_a_jump_between_takes_is_a_cut(tmp_path: Path) -> None:
    frames = scene(1, 90)
    clips = clips_of(write(tmp_path / "a.mp4", np.concatenate([frames[:30], frames[45:]])))
    assert [round(clip.start * 25) for clip in clips] == [0, 30]


def test_a_dissolve_is_incoherent(tmp_path: Path) -> None:
    a, b, mix = scene(1, 60), scene(2, 60), np.linspace(0, 1, 60).clip(0, 1)[:, None, None, None]
    (steady,) = clips_of(write(tmp_path / "a.mp4", a))
    (dissolve,) = clips_of(write(tmp_path / "b.mp4", (a * (1 - mix) + b * mix).astype(np.uint8)))
    assert steady.coherence and dissolve.coherence is not None
    assert dissolve.coherence < steady.coherence - 0.1


def test_long_scenes_become_equal_clips(tmp_path: Path) -> None:
    clips = clips_of(write(tmp_path / "a.mp4", scene(1, 200)), max_seconds=3)
    assert [clip.seconds for clip in clips] == pytest.approx([8 / 3] * 3, abs=1e-3)


def test_a_truncated_file_says_how_much_of_it_there_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", scene(1, 150, 128))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    clips = clips_of(path)
    assert clips[0].decoded is not None and 0.2 < clips[0].decoded < 0.9


def test_what_is_no_video_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"")
    with Source(str(path)), pytest.raises(InputError, match="zero bytes"):
        Probe()(Clip("x", str(path)))


@pytest.mark.parametrize("start", [0.0, 0.52, 1.0])
def test_a_span_has_the_frames_and_sound_of_its_time(tmp_path: Path, start: float) -> None:
    frames, waveform = scene(4, 75), sound(4, 3.0)
    path = write(tmp_path / "a.mp4", frames, waveform)
    span = list(read_span(path, start, start + 1.2, 25))
    first = round(start * 25)
    assert len(span) == 30
    assert np.abs(np.stack(span).astype(int) - frames[first : first + 30]).mean() < 4
    heard = read_sound_span(path, start, start + 1.2)
    at = round(start * RATE)
    assert len(heard) == round(1.2 * RATE)
    assert np.abs(heard - waveform[at : at + len(heard)]).max() < 2e-3


def test_pictures_are_told_apart() -> None:
    frames = scene(5, 20, 96)
    luma = frames @ LUMA
    bars = luma.copy()
    bars[:, :12], bars[:, -12:] = 0, 0
    assert letterbox(luma) == 0 and letterbox(bars) == pytest.approx(0.25, abs=0.02)
    wall = luma.copy()
    wall[:, :12] = 0  # above a head, and on one side only
    assert letterbox(wall) == 0
    still = np.repeat(luma[:1], 20, axis=0)
    lips = still.copy()
    lips[::2, 60:68, 40:56] += 8
    assert static(still) == 1 and static(luma) == 0 and static(lips) == 0
    assert flat(np.full((96, 96), 80.0)) == 1 and flat(luma[0]) < 0.1


def test_sharpness_falls_with_blur_and_noise_is_measured() -> None:
    rng = np.random.default_rng(0)
    picture = gaussian_filter(rng.normal(size=(128, 128)), 1).astype(np.float32)
    picture = 128 + 40 * picture / picture.std()
    values = [quality.sharpness(gaussian_filter(picture, sigma)) for sigma in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True) and values[0] > values[-1] + 0.2
    smooth = np.tile(np.linspace(60, 190, 256, dtype=np.float32), (256, 1))
    for sigma in (3.0, 8.0):
        assert quality.noise(smooth + rng.normal(size=smooth.shape).astype(np.float32) * sigma) == pytest.approx(
            sigma, rel=0.2
        )


def test_repeated_frames_are_told_from_pauses() -> None:
    moving = np.random.default_rng(0).uniform(0.5, 1.5, 60)
    pause = np.concatenate([moving[:20], np.full(20, 0.01), moving[40:]])
    third = np.where(np.arange(60) % 3 == 0, moving, 0.01)
    assert quality.duplicates(moving) == 0 and quality.duplicates(np.full(60, 0.01)) == 0
    assert quality.duplicates(pause) < 0.1 and quality.duplicates(third) == pytest.approx(2 / 3, abs=0.02)


@pytest.mark.parametrize(("period", "share"), [(2, 1 / 2), (3, 2 / 3), (5, 4 / 5)])
def test_a_cadence_of_repeated_frames_is_seen_through_what_an_encoder_adds(period: int, share: float) -> None:
    rng = np.random.default_rng(0)
    added = rng.uniform(0.15, 0.35, 75)  # of a slow motion
    cadence = np.where(np.arange(75) % period == 0, rng.uniform(0.5, 1.0, 75), added)
    assert quality.duplicates(cadence) == pytest.approx(share, abs=0.02)
    assert quality.duplicates(rng.permutation(cadence)) < 0.2  # as unsteady, but no cadence


def test_a_face_before_a_white_or_a_black_wall_is_well_lit() -> None:
    face = scene(1, 1, 64)[0] @ LUMA
    before = [np.pad(face, 40, constant_values=wall) for wall in (0.0, 255.0)]
    assert all(0.2 < quality.exposure(picture) < 0.8 for picture in before)
    assert all(quality.exposure(picture * 0.14) < 0.15 for picture in before)


def test_blocks_and_shake_are_seen() -> None:
    rng = np.random.default_rng(0)
    picture = gaussian_filter(rng.normal(size=(128, 128)), 3).astype(np.float32) * 200 + 128
    blocks = picture.reshape(16, 8, 16, 8).mean(axis=(1, 3)).repeat(8, 0).repeat(8, 1)
    assert quality.blockiness(blocks) > 3 > 1.3 > quality.blockiness(picture)
    beside_a_wall = np.where(np.arange(128) % 40 < 30, picture, picture.mean() + (picture - picture.mean()) / 20)
    assert quality.blockiness(beside_a_wall) < 1.3
    wide = gaussian_filter(rng.normal(size=(120, 220)), 3).astype(np.float32) * 200
    places = rng.integers(0, 6, 20)
    shaking = np.stack([wide[k : k + 90, k : k + 160] for k in places])
    panning = np.stack([wide[:90, k : k + 160] for k in range(20)])
    assert quality.shake(shaking) > 10 > 2 > quality.shake(panning)
    assert quality.flow(panning.clip(0, 255)) > quality.flow(np.repeat(panning[:1], 5, axis=0))


def test_sounds_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    t = np.arange(3 * RATE) / RATE
    partials = [hertz * k for hertz in (220, 277, 330) for k in (1, 2, 3)]
    chord = np.sum([np.sin(2 * np.pi * hertz * t) for hertz in partials], axis=0).astype(np.float32) / 12
    pitch = 2 * np.pi * np.cumsum(120 + 6 * np.sin(2 * np.pi * 1.5 * t)) / RATE  # of a monotonous voice
    voice = np.sum([np.sin(k * pitch) / k for k in range(1, 30)], axis=0).astype(np.float32) / 3
    bursts = sound(1, 3.0)
    assert music(chord) > 4 > 2 > max(music(bursts), music(voice))
    assert music(voice + chord / 4) > music(voice) + 3
    assert loudness(chord) - loudness(chord / 10) == pytest.approx(20, abs=0.2)
    assert loudness(np.zeros(RATE, np.float32)) == -70
    spectrum = np.fft.rfft(rng.normal(size=len(t)))
    spectrum[np.fft.rfftfreq(len(t), 1 / RATE) > 3400] = 0
    telephone = np.fft.irfft(spectrum, len(t)).astype(np.float32)
    assert bandwidth(telephone) == pytest.approx(3400, abs=150) and bandwidth(bursts) > 7000


@pytest.mark.parametrize("gain", [0.1, 1.0])
def test_clipping_is_seen_at_any_level_and_through_a_codec(gain: float) -> None:
    voice = sound(1, 3.0)
    voice = voice / voice.std()
    clipped = voice.clip(-1.5, 1.5)
    scattered = clipped + 0.03 * np.random.default_rng(0).normal(size=len(clipped)).astype(np.float32)
    assert clipping(np.zeros(0, np.float32)) == clipping(np.zeros(RATE, np.float32)) == 0
    assert clipping(gain * voice) < 0.001 < 0.01 < min(clipping(gain * clipped), clipping(gain * scattered))


def test_a_voice_without_pauses_is_not_noisy_for_that() -> None:
    t = np.arange(3 * RATE) / RATE
    pitch = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 0.7 * t)) / RATE
    vowels = np.repeat(np.random.default_rng(0).integers(3, 25, 30), RATE // 10)  # the harmonic that is loudest
    voice = np.sum([np.exp(-np.abs(k - vowels) / 2) * np.sin(k * pitch) for k in range(1, 40)], axis=0)
    noise = np.random.default_rng(0).normal(size=len(t)) * voice.std() * 10 ** (-8 / 20)
    always = np.ones(len(t), bool)
    clean, noisy = (snr(heard.astype(np.float32), always) for heard in (voice, voice + noise))
    assert clean is not None and noisy is not None
    assert clean > 20 and noisy == pytest.approx(8, abs=2)


@pytest.mark.parametrize("ratio", [10.0, 25.0])
def test_snr_is_that_of_speech_over_its_pauses(ratio: float) -> None:
    rng = np.random.default_rng(0)
    spoken = (np.arange(4 * RATE) // RATE) % 2 == 0
    noise = rng.normal(size=len(spoken)) * 10 ** (-ratio / 20)
    heard = (spoken * rng.normal(size=len(spoken)) + noise).astype(np.float32)
    assert snr(heard, spoken) == pytest.approx(ratio, abs=2)
    assert snr(heard, np.zeros(len(heard), bool)) is None


def test_two_voices_that_take_turns_are_far_apart() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.random(256) for _ in range(2))

    def windows(centre: np.ndarray) -> np.ndarray:
        rows = centre + 0.05 * rng.normal(size=(6, 256))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    one, two, mixed = windows(a), np.concatenate([windows(a), windows(b)]), (windows(a) + windows(b)) / 2
    assert turn_distance(one) < 0.05 < 0.15 < turn_distance(two)
    assert turn_distance(mixed) < 0.05


@pytest.mark.parametrize("late", [-15, -4, 0, 3, 12])
def test_an_offset_is_found(late: int) -> None:
    rng = np.random.default_rng(late + 50)
    curves = gaussian_filter(rng.normal(size=(160, 2)), (2, 0))
    lips, voice = curves[20:140], curves[20 - late : 140 - late] + 0.05 * rng.normal(size=(120, 2))
    table = synchrony.agreement(voice, lips)
    best = np.unravel_index(table.argmax(), table.shape)
    assert synchrony.OFFSETS[table[len(synchrony.DRIFTS) // 2].argmax()] == late
    assert abs(synchrony.DRIFTS[best[0]]) <= 1


def test_a_changing_offset_is_found() -> None:
    rng = np.random.default_rng(3)
    curves = gaussian_filter(rng.normal(size=(200, 2)), (2, 0))
    at = np.arange(150)
    heard = at + 25 - (at / 150 - 0.5) * 10
    voice = np.stack([np.interp(heard, np.arange(200), curve) for curve in curves.T], axis=1)
    table = synchrony.agreement(voice, curves[25:175])
    assert abs(synchrony.DRIFTS[table.max(axis=1).argmax()] - 10) <= 2


def test_hashes_survive_compression_and_tell_contents_apart() -> None:
    picture, other = (scene(seed, 1, 128)[0] @ LUMA for seed in (1, 2))
    rng = np.random.default_rng(0)
    noisy = picture + rng.normal(size=picture.shape) * 4

    def distance(a: int, b: int) -> int:
        return ((a ^ b) & (1 << 64) - 1).bit_count()

    assert distance(picture_hash(picture), picture_hash(noisy[::2, ::2])) <= 6
    assert distance(picture_hash(picture), picture_hash(other)) > 16
    a, b = sound(1, 2.0), sound(2, 2.0)
    same = a * 0.5 + 1e-3 * rng.normal(size=len(a))
    assert len(sound_hashes(a)) == 16
    assert np.mean(list(map(distance, sound_hashes(a), sound_hashes(same.astype(np.float32))))) <= 2
    assert np.mean(list(map(distance, sound_hashes(a), sound_hashes(b)))) > 5


def test_noise_in_pauses_is_not_what_a_sound_is_known_by() -> None:
    rng, seconds = np.random.default_rng(0), np.arange(4 * RATE) / RATE
    voice = 0.2 * np.convolve(rng.normal(size=4 * RATE), 0.9 ** np.arange(64), "same") * (seconds % 1.6 < 0.7)
    first, again = (sound_hashes((voice + 1e-3 * rng.normal(size=len(voice))).astype(np.float32)) for _ in range(2))
    assert np.mean([(a ^ b).bit_count() for a, b in zip(first, again, strict=True)]) < 0.7


@pytest.mark.parametrize("trimmed", [0.0, 0.04, 0.28, 0.8])  # seconds at the beginning
def test_a_copy_that_begins_later_is_found(trimmed: float) -> None:
    frames, waveform = scene(1, 100) @ LUMA, sound(1, 4.0)

    def clip(name: str, seed_of_sound: int, cut: float) -> Clip:
        heard = (waveform if seed_of_sound == 1 else sound(seed_of_sound, 4.0))[round(cut * RATE) :]
        seen = frames[round(cut * 25) :]
        hashes = [picture_hash(picture) for picture in seen[2::5]]
        return Clip(name, name, seconds=4 - cut, video_hash=hashes, audio_hash=sound_hashes(heard))

    clips = [clip("a", 1, 0.0), clip("other sentence", 2, trimmed), clip("copy", 1, trimmed), clip("part", 1, 2.2)]
    assert near_duplicates(clips, 14, 12) == {"copy": "a"}


def test_the_measured_caption_says_only_what_is_known() -> None:
    assert measured_caption(Clip("a", "a.mp4", faces=0.0)) == "A video of nobody whose face is seen."
    said = measured_caption(
        Clip("a", "a.mp4", faces=1.0, face_share=0.5, yaw=5.0, speech=0.7, brightness=0.5, shake=0.4)
    )
    assert said == "A close-up of one person, facing the camera, speaking, in even light, the camera still."


def test_intervals_and_decisions() -> None:
    low, high = wilson(5, 100)  # Wilson (1927) as in Newcombe, 1998
    assert (low, high) == pytest.approx((0.0215, 0.1118), abs=1e-3)
    assert wilson(0, 0) == (0.0, 1.0)
    assert decide(0, 20, 0.05, 400) == "go on"
    assert decide(0, 80, 0.05, 400) == "accept"
    assert decide(15, 60, 0.05, 400) == "reject"
    assert decide(18, 400, 0.05, 400) == "reject"


def test_kappa_is_agreement_beyond_chance() -> None:
    # Cohen's own kind of table: 20 both yes, 5 and 10 apart, 15 both no.
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    assert cohens_kappa(pairs) == pytest.approx(0.4)
    assert cohens_kappa([]) is None
