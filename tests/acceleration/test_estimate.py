"""Memory modes, plans and LoRA adapters."""

import os
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from skyreels_audio.acceleration.estimate import ModelShape, allocations, estimate
from skyreels_audio.acceleration.offload import apply_memory_mode
from skyreels_audio.generation.lora import load_loras, parse_lora
from skyreels_audio.media import InputError


def test_allocations_are_those_an_allocator_would_make():
    with torch.device("meta"), torch.no_grad():
        weight = torch.empty(100, 100)
        with allocations() as peak:
            x = torch.empty(100, 100)
            for _ in range(5):
                x = (x @ weight.T).relu()
    assert peak[0] == 3 * 40_000  # input, product and its activation; neither the weight nor what was freed

    with torch.device("meta"), allocations() as peak:
        query = torch.empty(1, 1, 4096, 8)
        torch.nn.functional.scaled_dot_product_attention(query, query, query)
    assert peak[0] == 2 * 4096 * 8 * 4  # no matrix of scores


def test_a_plan_knows_a_folder_and_its_modes(wan_pipeline, tmp_path):
    wan_pipeline.save_pretrained(tmp_path)
    shape = ModelShape.read(tmp_path, torch.float32)
    count = {id(model): sum(p.numel() for p in model.parameters()) for model in (shape.transformer, shape.vae)}
    for model, ours in ((wan_pipeline.transformer, shape.transformer), (wan_pipeline.vae, shape.vae)):
        assert sum(p.numel() for p in model.parameters()) == count[id(ours)]
    plans = {mode: estimate(shape, 64, 64, 81, mode) for mode in ("fast", "balanced", "low")}
    assert plans["fast"].peak >= plans["balanced"].peak >= plans["low"].peak > 0
    longer = estimate(shape, 64, 64, 401, "balanced")
    assert longer.seconds > 3 * plans["balanced"].seconds
    assert longer.sample - plans["balanced"].sample < 0.05 * longer.sample  # windows keep memory where it is
    assert estimate(shape, 128, 128, 81, "balanced").decode > 1.5 * (plans["balanced"].decode - 0.6e9)
    with pytest.raises(ValueError, match="not a model folder"):
        ModelShape.read(tmp_path / "vae")


def test_a_plan_of_the_default_checkpoint_and_of_a_broken_one(tmp_path):
    shape = ModelShape.read(Path("weights/tiny"))
    assert "s of denoising" in str(estimate(shape, 256, 256, 177, "fast", steps=3, branches=2, window=9, overlap=2))
    shutil.copytree("weights/tiny", tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    assert ModelShape.read(tmp_path / "model").transformer.config == shape.transformer.config  # reads no weights
    (tmp_path / "model" / "vae" / "config.json").write_text("{")
    with pytest.raises(InputError, match="vae has no readable config.json"):
        ModelShape.read(tmp_path / "model")


MEASURE = """
from pathlib import Path
import torch
from skyreels_audio.acceleration.estimate import on_meta, transformer_bytes
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel

def status(field):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))

def measure(run):
    run()  # libraries bring buffers of their own
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before = status("VmRSS")
    run()
    return status("VmHWM") - before

torch.set_grad_enabled(False)
make = lambda: SkyReelsAudioTransformer3DModel(
    num_attention_heads=4, ffn_dim=2048, num_layers=1, text_dim=512, audio_dim=64).eval()
with on_meta(torch.float32):
    shape = make()
model = make()
inputs = torch.randn(1, 36, 5, 32, 64), torch.tensor([500.0]), torch.randn(1, 512, 512)
sound = torch.randn(1, 40, 64)
print(transformer_bytes(shape, 5, (32, 64)), measure(lambda: model(*inputs, audio_hidden_states=sound)))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's own account of memory")
def test_an_estimate_is_within_ten_percent_of_what_is_measured():
    """Activations of one evaluation of the transformer, in a process that gives back what it frees."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", MEASURE]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    estimate, measured = map(float, printed.split())
    assert measured > 20e6 and abs(estimate / measured - 1) < 0.1, printed


def test_low_memory_gives_nearly_the_same_velocity(wan_pipeline):
    pipeline = deepcopy(wan_pipeline)
    inputs: dict[str, Any] = {
        "hidden_states": torch.randn(1, 12, 3, 4, 4),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 512, 16),
        "encoder_hidden_states_image": torch.randn(1, 5, 12),
        "audio_hidden_states": torch.randn(1, 20, 16),
    }
    with torch.no_grad():
        expected = pipeline.transformer(**inputs).sample
        apply_memory_mode(pipeline, "low", "cpu")
        assert pipeline.transformer.blocks[0].attn1.to_q.weight.dtype == torch.float8_e4m3fn
        actual = pipeline.transformer(**inputs).sample
    assert 0 < (actual - expected).norm() / expected.norm() < 0.2
    with pytest.raises(ValueError, match="fast, balanced or low"):
        apply_memory_mode(pipeline, "tiny", "cpu")  # type: ignore[arg-type]


def test_loras_in_wans_naming_add_up(wan_pipeline, tmp_path):
    pipeline = deepcopy(wan_pipeline)
    width, rank = pipeline.transformer.blocks[0].attn1.to_q.weight.shape[0], 2
    torch.manual_seed(0)
    weights = {}
    for block in range(2):
        for layer in "qkvo":
            name = f"diffusion_model.blocks.{block}.self_attn.{layer}"
            weights[f"{name}.lora_A.weight"] = torch.randn(rank, width)
            weights[f"{name}.lora_B.weight"] = torch.randn(width, rank)
    for name in ("a", "b"):
        save_file(weights, tmp_path / f"{name}.safetensors")
    linear = pipeline.transformer.blocks[1].attn1.to_q
    x = torch.randn(1, width)
    before = linear(x)
    load_loras(pipeline, [f"{tmp_path}/a.safetensors:0.5", f"{tmp_path}/b.safetensors"])
    down, up = (weights[f"diffusion_model.blocks.1.self_attn.q.lora_{side}.weight"] for side in "AB")
    added = pipeline.transformer.blocks[1].attn1.to_q(x) - before
    assert torch.allclose(added, 1.5 * x @ down.T @ up.T, atol=1e-4)


def test_what_is_no_lora_is_named(wan_pipeline, tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="model.safetensors is no LoRA"):
        load_loras(deepcopy(wan_pipeline), [str(tmp_path / "model.safetensors")])
    wide = {f"diffusion_model.blocks.0.self_attn.q.lora_{side}.weight": torch.zeros(3, 3) for side in "AB"}
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(
        InputError, match="wide.safetensors is no LoRA for this transformer .size mismatch for blocks.0"
    ):
        load_loras(deepcopy(wan_pipeline), [str(tmp_path / "wide.safetensors")])
    with pytest.raises(InputError, match="absent.safetensors does not exist"):
        parse_lora("absent.safetensors:0.5")
    (tmp_path / "odd:name").touch()
    assert parse_lora(str(tmp_path / "odd:name")) == (tmp_path / "odd:name", 1.0)
    assert parse_lora(f"{tmp_path / 'model.safetensors'}:0.25") == (tmp_path / "model.safetensors", 0.25)
