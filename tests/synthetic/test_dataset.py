import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

moderngl = pytest.importorskip("moderngl")
parquet = pytest.importorskip("pyarrow.parquet")

from skyreels_audio.media import probe_video, read_audio, read_video  # noqa: E402
from skyreels_audio.synthetic import voices  # noqa: E402
from skyreels_audio.synthetic.bank import TEST_VOICES, compress  # noqa: E402
from skyreels_audio.synthetic.captions import ATTRIBUTES  # noqa: E402
from skyreels_audio.synthetic.dataset import read_lip_mask, synthesize  # noqa: E402
from skyreels_audio.synthetic.rig import ACTIONS  # noqa: E402
from skyreels_audio.synthetic.studio import Studio  # noqa: E402
from skyreels_audio.synthetic.visemes import curves, to_arkit  # noqa: E402

FRAMES = 9


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> Path:
    """A bank of one utterance per split, as `speech_bank` writes it."""
    folder = tmp_path_factory.mktemp("speech")
    for number, (split, speaker) in enumerate((("train", "f2"), ("test", "f5"))):
        spoken = voices.say_espeak("The map of Bob is on a big table", "en-us", speaker, np.random.default_rng(number))
        row = {"split": split, "text": spoken.text, "language": "en-us", "voice": spoken.voice}
        row |= {"samples": len(spoken.waveform), "phonemes": spoken.phonemes}
        packet, shapes = np.frombuffer(compress(spoken.waveform), np.uint8), curves(spoken)
        text = np.frombuffer(json.dumps([row]).encode(), np.uint8)
        np.savez(
            folder / f"{number:05d}.npz",
            opus=packet,
            opus_lengths=[len(packet)],
            curves=shapes,
            curve_lengths=[len(shapes)],
            rows=text,
        )
    return folder


@pytest.fixture(scope="module")
def studio(speech) -> Studio:
    try:
        return Studio(speech, FRAMES, 64, seed=4, stage="mouth")
    except Exception as error:  # no EGL here: moderngl's errors have no common type
        pytest.skip(f"cannot render here: {error}")


def test_clips_depend_on_their_index_alone(studio):
    first = studio.clip(3)
    studio.clip(0)
    again = studio.clip(3)
    assert np.array_equal(first.rendered.frames, again.rendered.frames)
    assert np.array_equal(first.speech.waveform, again.speech.waveform)
    assert (first.caption, first.identity) == (again.caption, again.identity)


def test_sound_curves_and_motion_are_of_one_moment(studio):
    for index in range(4):
        clip = studio.clip(index)
        assert len(clip.speech.waveform) == FRAMES * 640 and len(clip.visemes) == FRAMES * 4
        jaw = clip.motion.weights_TK[:, ACTIONS.index("jawOpen")]
        middle = to_arkit(clip.visemes[::4])[:, ACTIONS.index("jawOpen")]
        assert jaw.std() < 0.02 or np.corrcoef(jaw, middle)[0, 1] > 0.8


def test_only_the_mouth_moves(studio):
    clip = next(clip for clip in map(studio.clip, range(9)) if clip.visemes[:, 0].std() > 0.05)
    frames = clip.rendered.frames.astype(int)
    assert (frames - frames[:1]).any()
    top = frames[:, :16]  # forehead and what is behind
    assert not (top - top[:1]).any()


def test_splits_share_nobody(studio):
    clips = [studio.clip(index) for index in (0, 7, 15)]
    assert [clip.split for clip in clips] == ["train", "test", "test"]
    for clip in clips:
        assert (clip.speech.voice in TEST_VOICES) == (clip.split == "test")
        assert int(clip.identity.removeprefix("drawn:")) % 2 == (clip.split == "train")


def test_dataset_resumes_to_the_same_files(studio, speech, tmp_path):
    make = partial(synthesize, out=tmp_path, seed=4, size=64, frames=FRAMES, stage="mouth", speech=speech)
    make(2)
    video, mask, rows = (tmp_path / name for name in ("clips/000001.mp4", "masks/000001.npz", "rows/00000.parquet"))
    before = {path: path.read_bytes() for path in (video, mask)}
    make(3)
    assert all(path.read_bytes() == content for path, content in before.items())
    stamp = rows.stat().st_mtime_ns
    make(3)
    assert rows.stat().st_mtime_ns == stamp  # complete: nothing to do
    assert not list(tmp_path.rglob("*.partial"))

    table = parquet.read_table(tmp_path / "rows").to_pylist()
    assert [row["index"] for row in table] == [0, 1, 2]
    clip, row = studio.clip(1), table[1]
    assert row["caption"] == clip.caption and set(ATTRIBUTES) <= set(row)
    assert np.reshape(row["landmarks"], (FRAMES, 68, 2)) == pytest.approx(clip.rendered.landmarks_T682)
    assert np.reshape(row["visemes"], (-1, 9)) == pytest.approx(clip.visemes)
    assert np.array_equal(read_lip_mask(mask), clip.rendered.lip_mask >= 128)
    info = probe_video(video)
    assert (info.width, info.height, info.frames, info.fps) == (64, 64, FRAMES, 25)
    assert np.abs(np.stack(list(read_video(video))).astype(int) - clip.rendered.frames).mean() < 12
    assert read_audio(video)[: FRAMES * 640] == pytest.approx(clip.speech.waveform, abs=1e-3)


def test_unknown_stage_is_refused(speech):
    with pytest.raises(ValueError, match="slight"):
        Studio(speech, FRAMES, 64, stage="wild")
