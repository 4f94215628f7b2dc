"""Bad input, interrupted runs and memory while converting."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_checkpoints import save_diffusers, save_original, save_whisper, tiny_transformer

from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
from skyreels_audio.media import InputError
from skyreels_audio.models.convert import convert_backbone, load_backbone, tensors
from skyreels_audio.models.convert.encoders import convert_autoencoder, convert_image_encoder, convert_text_encoder
from skyreels_audio.models.convert.hub import local_folder
from skyreels_audio.models.convert.tensors import Lazy, read_pickle, read_safetensors, write_safetensors

FAMILY = "Wan2.1-T2V-1.3B"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source") / FAMILY
    save_diffusers(FAMILY, folder)
    return folder


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("whisper"))


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


def test_a_folder_that_is_no_model_is_named(source, tmp_path, whisper):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match="not a model folder"):
        convert_backbone(tmp_path, tmp_path / "out", whisper)
    with pytest.raises(InputError, match="no folder, and no repository"):
        convert_backbone(tmp_path / "absent", tmp_path / "out", whisper)
    with pytest.raises(InputError, match="no Whisper checkpoint"):
        convert_backbone(source, tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


def test_other_weights_are_told_from_a_backbone(tmp_path, whisper):
    save_file({"lm_head.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="not those of a Wan or SkyReels-V2 model"):
        convert_backbone(tmp_path, tmp_path / "out", whisper)


def test_truncated_missing_and_wrong_tensors_are_named(tmp_path, whisper):
    model = tiny_transformer(FAMILY)
    save_original(model, tmp_path)
    shard = tmp_path / "diffusion_pytorch_model-00001-of-00002.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="00001-of-00002.safetensors is truncated"):
        convert_backbone(tmp_path, tmp_path / "out", whisper)

    with safe_open(tmp_path / "diffusion_pytorch_model-00002-of-00002.safetensors", "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    shard.write_bytes(whole)
    name = next(name for name in weights if name.startswith("blocks.0.") and name.endswith(".weight"))
    for changed, sentence in (
        ({name: torch.zeros(3)}, "wrong size"),
        ({"surprise": torch.zeros(1)}, "unexpected tensors: surprise"),
    ):
        save_file(weights | changed, tmp_path / "diffusion_pytorch_model-00002-of-00002.safetensors")
        with pytest.raises(InputError, match=sentence):
            convert_backbone(tmp_path, tmp_path / "out", whisper)
    del weights[name]
    save_file(weights, tmp_path / "diffusion_pytorch_model-00002-of-00002.safetensors")
    with pytest.raises(InputError, match="lacks blocks.0"):
        convert_backbone(tmp_path, tmp_path / "out", whisper)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ("text_encoder/model.safetensors", "text_encoder/model.safetensors is truncated"),
        ("vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors is truncated"),
        ("model_index.json", "model_index.json is missing or cannot be read"),
        ("transformer/config.json", "transformer/config.json is missing or cannot be read"),
    ],
)
def test_any_truncated_file_of_a_model_is_named(source, whisper, tmp_path, broken, sentence):
    shutil.copytree(source, tmp_path / "cut")
    path = tmp_path / "cut" / broken
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=sentence):
        convert_backbone(tmp_path / "cut", tmp_path / "out", whisper)
    path.unlink()
    with pytest.raises(InputError, match=r"no \*.safetensors|is missing|not a model folder"):
        convert_backbone(tmp_path / "cut", tmp_path / "out", whisper)
    assert not (tmp_path / "out").exists()


def test_a_truncated_audio_encoder_is_named_before_the_long_work(source, whisper, tmp_path):
    shutil.copytree(whisper, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(InputError, match="cut cannot be loaded as WhisperEncoder"):
        convert_backbone(source, tmp_path / "out", tmp_path / "cut")
    assert not (tmp_path / "out.partial" / "transformer").exists()


@pytest.mark.parametrize("heads", [5, 16, 0, "two", None])
def test_heads_that_do_not_divide_the_width_are_told(heads, whisper, tmp_path):
    """Width 24: into 5 heads not at all, into 16 not evenly; None says nothing and 24 is less than Wan's head."""
    save_original(tiny_transformer(FAMILY), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({} if heads is None else {"num_heads": heads}))
    with pytest.raises(InputError, match=r"num_heads .* does not divide the width 24"):
        convert_backbone(tmp_path, tmp_path / "out", whisper)
    assert not (tmp_path / "out").exists()


def test_a_configuration_that_contradicts_itself_is_told(source, whisper, tmp_path):
    shutil.copytree(source, tmp_path / "odd")
    path = tmp_path / "odd" / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"attention_head_dim": 7}))
    with pytest.raises(InputError, match=r"No transformer can be made|wrong size"):
        convert_backbone(tmp_path / "odd", tmp_path / "out", whisper)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("component", ["transformer", "vae", "text_encoder", "audio_encoder"])
def test_weights_that_are_not_finite_are_told(component, value, source, whisper, tmp_path):
    shutil.copytree(source, tmp_path / "model")
    shutil.copytree(whisper, tmp_path / "whisper")
    folder = tmp_path / "whisper" if component == "audio_encoder" else tmp_path / "model" / component
    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    name = max(weights, key=lambda name: weights[name].numel())
    weights[name].flatten()[-1] = value
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"{folder}.* holds values that are not finite in .*{name[-8:]}"):
        convert_backbone(tmp_path / "model", tmp_path / "out", tmp_path / "whisper")
    assert not (tmp_path / "out").exists()


def test_a_pickle_of_weights_that_are_not_finite_is_told(tmp_path):
    torch.save({"token_embedding": {"weight": torch.full((3, 2), torch.nan).to(torch.float8_e4m3fn)}}, tmp_path / "t5")
    with pytest.raises(InputError, match="t5 holds values that are not finite in token_embedding.weight"):
        tensors.read_state_dict(tmp_path / "t5")["token_embedding.weight"].load()


def test_an_encoder_of_another_make_is_told(tmp_path):
    for convert, weights in (
        (convert_text_encoder, {"token_embedding.weight": torch.zeros(3)}),
        (convert_image_encoder, {"visual.patch_embedding.weight": torch.zeros(3)}),
        (convert_autoencoder, [1, 2]),
    ):
        torch.save(weights, tmp_path / "weights.pth")
        with pytest.raises(InputError, match="does not hold Wan's|lacks encoder.conv_in.weight"):
            convert(tmp_path / "weights.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Attack()}, tmp_path / "new.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Attack()))
    for name in ("new.pth", "old.pth"):
        with pytest.raises(InputError, match="could run code, so it was not loaded"):
            read_pickle(tmp_path / name)
    assert not (tmp_path / "attacked").exists()
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "good.pth")
    assert read_pickle(tmp_path / "good.pth")["weight"].shape == (1000,)
    (tmp_path / "cut.pth").write_bytes((tmp_path / "good.pth").read_bytes()[:900])
    with pytest.raises(InputError, match="truncated"):
        read_pickle(tmp_path / "cut.pth")


def test_a_full_disk_leaves_nothing_half_written_and_the_next_run_resumes(source, whisper, tmp_path, monkeypatch):
    model = tiny_transformer(FAMILY)
    folder = tmp_path / "original"
    save_original(model, folder, shards=3)
    for part in ("vae", "text_encoder", "tokenizer"):
        (folder / part).symlink_to(source / part)
    written, replace = [], os.replace

    def full_disk(partial: Path, path: Path) -> None:
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(path.name)
        replace(partial, path)

    monkeypatch.setattr(tensors.os, "replace", full_disk)
    with pytest.raises(InputError, match="No space left on device .* run the same command again"):
        convert_backbone(folder, tmp_path / "out", whisper)
    assert not (tmp_path / "out").exists()
    kept = {path.name for path in (tmp_path / "out.partial" / "transformer").iterdir()}
    assert kept == set(written)
    monkeypatch.setattr(
        tensors.os, "replace", lambda partial, path: (written.append(path.name), replace(partial, path))
    )
    convert_backbone(folder, tmp_path / "out", whisper)
    assert len(written) == len(set(written)), "a finished shard was written again"
    assert (tmp_path / "out" / "model_index.json").exists() and not (tmp_path / "out.partial").exists()
    with pytest.raises(InputError, match="exists already"):
        convert_backbone(folder, tmp_path / "out", whisper)


def test_files_are_those_of_the_safetensors_library(tmp_path):
    given = {
        "a": torch.randn(3, 4),
        "b": torch.randn(5).to(torch.bfloat16),
        "c": torch.tensor(7),
        "d": torch.randn(2, 2).to(torch.float8_e4m3fn),
    }
    write_safetensors(tmp_path / "ours", {n: Lazy(tuple(t.shape), t.dtype, lambda t=t: t) for n, t in given.items()})
    with safe_open(tmp_path / "ours", "pt") as file:
        for name, tensor in given.items():
            assert torch.equal(file.get_tensor(name).flatten().view(torch.uint8), tensor.flatten().view(torch.uint8))
    again = read_safetensors(tmp_path / "ours")
    assert {name: (lazy.shape, lazy.dtype) for name, lazy in again.items()} == {
        name: (tuple(tensor.shape), tensor.dtype) for name, tensor in given.items()
    }


MEASURE = """
import sys
from pathlib import Path
from skyreels_audio.models.convert.tensors import read_safetensors, write_shards
from skyreels_audio.models.convert.keys import WAN
from skyreels_audio.models.convert.transformer import translate, _widened
def status(field):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))
source, out = Path(sys.argv[1]), Path(sys.argv[2])
write_shards(out / "warm", "model", [read_safetensors(source / "warm.safetensors")])
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
before = status("VmRSS")
shards = [translate(read_safetensors(source / f"{i}.safetensors"), WAN) for i in range(2)]
shards[0]["patch_embedding.weight"] = _widened(shards[0]["patch_embedding.weight"], 36)
write_shards(out, "model", shards)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's own account of memory")
def test_memory_stays_under_the_largest_shard(tmp_path):
    """Peak resident memory of a process that converts two shards of 48 MB, which it maps while it reads them."""
    for shard in range(2):
        weights = {
            f"blocks.{i}.self_attn.q.weight": torch.zeros(1024, 1024) for i in range(12 * shard, 12 * shard + 12)
        }
        if shard == 0:
            weights["patch_embedding.weight"] = torch.zeros(64, 16, 1, 2, 2)
        save_file(weights, tmp_path / f"{shard}.safetensors")
    save_file({"blocks.0.self_attn.q.weight": torch.zeros(8)}, tmp_path / "warm.safetensors")
    command = [sys.executable, "-c", MEASURE, str(tmp_path), str(tmp_path / "out")]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 2**20 < peak < 1.2 * 48 * 2**20, peak


def test_a_loaded_backbone_is_converted_once(source, whisper, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HOME", str(tmp_path))
    folder = load_backbone(source, whisper)
    written = (folder / "model_index.json").stat().st_mtime_ns
    assert load_backbone(source, whisper) == folder and (folder / "model_index.json").stat().st_mtime_ns == written
    assert tmp_path in folder.parents and FAMILY in folder.name
    pipeline = SkyReelsAudioPipeline.from_backbone(source, whisper, dtype=torch.bfloat16)
    assert pipeline.transformer.config.in_channels == 36 and pipeline.transformer.dtype == torch.bfloat16


def test_without_network_the_message_says_what_to_put_where(monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        assert (repository, revision) == ("Wan-AI/Wan2.1-T2V-1.3B", "abc123") and "*.safetensors" in allow_patterns
        raise LocalEntryNotFoundError("the network is unreachable")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        InputError, match="hf download Wan-AI/Wan2.1-T2V-1.3B --revision abc123 .*copy that folder here"
    ):
        local_folder("Wan-AI/Wan2.1-T2V-1.3B@abc123")
    assert local_folder(tmp_path) == tmp_path
