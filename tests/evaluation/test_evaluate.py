import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skyreels_audio import media
from skyreels_audio.evaluation import evaluate as runner
from skyreels_audio.evaluation.cases import Case, read_cases, write_cases
from skyreels_audio.evaluation.measure import Networks, delay, loudness, read_frames
from skyreels_audio.evaluation.page import markdown, write_report
from skyreels_audio.evaluation.prepare import prepare, write_sound
from skyreels_audio.evaluation.protocol import Protocol, load_protocol, protocol_names
from skyreels_audio.media import InputError

PORTRAIT = Path(__file__).parents[1] / "faces" / "portrait.jpg"
TINY = Protocol(name="tiny", width=128, height=128, frames=24, clips=5, task="edit", crop="face")


def sound(seconds: float) -> np.ndarray:
    """A tone that comes and goes."""
    time = np.arange(round(16000 * seconds)) / 16000
    return (0.5 * np.sin(2 * np.pi * 220 * time) * (0.5 - 0.5 * np.cos(2 * np.pi * 1.7 * time**1.3))).astype(np.float32)


def write_clip(path: Path, frames: list[np.ndarray], sound_n: np.ndarray) -> None:
    voice = path.with_suffix(".sound.wav")
    write_sound(voice, sound_n)
    with media.VideoWriter(path, frames[0].shape[1], frames[0].shape[0], 25, voice) as writer:
        for frame in frames:
            writer.write(frame)
    voice.unlink()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """True clips of a portrait whose light changes a little, and "generated" ones: softer, missing, broken."""
    root = tmp_path_factory.mktemp("evaluate")
    generated, reference = root / "generated", root / "reference"
    generated.mkdir()
    reference.mkdir()
    picture = Image.fromarray(media.read_image(PORTRAIT)).convert("RGB").resize((160, 160), Image.Resampling.LANCZOS)
    frames = [np.asarray(picture.point([min(int(v + 2 * np.sin(k)), 255) for v in range(256)] * 3)) for k in range(30)]
    soft = [np.asarray(Image.fromarray(frame).resize((60, 60)).resize((160, 160))) for frame in frames]
    for name in ("a", "b", "c"):
        write_clip(reference / f"{name}.mp4", frames, sound(1.2))
    write_clip(generated / "a.mp4", soft, np.pad(sound(1.2), (1600, 0)))
    (generated / "b.mp4").write_bytes(b"no video at all")
    return generated, reference


@pytest.fixture(scope="module")
def found(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    evaluation = runner.evaluate(folders[0], folders[1], TINY, out)
    write_report(evaluation, read_cases(folders[1]), folders[0], out)
    return evaluation, out


def test_a_broken_file_is_told_and_the_others_have_their_figures(found):
    evaluation, _ = found
    assert [clip["name"] for clip in evaluation.clips] == ["a", "b"] and "error" not in evaluation.clips[0]
    assert "b.mp4" in evaluation.clips[1]["error"]
    assert evaluation.absent == ["c"]
    own, true = evaluation.systems["generated"], evaluation.systems["ground truth"]
    assert own["mouth_sharpness"].value < 0.8 < true["mouth_sharpness"].value == pytest.approx(1)
    assert own["sharpness"].value < true["sharpness"].value
    assert own["outside"].value > 2
    assert "psnr" in own and "psnr" not in true


def test_a_video_that_ends_before_its_time_is_broken(folders, tmp_path):
    whole = (folders[1] / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="truncated"):
        read_frames(tmp_path / "a.mp4", TINY)


def test_what_did_not_run_says_what_it_needs(found):
    evaluation, out = found
    assert "weights-inception" not in evaluation.not_run["fid"]  # the protocol names no file
    assert evaluation.not_run["fid"] == "needs the weights of inception: --inception FILE"
    assert "--qalign" in evaluation.not_run["iqa"]
    text = (out / "metrics.md").read_text()
    assert "| FID | ↓ | — | by definition |" in text and "not run: needs" in text
    assert "not measured: b: " in text and "without a video: c" in text


def test_the_page_shows_both_videos_and_the_figures(found, folders):
    evaluation, out = found
    page = (out / "index.html").read_text()
    assert page.count("<video") == 2 and page.count("<polyline") == 3
    record = json.loads((out / "metrics.json").read_text())
    assert record["systems"]["generated"]["sharpness"]["value"] == evaluation.systems["generated"]["sharpness"].value
    assert record["protocol"]["name"] == "tiny" and "curves" not in record["clips"][0]["video"]


def test_a_second_run_measures_only_what_changed(found, folders, monkeypatch):
    evaluation, out = found
    calls, measure = [], runner.measure
    monkeypatch.setattr(runner, "measure", lambda video, *rest: calls.append(video.name) or measure(video, *rest))
    again = runner.evaluate(folders[0], folders[1], TINY, out)
    assert calls == ["b.mp4"]  # what failed is tried again
    assert markdown(again) == markdown(evaluation)


def test_weights_that_are_not_the_protocols_are_refused(folders, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"others")
    protocol = load_protocol("hdtf-100")
    with pytest.raises(InputError, match=r"is not weights-inception-2015-12-05-6726825d.pth of protocol hdtf-100"):
        runner.evaluate(folders[0], folders[1], protocol, tmp_path, Networks(inception=tmp_path / "weights.pth"))


def test_folders_without_a_common_case_are_refused(folders, tmp_path):
    with pytest.raises(InputError, match="has no video of the cases"):
        runner.evaluate(tmp_path, folders[1], TINY, tmp_path / "out")
    with pytest.raises(InputError, match="holds no cases"):
        read_cases(tmp_path)


def test_cases_survive_writing(tmp_path):
    cases = [Case("x", tmp_path / "x.mp4", prompt="smiling"), Case("y", voice=tmp_path / "voices" / "1.wav")]
    write_cases(tmp_path, cases)
    assert read_cases(tmp_path) == cases
    (tmp_path / "cases.json").write_text('{"cases": [{"name": "x", "video": "x.mp4"}]}')
    with pytest.raises(InputError, match="unknown key video"):
        read_cases(tmp_path)


def test_the_packages_protocols_are_valid_and_others_are_refused(tmp_path):
    assert {load_protocol(name).name for name in protocol_names()} == set(protocol_names())
    assert {"hdtf-100", "lipsync-hdtf", "internal"} <= set(protocol_names())
    (tmp_path / "mine.yaml").write_text("name: mine\nframes: none\n")
    with pytest.raises(InputError, match="is not a protocol .frames:"):
        load_protocol(tmp_path / "mine.yaml")
    with pytest.raises(InputError, match="There is no protocol hdtf"):
        load_protocol("hdtf")


@pytest.mark.parametrize("samples", [-4000, 0, 320, 8000])
def test_a_late_sound_track_is_found_to_the_sample(samples):
    voice = np.random.default_rng(0).normal(size=48000).astype(np.float32)
    assert delay(np.roll(voice, samples), voice) * 16000 == pytest.approx(samples, abs=1)


def test_loudness_is_per_frame_and_silent_past_the_end():
    tone = np.concatenate([np.full(640, 0.5), np.zeros(640), np.full(320, 1.0)]).astype(np.float32)
    np.testing.assert_allclose(loudness(tone, 4, 25), [0.5, 0, np.sqrt(0.5), 0], atol=1e-6)


def test_preparing_cuts_what_serves_and_passes_over_the_rest(folders, tmp_path):
    protocol = TINY.model_copy(update={"clips": 2, "frames": 20})
    (folders[1] / "broken.webm").write_bytes(b"broken")
    cases, passed = prepare(folders[1], tmp_path, protocol)
    assert len(cases) == 2 and set(passed) <= {"broken.webm"}
    case = read_cases(tmp_path)[0]
    assert case.truth and case.portrait and case.voice
    frames = read_frames(case.truth, protocol)
    assert frames.shape == (20, 128, 128, 3)
    assert np.abs(frames[0].astype(int) - media.read_image(case.portrait)).mean() < 4
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    prepare(folders[1], tmp_path, protocol)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    (folders[1] / "broken.webm").unlink()
    with pytest.raises(InputError, match="holds no videos"):
        prepare(tmp_path / "empty", tmp_path, protocol)
