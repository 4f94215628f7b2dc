"""Broken model folders: one sentence that names the file and the entry, before anything is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModel

from skyreels_audio.bundled import bundled
from skyreels_audio.cli.checkpoint import check_classes, check_files, check_transformers_weights
from skyreels_audio.cli.door import choose_size, read_settings
from skyreels_audio.media import InputError

INDEX, TRANSFORMER, VAE = "model_index.json", "transformer/config.json", "vae/config.json"
SCHEDULER, TEXT, AUDIO = "scheduler/scheduler_config.json", "text_encoder/config.json", "audio_encoder/config.json"
NAN = float("nan")
TIED = {"shared.weight": "encoder.embed_tokens.weight"}  # one tensor with two names


def update(**values: Any) -> Callable[[Any], Any]:
    return lambda config: config | values


BROKEN = {
    "a list": (INDEX, lambda index: [index], "is not a JSON object but a list"),
    "a number for a part": (INDEX, update(vae=5), "vae is not a module and a class"),
    "a module of the system": (INDEX, update(vae=["os", "system"]), "vae is of os, not of diffusers"),
    "a checkpoint of the old kind": (
        INDEX,
        update(
            vae=["skyreels_audio.models.autoencoder", "CausalVideoAutoencoder"],
            generation_defaults={"edit_region": "mouth", "portrait_steps": 2},
        ),
        "vae is CausalVideoAutoencoder, of an earlier version of this package",
    ),
    "no such class": (INDEX, update(vae=["diffusers", "Nope"]), "vae is of class Nope, which diffusers does not have"),
    "no transformer": (INDEX, lambda index: {k: v for k, v in index.items() if k != "transformer"}, "no transformer"),
    "settings as a list": (INDEX, update(generation_defaults=[1]), "generation_defaults is not an object"),
    "unknown setting": (INDEX, update(generation_defaults={"steps": 3}), "has no entry named steps"),
    "words for steps": (
        INDEX,
        update(generation_defaults={"num_inference_steps": "x"}),
        "num_inference_steps cannot be",
    ),
    "no frame rate": (INDEX, update(generation_defaults={"fps": NAN}), r"generation_defaults\.fps is nan"),
    "patches in words": (TRANSFORMER, update(patch_size="abc"), 'patch_size must be three whole numbers, not "abc"'),
    "999 layers": (TRANSFORMER, update(num_layers=999), "num_layers is 999, but the weights have 5 blocks"),
    "a billion layers": (TRANSFORMER, update(num_layers=10**9), "num_layers is 1000000000, larger"),
    "eps of nothing": (TRANSFORMER, update(eps=NAN), "eps is nan, not a finite number"),
    "eps below 0": (TRANSFORMER, update(eps=-1.0), "eps must be above 0"),
    "unknown entry": (TRANSFORMER, update(num_head=4), "has no entry named num_head"),
    "other heads": (TRANSFORMER, update(num_attention_heads=8), "config.json does not fit its weights"),
    "no heads": (TRANSFORMER, update(num_attention_heads=None), "num_attention_heads cannot be null"),
    "negative width": (TRANSFORMER, update(attention_head_dim=-64), "no SkyReelsAudioTransformer3DModel can be made"),
    "shift in words": (SCHEDULER, update(shift="x"), 'shift cannot be "x"'),
    "unknown to the scheduler": (SCHEDULER, update(foo=1), "has no entry named foo"),
    "other latents": (VAE, update(z_dim=3), "latents_mean has|does not fit its weights"),
    "too many blocks": (VAE, update(fine_blocks=10**6), "fine_blocks must be from 0 to 1000"),
    "other text encoder": (TEXT, update(num_layers=99), "config.json does not fit its weights"),
    "width in words": (TEXT, update(d_model="x"), "no UMT5EncoderModel can be made of it"),
    "other audio encoder": (AUDIO, update(encoder_layers=99), "config.json does not fit its weights"),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """weights/tiny with links in the place of its weights."""
    source, folder = bundled("weights/tiny"), tmp_path / "model"
    for path in source.rglob("*"):
        copy = folder / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            copy.symlink_to(path)
        elif path.is_file():
            shutil.copy(path, copy)
    return folder


def check(model: Path) -> None:
    read_settings(model)
    choose_size("256", model, None)
    check_files(model)
    check_classes(model)


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_named(case: str, model: Path) -> None:
    name, change, words = BROKEN[case]
    path = model / name
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(InputError, match=words) as error:
        check(model)
    assert Path(name).name in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 500


def test_a_whole_folder_passes(model: Path) -> None:
    check(model)


@pytest.mark.parametrize("text", ["", "{", "null", "\x00", "[" * 100_000])
@pytest.mark.parametrize("name", [INDEX, TRANSFORMER, VAE, SCHEDULER, TEXT])
def test_what_is_no_json_is_named(name: str, text: str, model: Path) -> None:
    (model / name).write_text(text)
    with pytest.raises(InputError, match=Path(name).name):
        check(model)


def test_a_pickle_for_weights_is_refused_and_not_run(model: Path) -> None:
    (model / "text_encoder" / "model.safetensors").unlink()
    (model / "text_encoder" / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(InputError, match=r"pytorch_model\.bin is a pickle, which may run code"):
        check(model)


def test_weights_that_are_cut_empty_or_missing_are_named(model: Path) -> None:
    weights = model / "vae" / "diffusion_pytorch_model.safetensors"
    whole = weights.resolve().read_bytes()
    weights.unlink()
    for data, words in (
        (whole[:1000], "damaged"),
        (whole[:-100], "truncated"),
        (b"", "damaged"),
        (b"x" * 99, "damaged"),
    ):
        weights.write_bytes(data)
        with pytest.raises(InputError, match=rf"diffusion_pytorch_model\.safetensors is {words}"):
            check(model)
    weights.unlink()
    with pytest.raises(InputError, match="vae has no weights"):
        check(model)
    shutil.rmtree(model / "vae")
    with pytest.raises(InputError, match="vae"):
        check(model)


def test_of_a_text_encoder_only_what_is_tied_may_be_missing(model: Path) -> None:
    path = model / "text_encoder" / "model.safetensors"
    weights = load_file(path)
    path.unlink()
    for missing in weights:
        save_file({name: tensor for name, tensor in weights.items() if name != missing}, path, {"format": "pt"})
        with pytest.raises(
            InputError, match=f"config.json does not fit its weights: they have no .*{TIED.get(missing, missing)}"
        ):
            check_classes(model)
    for held in ([*TIED], [*TIED.values()], [*TIED, *TIED.values()]):  # under either name, or under both
        shared = {name: weights["shared.weight"].clone() for name in held}
        save_file({**{name: x for name, x in weights.items() if name not in TIED}, **shared}, path, {"format": "pt"})
        check_classes(model)


def test_a_tensor_of_another_shape_is_told_with_both(model: Path) -> None:
    path = model / "text_encoder" / "model.safetensors"
    weights = load_file(path)
    path.unlink()
    save_file(weights | {"encoder.final_layer_norm.weight": torch.zeros(3)}, path, {"format": "pt"})
    with pytest.raises(InputError, match=r"final_layer_norm\.weight has the shape \[3\], not \[128\]"):
        check_classes(model)


def test_names_that_older_versions_of_transformers_gave_are_known(tmp_path: Path) -> None:
    """Published image encoders have ``vision_model.`` before every name."""
    sizes: dict[str, Any] = {"hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 1}
    config = CLIPVisionConfig(**sizes, num_attention_heads=2, image_size=32, patch_size=16)
    CLIPVisionModel(config).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = {f"vision_model.{name.removeprefix('vision_model.')}": x for name, x in load_file(path).items()}
    save_file(weights, path, {"format": "pt"})
    check_transformers_weights(tmp_path / "config.json", CLIPVisionModel)


def test_a_lora_without_tensors_is_told(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from skyreels_audio.generation.lora import load_loras

    save_file({}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"a\.safetensors is no LoRA .*holds no tensors"):
        load_loras(SimpleNamespace(transformer=torch.nn.Linear(2, 2)), [str(tmp_path / "a.safetensors")])
