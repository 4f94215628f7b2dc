"""Real classes at tiny width: a folder of videos → manifest → shards → two stages of training → a video."""

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from skyreels_audio import media
from skyreels_audio.generation.encoders import encode_reference
from skyreels_audio.generation.lora import load_loras
from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
from skyreels_audio.media import InputError, VideoWriter
from skyreels_audio.models.convert import convert_backbone
from skyreels_audio.models.syncnet import Sync, face_squares, mfcc
from skyreels_audio.training.encode import Encoders, labels_at
from skyreels_audio.training.flow import FlowTask
from skyreels_audio.training.folder import Told, index_folder, judged
from skyreels_audio.training.manifest import (
    LABEL_FPS,
    ManifestRow,
    file_hash,
    label_frames,
    read_manifest,
    write_manifest,
)
from skyreels_audio.training.precompute import Precompute, precompute, read_clip, stored_keys, windows
from skyreels_audio.training.recipe import Quality, read_recipe
from skyreels_audio.training.shards import Shards
from skyreels_audio.training.trainer import train
from tests.models.tiny_checkpoints import save_diffusers, save_whisper
from tests.training.small_task import options

PORTRAIT = Path(__file__).parents[1] / "faces" / "portrait.jpg"
RECIPES = Path(__file__).parents[2] / "recipes"
SIZE, LATENTS = (64, 64), (3, 2)
CPU = torch.device("cpu")


def write_wav(path: Path, samples_n: np.ndarray) -> Path:
    import wave

    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((samples_n * 32767).astype(np.int16).tobytes())
    return path


def tone(seconds: float) -> np.ndarray:
    t = np.arange(round(16000 * seconds)) / 16000
    return (0.3 * np.sin(2 * np.pi * 200 * t) * (np.sin(2 * np.pi * 3 * t) > 0)).astype(np.float32)


def write_video(path: Path, fps: float, seconds: float, brightness: int = 0) -> None:
    """The portrait, a bar in it that moves by a pixel every 40 ms, and a voice of sorts."""
    picture = media.read_image(PORTRAIT)
    from PIL import Image

    small = np.asarray(Image.fromarray(picture).resize((160, 160)))
    sound = write_wav(path.with_suffix(".wav"), tone(seconds))
    with VideoWriter(path, 160, 160, fps, audio=sound) as video:
        for number in range(round(fps * seconds)):
            frame = np.clip(small.astype(int) + brightness, 0, 255).astype(np.uint8)
            frame[:8, : int(number / fps * 25) + 1] = 255
            video.write(frame)
    sound.unlink()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A model folder, three videos (one of 30 frames per second), their manifest and shards."""
    folder = tmp_path_factory.mktemp("road")
    save_diffusers("SkyReels-V2-I2V-1.3B-540P", folder / "backbone")
    convert_backbone(folder / "backbone", folder / "model", save_whisper(folder / "whisper"))
    index = json.loads((folder / "model" / "model_index.json").read_text())
    index["generation_defaults"] |= {"height": 64, "width": 64, "text_tokens": 24}
    (folder / "model" / "model_index.json").write_text(json.dumps(index))
    (folder / "videos").mkdir()
    write_video(folder / "videos" / "a.mp4", 25, 0.8)
    write_video(folder / "videos" / "b.mp4", 30, 0.8, brightness=9)
    write_video(folder / "videos" / "c.mp4", 25, 0.5, brightness=-9)
    (folder / "videos" / "b.txt").write_text("a woman at thirty frames per second")
    (folder / "videos" / "broken.mp4").write_bytes(b"nothing")
    told = Told(caption="a woman", language="en", licence="CC0")
    _, problems = index_folder(folder / "videos", folder / "m.parquet", told)
    assert len(problems) == 1 and problems[0].startswith("broken.mp4")
    precompute(job(folder))
    return folder


def job(folder: Path, **given: Any) -> Precompute:
    usual: dict[str, Any] = {"manifest": folder / "m.parquet", "model": folder / "model", "out": folder / "shards"}
    usual |= {"sizes": (SIZE,), "latents": LATENTS, "held_out": 0.0} | given
    return Precompute(**usual)


def shards(folder: Path, batch: int = 2, **given: Any) -> Shards:
    usual: dict[str, Any] = {"folders": [folder], "batch": batch, "seed": 0, "quality": [Quality()], "text_tokens": 24}
    usual |= {"device": CPU} | given
    return Shards(**usual)


def test_a_folder_becomes_a_manifest(made):
    rows = read_manifest(made / "m.parquet")
    assert [Path(row.path).name for row in rows] == ["a.mp4", "b.mp4", "c.mp4"]
    assert [row.caption for row in rows] == ["a woman", "a woman at thirty frames per second", "a woman"]
    for row in rows:
        assert row.landmarks_F682 is not None and len(row.landmarks_F682) == label_frames(row.seconds)
        assert np.isfinite(row.landmarks_F682).all() and row.licence == "CC0"
    assert not (made / "m.parquet.parts").exists()


def test_an_offset_is_believed_only_where_the_expert_is_sure(tmp_path, monkeypatch):
    from skyreels_audio.models import syncnet

    write_video(tmp_path / "v.mp4", 25, 2.4)
    boxes = np.tile(np.array([40, 30, 120, 130], np.float32), (60, 1))
    row = ManifestRow(str(tmp_path / "v.mp4"), 0.0, 2.4, 25.0, "0" * 64, face_boxes_F4=boxes)
    for confidence, offset, told in ((0.9, 4, 4.0), (0.01, 4, None), (0.9, 1, None)):
        sync = Sync(offset, confidence, 1.0, np.zeros(31))
        expert = SimpleNamespace(offset_and_confidence=lambda faces, sound, sync=sync: sync)
        monkeypatch.setattr(syncnet, "load_sync_expert", lambda expert=expert: expert)
        found = judged(tmp_path / "v.mp4", row, tone(2.4))
        assert (found.sync_offset, found.sync_confidence) == (told, confidence)


def test_an_unchanged_file_is_not_looked_at_again(made, monkeypatch):
    from skyreels_audio.training import folder

    monkeypatch.setattr(folder, "file_rows", lambda *given: pytest.fail("looked again"))
    shutil.copytree(made, copy := made.with_name("copy"), dirs_exist_ok=True)
    (copy / "videos" / "broken.mp4").unlink()
    rows, problems = index_folder(copy / "videos", copy / "m.parquet", Told(caption="another"))
    assert not problems and {row.caption for row in rows} == {"another", "a woman at thirty frames per second"}
    shutil.rmtree(copy)


def test_clips_are_cut_into_the_longest_windows_then_shorter_ones():
    assert [(w.first, w.latents) for w in windows(33, (3, 2), SIZE)] == [(0, 3), (9, 3), (18, 3), (27, 2)]
    assert list(windows(4, (2,), SIZE)) == []


def test_what_is_there_is_not_made_again_and_what_changed_is(made, tmp_path):
    shutil.copytree(made / "shards", tmp_path / "shards")
    before = set(stored_keys(tmp_path / "shards"))
    again = job(made, out=tmp_path / "shards")
    assert precompute(again) == {"wanted": len(before), "made": 0, "left_out": 0}
    rows = read_manifest(made / "m.parquet")
    write_manifest([replace(rows[0], caption="somebody else"), *rows[1:]], tmp_path / "m.parquet")
    counts = precompute(replace(again, manifest=tmp_path / "m.parquet"))
    assert counts == {"wanted": len(before), "made": 2, "left_out": 0}  # a.mp4 has two windows
    source = shards(tmp_path / "shards")
    assert len({place.key for place in source.phases[0][1]}) == len(before)
    assert len(set(stored_keys(tmp_path / "shards"))) == len(before) + 2


def test_samples_are_what_generation_sees(made):
    """Conditions of the first window of a clip: those of the pipeline for its first frame and its sound."""
    pipeline: Any = SkyReelsAudioPipeline.from_pretrained(made / "model", dtype=torch.float32)
    source = shards(made / "shards", batch=1)
    place = next(p for p in source.phases[0][1] if told(p)["path"].endswith("a.mp4") and told(p)["first"] == 0)
    batch = source.stack([place.read()])
    row = next(row for row in read_manifest(made / "m.parquet") if row.path.endswith("a.mp4"))
    encoders = Encoders(made / "model", CPU, 25.0)
    frames = np.stack(list(media.read_video(row.path, 25.0))[:9])
    from PIL import Image

    small = np.stack([np.asarray(Image.fromarray(f).resize((64, 64), Image.Resampling.LANCZOS)) for f in frames])
    settings = pipeline.settings(height=64, width=64)
    reference, known = encode_reference(pipeline, small[:1], None, 3, settings)
    torch.testing.assert_close(batch.conditions.reference_BCTHW, reference, atol=2e-2, rtol=2e-2)
    assert torch.equal(batch.conditions.known_B4THW, known)
    clean, _ = encode_reference(pipeline, small, None, 3, settings)
    torch.testing.assert_close(batch.clean_BCTHW, clean, atol=2e-2, rtol=2e-2)
    text = encoders.text("a woman").float()
    torch.testing.assert_close(batch.conditions.text_BSD[0, : len(text)], text, atol=2e-2, rtol=2e-2)
    assert batch.conditions.image_BND is not None and batch.lips_BTHW is not None and batch.lips_BTHW.max() > 0.03
    assert batch.squares_BF4 is not None and batch.mfcc_BCM is not None
    labels = labels_at(row, np.arange(9) / 25)
    assert labels is not None
    np.testing.assert_allclose(batch.squares_BF4[0], face_squares(labels[0]) * 64 / 160, atol=1e-3)
    expected = torch.from_numpy(mfcc(media.read_audio(row.path))[:, : 4 * 9])
    torch.testing.assert_close(batch.mfcc_BCM[0], expected)
    assert batch.editing_known_B4THW is not None
    edited = batch.editing_known_B4THW[0, 0, 1]
    assert 0 < edited.mean() < 1 and bool((batch.lips_BTHW[0, 1][edited == 1] < 1e-3).all())


def told(place: Any) -> dict[str, Any]:
    with tarfile.open(place.path) as tar:
        file = tar.extractfile(f"{place.key}.json")
        assert file is not None
        return json.load(file)


def test_a_recording_of_any_rate_shows_the_same_moments(made):
    """The bar says when a frame was shown: at 30 frames per second too, frame k is that of k / 25 s."""
    for name in ("a.mp4", "b.mp4"):
        frames = list(media.read_video(made / "videos" / name, 25.0))
        bars = [int((frame[4, :, 0] > 200).argmin()) for frame in frames[:18]]
        assert np.abs(np.array(bars) - np.arange(1, 19)).max() <= 1, name


def test_audio_tokens_of_a_window_lie_around_it(made):
    encoders = Encoders(made / "model", CPU, 25.0)
    sound = encoders.sound(tone(2.0), 0.5, 2.0)
    for start, latents in ((0.0, 3), (0.6, 3), (1.12, 3), (0.4, 2)):
        features_AD, positions_A = encoders.audio(sound, start, latents)
        again_AD, _ = encoders.audio(sound, start + 0.02, latents)
        assert len(features_AD) == len(positions_A) == len(again_AD)
        assert positions_A[0] < 0 and positions_A[-1] > (4 * (latents - 1) + 1) * 2
        torch.testing.assert_close(positions_A.diff(), torch.ones(len(positions_A) - 1, dtype=torch.float64))


@pytest.mark.parametrize("late", [5, -3])
def test_sound_that_is_constantly_off_is_moved_back(made, tmp_path, late):
    """The tokens of a span are those of the sound as it was before somebody muxed it ``late`` frames later."""
    encoders = Encoders(made / "model", CPU, 25.0)
    sound_n = np.random.default_rng(0).normal(0, 0.1, 2 * media.SAMPLE_RATE).astype(np.float32)
    shift = late * media.SAMPLE_RATE // LABEL_FPS
    moved_n = np.zeros_like(sound_n)
    moved_n[max(shift, 0) : len(moved_n) + min(shift, 0)] = sound_n[max(-shift, 0) : len(sound_n) - max(shift, 0)]
    with VideoWriter(
        tmp_path / "off.mp4", 64, 64, 25, audio=write_wav(tmp_path / "off.wav", moved_n), audio_codec="flac"
    ) as video:
        for _ in range(50):
            video.write(np.zeros((64, 64, 3), np.uint8))
    path = tmp_path / "off.mp4"
    row = ManifestRow(str(path), 0.4, 1.2, 25.0, file_hash(path), sync_offset=late)
    _, told_AD, told_CM = read_clip(row, encoders)
    torch.testing.assert_close(told_AD, encoders.sound(sound_n, 0.4, 1.2), atol=1e-2, rtol=1e-2)
    expected_CM = torch.from_numpy(mfcc(sound_n[int(0.4 * 16000) : int(1.2 * 16000) + 240]))
    torch.testing.assert_close(told_CM, expected_CM, atol=0.1, rtol=0.02)
    _, untold_AD, _ = read_clip(replace(row, sync_offset=None), encoders)
    assert (untold_AD - told_AD).abs().mean() > 10 * (told_AD - encoders.sound(sound_n, 0.4, 1.2)).abs().mean()


def test_labels_between_frames_are_between_labels():
    points = np.zeros((4, 68, 2), np.float32) + np.arange(4, dtype=np.float32)[:, None, None]
    points[3] = np.nan
    row = ManifestRow("a", 0.0, 4 / LABEL_FPS, 30.0, "0" * 64, landmarks_F682=points)
    found = labels_at(row, np.array([0.0, 0.5, 1.0, 2.0]) / LABEL_FPS)
    assert found is not None
    np.testing.assert_allclose(found[1][:, 0, 0], [0, 0.5, 1, 2], atol=1e-5)


def test_every_epoch_sees_every_sample_and_a_step_always_the_same(made):
    source = shards(made / "shards")
    places = {place.key for place in source.phases[0][1]}
    for epoch in range(2):
        batches = source.epoch(0, epoch)
        assert {place.key for batch in batches for place in batch} == places
        assert all(len({place.bucket for place in batch}) == 1 for batch in batches)
    assert source.epoch(0, 0) != source.epoch(0, 1)
    for step in (0, 3, 11):
        assert source.order(step) == shards(made / "shards").order(step)


def test_a_damaged_sample_or_shard_is_told_and_replaced(made, tmp_path):
    shutil.copytree(made / "shards", tmp_path / "shards")
    source = shards(tmp_path / "shards", batch=1)
    place = source.order(0)[0]
    data = bytearray(place.path.read_bytes())
    data[place.start + place.size - 5] ^= 1
    place.path.write_bytes(data)
    batch = source.batch(0, range(1))
    assert torch.isfinite(batch.clean_BCTHW).all() and list(source.trouble) == [place.key]
    torch.testing.assert_close(source.batch(0, range(1)).clean_BCTHW, batch.clean_BCTHW)
    for path in (tmp_path / "shards").glob("shard-*.tar"):
        path.write_bytes(b"no tar")
    with pytest.raises(InputError, match="has 0 of"):
        shards(tmp_path / "shards")


def test_coarse_clips_first_fine_ones_later(made, tmp_path):
    rows = read_manifest(made / "m.parquet")
    judged = [
        replace(row, sync_confidence=c, sync_offset=o) for row, c, o in zip(rows, (9, 5, 1), (0, 0, 4), strict=True)
    ]
    write_manifest(judged, tmp_path / "m.parquet")
    shutil.copytree(made / "shards", tmp_path / "shards")
    counts = precompute(job(made, manifest=tmp_path / "m.parquet", out=tmp_path / "shards"))
    assert counts["made"] == 1  # whose sound is moved now
    quality = [Quality(), Quality(from_step=10, confidence=4.0), Quality(from_step=20, confidence=6.0)]
    source = shards(tmp_path / "shards", quality=quality)
    counts = [len({place.confidence for place in places}) for _, places in source.phases]
    assert counts == [3, 2, 1]
    with pytest.raises(InputError, match="good enough"):
        shards(tmp_path / "shards", quality=[Quality(confidence=99)])


def recipe(folder: Path, output: Path, **given: Any) -> Path:
    import yaml

    values = {"task": "flow", "output": str(output), "model": str(folder / "model"), "data": [str(folder / "shards")]}
    values |= {"optimisation": options(steps=2, batch=2, save_every=2, log_every=1).model_dump(mode="json")} | given
    path = output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(values))
    return path


def test_two_stages_and_a_video(made, tmp_path):
    first = train(recipe(made, tmp_path / "one", train="audio", held_out_batches=0), device="cpu")
    joint = {"image": 0.4, "editing": 0.4, "text": 0.2}
    second = recipe(made, tmp_path / "two", model=str(first), train="all", curriculum=joint, held_out_batches=0)
    folder = train(second, device="cpu", changes={"loss.mask_gate": 0.5})
    before = (made / "model" / "transformer").glob("*.safetensors")
    assert next(before).stat().st_size > 0 and not (tmp_path / "two" / "export.partial").exists()
    pipeline: Any = SkyReelsAudioPipeline.from_pretrained(folder, dtype=torch.float32)
    picture = media.read_image(PORTRAIT)
    output = pipeline(picture, tone(0.2), "a woman", num_inference_steps=1, window=3, overlap=2)
    frames = list(output.frames)
    assert len(frames) == 5 and frames[0].shape[2] == 3


def test_the_loss_of_the_sync_expert_reaches_the_transformer(made, tmp_path):
    """The sum of both losses, where sound is heard, and gradients of its own."""

    def task(weight: float, drop: float) -> FlowTask:
        given = {"train": "all", "loss": {"sync_weight": weight}, "curriculum": {"drop": drop}}
        read: Any = read_recipe(recipe(made, tmp_path / "run", **given))
        return FlowTask(read, CPU)

    def gradient(task: FlowTask) -> tuple[float, torch.Tensor, dict[str, float]]:
        loss, said = task.loss(step)
        loss.backward()
        transformer: Any = task.modules["transformer"]
        return float(loss.detach()), transformer.patch_embedding.weight.grad, said

    plain, both, deaf = task(0.0, 0.0), task(0.5, 0.0), task(0.5, 1.0)
    step = next(step for step in range(20) if plain.source.batch(step, range(1)).clean_BCTHW.shape[2] == 3)
    (alone, ours, _), (loss, theirs, said) = gradient(plain), gradient(both)
    assert loss == pytest.approx(alone + 0.5 * said["loss/sync"], rel=1e-4) and 0 < said["loss/sync"] < 2
    assert float((ours - theirs).abs().max()) > 0
    assert gradient(deaf)[0] == pytest.approx(gradient(task(0.0, 1.0))[0], rel=1e-5)


def test_videos_show_how_far_a_training_is(made, tmp_path):
    clip = made / "videos" / "a.mp4"
    given = {"train": "all", "held_out_batches": 0, "samples": [str(clip)]}
    run = recipe(made, tmp_path / "run", **given)
    train(run, device="cpu", changes={"optimisation.sample_every": 2, "optimisation.steps": 2})
    video = tmp_path / "run" / "samples" / "0000002-a.mp4"
    assert media.probe_video(video).frames == 9 and len(media.read_audio(video)) > 5000
    assert next(media.read_video(video)).shape == (*SIZE, 3)
    with pytest.raises(InputError, match="does not exist"):
        train(recipe(made, tmp_path / "none", samples=["no.mp4"], held_out_batches=0), device="cpu")


def test_ones_own_videos_become_a_lora(made, tmp_path):
    """The recipe as it ships, with the road's folders and two steps: adapters that a pipeline loads and that show."""
    changes = {"model": str(made / "model"), "data": [str(made / "shards")], "output": str(tmp_path / "run")}
    changes |= {"optimisation.steps": 2, "optimisation.batch": 2, "optimisation.warmup_steps": 0}
    changes |= {"optimisation.learning_rate": 0.1, "optimisation.tracker": "none", "held_out_batches": 0}
    folder = train(RECIPES / "personal-lora.yaml", device="cpu", changes=changes)
    pipeline: Any = SkyReelsAudioPipeline.from_pretrained(made / "model", dtype=torch.float32)

    def video() -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        given = {"num_inference_steps": 1, "window": 3, "overlap": 2, "generator": generator}
        return np.stack(list(pipeline(media.read_image(PORTRAIT), tone(0.2), "a woman", **given).frames))

    before = video()
    load_loras(pipeline, [str(folder / "pytorch_lora_weights.safetensors")])
    assert np.abs(video().astype(int) - before).max() > 2


def test_shards_of_another_model_are_refused(made, tmp_path):
    shutil.copytree(made / "model", tmp_path / "model")
    config = tmp_path / "model" / "vae" / "config.json"
    config.unlink()
    config.write_text((made / "model" / "vae" / "config.json").read_text() + " ")
    with pytest.raises(InputError, match="encoded by another model"):
        train(recipe(made, tmp_path / "run", model=str(tmp_path / "model")), device="cpu")
