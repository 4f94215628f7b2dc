"""What a 14B model costs on one GPU, with random weights made on it: nothing is downloaded.

    python benchmarks/gpu.py                                  # writes docs/results/gpu.json and gpu.md
    python benchmarks/gpu.py --geometry tiny --device cpu     # only proves, in seconds, that this script works

One window of 544x960 and 81 frames: seconds per velocity in bfloat16 and with weights stored as 8-bit floats, the share
of the rate of a large matrix product that this is, peak memory beside its estimate, and from them the time of the
paper's Table 4: 80 frames, 50 steps, three branches, with and without the step cache.

Which steps the cache skips is told by a trained time embedding, which random weights are not. --model names a folder
with one; without it, as many steps are computed as the paper's own speed-up comes to.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from full_size_table import full_size
from safetensors import safe_open
from table import Row, plain, write
from torch.utils.flop_counter import FlopCounterMode

from skyreels_audio.acceleration.accelerate import PAPER_THRESHOLD, RETAIN
from skyreels_audio.acceleration.estimate import CONTEXT_BYTES, ModelShape, estimate, tensor_bytes
from skyreels_audio.acceleration.teacache import COEFFICIENTS, SkipPlan, TeaCacheVelocity, skip_plan
from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.sampling import set_timesteps
from skyreels_audio.generation.step import TransformerVelocity
from skyreels_audio.models.rope import latent_positions, token_positions

ROOT = Path(__file__).parents[1]
STEPS, BRANCHES = 50, 3
PAPER = {False: "one A800 1417 s, eight 257 s", True: "one A800 538 s, eight 58 s"}  # Table 4, by cache on
PAPER_COMPUTED = round(STEPS * 8.96 / 23.62)  # 19 steps, if a skipped one costs nothing
SHIFT = 5.0  # of the noise schedule, as diffusers documents SkyReels-V2 for images
TARGET = 60.0  # seconds


@dataclass(frozen=True)
class Geometry:
    heads: int
    ffn: int
    layers: int
    size: tuple[int, int]  # height and width in pixels
    frames: int
    product: int  # side of the matrices whose product is the ceiling


GEOMETRIES = {
    "14b": Geometry(40, 13824, 40, (544, 960), 81, 16384),
    "tiny": Geometry(2, 512, 2, (64, 96), 17, 512),
}


def leave(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometry", choices=GEOMETRIES, default="14b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", type=Path, help="checkpoint folder whose time embedding tells what the cache skips")
    parser.add_argument("--repeats", type=int, default=3, help="velocities timed, of which the fastest counts")
    parser.add_argument("--output", type=Path, help="folder [default: docs/results for 14b, none for tiny]")
    options = parser.parse_args()
    geometry, device = GEOMETRIES[options.geometry], torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        leave(
            "benchmarks/gpu.py needs a CUDA GPU, and none is visible here; "
            "--geometry tiny --device cpu proves that the script works, without measuring anything of use."
        )
    shape = full_size(geometry.heads, geometry.ffn, geometry.layers)
    needed = estimate(shape, *geometry.size, geometry.frames, "balanced").sample - CONTEXT_BYTES
    flops = counted_flops(shape.transformer, geometry)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        free = torch.cuda.mem_get_info()[0]
        if free < needed:
            leave(f"About {needed / 1e9:.0f} GB of GPU memory are needed, and {free / 1e9:.0f} GB are free.")

    ceiling = product_rate(geometry.product, device)
    computed, source = computed_steps(shape.transformer, options.model)
    transformer = randomised(shape, device)
    unsaved = tensor_bytes(transformer)
    rows = [Row("product of two large matrices", ceiling / 1e12, unit=" TFLOP/s", digits=1, note="bfloat16, dense")]
    for name in ("bfloat16", "8-bit weights"):
        if name != "bfloat16":  # as `--memory low` stores them, but kept on the GPU
            transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
        expected = needed + tensor_bytes(transformer) - unsaved
        rows += measure(name, transformer, geometry, flops, ceiling, expected, computed, options.repeats)
    print(plain(rows))
    about = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "geometry": f"{options.geometry}, {geometry.size[1]}x{geometry.size[0]}, {geometry.frames} frames",
        "operations per velocity": f"{flops:.3g}",
        "steps computed behind the cache": f"{computed} of {STEPS} ({source})",
        "date": time.strftime("%Y-%m-%d"),
    }
    output = options.output or (ROOT / "docs" / "results" if options.geometry == "14b" else None)
    if output is not None:
        write(output, "gpu", "A model of full size on one GPU, with random weights", rows, about)


def measure(
    name: str,
    transformer: Any,
    geometry: Geometry,
    flops: float,
    ceiling: float,
    expected_bytes: float,
    computed: int,
    repeats: int,
) -> list[Row]:
    """Rows of one way to store the weights."""
    device = transformer.patch_embedding.weight.device
    cuda = device.type == "cuda"
    latents_BCTHW, conditions = inputs(transformer, geometry, device)
    t = torch.tensor([900.0, 800.0], device=device)
    velocity = TransformerVelocity(transformer)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    assert velocity(latents_BCTHW, t[0], conditions).isfinite().all()  # and a warm-up
    full = min(seconds(lambda: velocity(latents_BCTHW, t[0], conditions), device) for _ in range(repeats))
    peak = torch.cuda.max_memory_allocated() / 1e9 if cuda else None
    cached = TeaCacheVelocity(transformer, SkipPlan((900.0, 800.0), (True, False)))
    cached(latents_BCTHW, t[0], conditions)
    skipped = min(seconds(lambda: cached(latents_BCTHW, t[1], conditions), device) for _ in range(repeats))

    def projected(steps: int) -> float:
        return BRANCHES * (steps * full + (STEPS - steps) * skipped)

    run = f"{geometry.frames - 1} frames, {STEPS} steps, {BRANCHES} branches, {name}"
    estimated, counted = f"estimate {expected_bytes / 1e9:.1f} GB", "denoising, projected"
    paper = PAPER if geometry is GEOMETRIES["14b"] else {False: "", True: ""}
    return [
        Row(f"one velocity, {name}", full, unit=" s", digits=3, note=f"fastest of {repeats}"),
        Row(f"the same, blocks skipped, {name}", skipped, unit=" s", digits=3, note="embeddings and head alone"),
        Row(f"share of that product's rate, {name}", 100 * flops / full / ceiling, unit=" %", digits=1),
        Row(f"peak memory, {name}", peak, unit=" GB", digits=1, baseline=estimated, note="" if cuda else "of a GPU"),
        Row(f"{run}, no cache", projected(STEPS), unit=" s", digits=1, baseline=paper[False], note=counted),
        Row(
            f"{run}, TeaCache",
            projected(computed),
            bar=("≤", TARGET) if paper is PAPER else None,
            unit=" s",
            digits=1,
            baseline=paper[True],
            note=f"{counted}, {computed} steps computed",
        ),
    ]


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def product_rate(side: int, device: torch.device, count: int = 10) -> float:
    """Operations per second of a product of two square matrices: the most that the device gives in practice."""
    a, b = torch.randn(2, side, side, dtype=torch.bfloat16, device=device)
    result = a @ b  # warm-up

    def products() -> None:
        for _ in range(count):
            torch.mm(a, b, out=result)

    return count * 2.0 * side**3 / min(seconds(products, device) for _ in range(3))


def counted_flops(transformer: Any, geometry: Geometry) -> float:
    """Operations of one velocity, counted product by product. `estimate.transformer_flops`, an estimate, is higher: it
    takes the keys and values of text, image and voice to be as many as the video's tokens."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        latents_BCTHW, conditions = inputs(transformer, geometry, torch.device("meta"))
        TransformerVelocity(transformer)(latents_BCTHW, torch.tensor(900.0), conditions)
    return float(counter.get_total_flops())


def inputs(transformer: Any, geometry: Geometry, device: torch.device) -> tuple[torch.Tensor, Conditions]:
    """Noise, and conditions of one window: 512 text tokens, 257 image tokens, 50 audio tokens per second."""
    config, latents = transformer.config, (geometry.frames - 1) // 4 + 1
    grid = (latents, geometry.size[0] // 8, geometry.size[1] // 8)

    def noise(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.randn(1, *shape, dtype=dtype, device=device)

    text_BSD = noise(512, config.text_dim)
    conditions = Conditions(
        text_BSD=text_BSD,
        null_text_BSD=text_BSD,
        audio_BAD=noise(8 * latents, config.audio_dim),
        audio_positions_A=token_positions(8 * latents).to(device),
        reference_BCTHW=noise(16, *grid, dtype=torch.float32),
        known_B4THW=torch.zeros(1, 4, *grid, device=device),
        video_positions_T=latent_positions(latents).to(device),
        image_BND=noise(257, config.image_dim),
    )
    return noise(16, *grid, dtype=torch.float32), conditions


def randomised(shape: ModelShape, device: torch.device) -> Any:
    """The transformer of a shape with random weights on a device, in the types that `from_pretrained` gives it."""
    transformer = shape.transformer
    for name, weight in transformer.named_parameters():
        if set(name.split(".")) & set(transformer._keep_in_fp32_modules):
            weight.data = weight.data.float()
    config = transformer.config
    transformer.to_empty(device=device).requires_grad_(False).eval()
    for weight in transformer.parameters():
        weight.normal_(std=0.02)
    rope = type(transformer.rope)(config.attention_head_dim, config.patch_size, config.rope_max_seq_len)
    transformer.rope = rope.to(device)  # tables, not weights
    return transformer


def computed_steps(transformer: Any, model: Path | None) -> tuple[int, str]:
    """How many steps of 50 TeaCache computes at the paper's threshold, and how that is known."""
    if model is None:
        return PAPER_COMPUTED, "from the paper's speed-up on one GPU"
    prefix = "condition_embedder.time_embedder."
    weights = {}
    for file in sorted((model / "transformer").glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            weights |= {key: tensors.get_tensor(key) for key in tensors.keys() if key.startswith(prefix)}  # noqa: SIM118
    if not weights:
        leave(f"{model} has no transformer/*.safetensors with {prefix}*.")
    embedder = transformer.condition_embedder.time_embedder
    real = type(embedder)(embedder.linear_1.in_features, embedder.linear_1.out_features)
    real.load_state_dict({key.removeprefix(prefix): weight for key, weight in weights.items()})
    timesteps = set_timesteps(FlowMatchEulerDiscreteScheduler(shift=SHIFT), STEPS, "cpu")
    transformer.condition_embedder.time_embedder = real
    steps = skip_plan(transformer, timesteps, COEFFICIENTS["i2v-480p", RETAIN], PAPER_THRESHOLD, RETAIN)
    transformer.condition_embedder.time_embedder = embedder
    return sum(steps.computes), f"plan of {model.name} with published coefficients"


if __name__ == "__main__":
    main()
