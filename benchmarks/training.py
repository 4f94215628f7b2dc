"""What training stands on this machine: kills it survives, and how fast the tiny geometry goes.

    python benchmarks/training.py --kills 20     # kill -9 at random moments, then compare bit for bit
    python benchmarks/training.py --steps 30     # tokens per second, model FLOP utilisation, waiting for data

The model is `weights/tiny`'s transformer or that of ``--model``; batches are noise of its shape, so that only the
trainer is measured. MFU needs the peak of the machine, ``--peak`` in FLOP/s; by default the
fastest of a few matrix products.
"""

import argparse
import json
import random
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from skyreels_audio.bundled import bundled
from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.models.rope import latent_positions, token_positions
from skyreels_audio.training.batch import Batch, generator_of
from skyreels_audio.training.flow import FlowTask
from skyreels_audio.training.options import Optimisation
from skyreels_audio.training.recipe import FlowRecipe
from skyreels_audio.training.trainer import fit

LATENTS = 5


class Noise:
    """Batches of noise that fit a model."""

    fingerprint = "noise"

    def __init__(self, config: dict[str, Any], side: int) -> None:
        self.config, self.side = config, side

    def batch(self, step: int, samples: range) -> Batch:
        channels, count = self.config["out_channels"], len(samples)
        generator = generator_of(step, samples.start)
        clean = torch.randn(count, channels, LATENTS, self.side, self.side, generator=generator)
        known = torch.zeros(count, 4, LATENTS, self.side, self.side)
        known[:, :, 0] = 1
        tokens = 8 * LATENTS
        conditions = Conditions(
            text_BSD=torch.randn(count, 64, self.config["text_dim"], generator=generator),
            null_text_BSD=torch.zeros(count, 64, self.config["text_dim"]),
            audio_BAD=torch.randn(count, tokens, self.config["audio_dim"], generator=generator),
            audio_positions_A=token_positions(tokens).expand(count, -1),
            reference_BCTHW=clean * known[:, :1],
            known_B4THW=known,
            video_positions_T=latent_positions(LATENTS).expand(count, -1),
        )
        return Batch(clean, conditions)

    def held_out(self, number: int) -> Batch | None:
        return None


def task_of(model: Path, folder: Path, steps: int, batch: int, side: int) -> FlowTask:
    optimisation = Optimisation(
        steps=steps, batch=batch, learning_rate=1e-4, warmup_steps=2, precision="float32", save_every=5,
        sample_every=10**9, log_every=1, tracker="none",
    )  # fmt: skip
    recipe = FlowRecipe(task="flow", output=folder, model=model, data=[], train="all", optimisation=optimisation)
    config: Any = json.loads((model / "transformer" / "config.json").read_text())
    torch.manual_seed(0)
    return FlowTask(recipe, torch.device("cpu"), Noise(config, side))


def train_in(model: Path, folder: Path, steps: int, batch: int, side: int) -> None:
    torch.set_num_threads(1)
    task = task_of(model, folder, steps, batch, side)
    fit(task, task.recipe.optimisation, folder)


def told(folder: Path) -> list[dict[str, float]]:
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return [{name: value for name, value in row.items() if name != "seconds_per_step"} for row in rows]


def survive(model: Path, kills: int, steps: int, batch: int, side: int) -> None:
    """Kill -9 at random moments, the same command again each time; then the loss curve of a run without kills."""
    chance, done, runs, context = random.Random(0), 0, 0, get_context("fork")

    def start(folder: Path) -> Any:
        run: Any = context.Process(target=train_in, args=(model, folder, steps, batch, side))
        run.start()
        return run

    with tempfile.TemporaryDirectory() as place:
        straight, began = Path(place, "straight"), time.perf_counter()
        start(straight).join()
        whole = time.perf_counter() - began
        while done < kills:
            killed, runs = Path(place, f"killed-{runs}"), runs + 1
            while True:
                run = start(killed)
                run.join(chance.uniform(0.05, 0.5) * whole if done < kills else None)
                if run.exitcode is not None:
                    break
                run.kill()
                run.join()
                done += 1
            if told(killed) != told(straight):
                raise SystemExit(f"run {runs}: after {done} kills the loss curve DIFFERS from that of a straight run")
    print(f"{done} kills -9 in {runs} runs of {steps} steps: every loss curve bit for bit that of a straight run")


def peak_flops() -> float:
    """The fastest of a few float32 matrix products, FLOP/s."""
    size, best = 1024, 0.0
    a, b = torch.randn(2, size, size)
    for _ in range(8):
        began = time.process_time()
        torch.mm(a, b)
        best = max(best, 2 * size**3 / (time.process_time() - began))
    return best


def speed(model: Path, steps: int, batch: int, side: int, peak: float | None) -> None:
    """Steps in processor seconds, which others on the machine do not lengthen; waiting in seconds of the clock."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        task = task_of(model, Path(place), steps, batch, side)
        marks: list[tuple[float, float]] = []
        waited, read = [0.0], task.read

        def timed_read(step: int, samples: range) -> Batch:
            began = time.perf_counter()
            read_batch = read(step, samples)
            waited[0] += (time.perf_counter() - began) if marks else 0.0
            return read_batch

        task.read = timed_read
        options = task.recipe.optimisation.model_copy(update={"save_every": 10**9, "spike": None})
        on_step = lambda step, loss: marks.append((time.process_time(), time.perf_counter()))  # noqa: E731
        fit(task, options, Path(place), on_step=on_step)
    seconds = sorted(b[0] - a[0] for a, b in zip(marks, marks[1:], strict=False))
    median = seconds[len(seconds) // 2]
    patch = task.config.patch_size[1]
    tokens = batch * LATENTS * (side // patch) ** 2
    weights = sum(p.numel() for name, p in task.modules.named_parameters() if "blocks" in name)
    used = 6 * weights * tokens / median / (peak or peak_flops())
    print(f"{weights:,} weights in blocks, {tokens} tokens a step")
    print(f"{median:.3f} s a step (median of {len(seconds)}), {tokens / median:,.0f} tokens/s, MFU {used:.2f}")
    print(f"the trainer waited for batches {waited[0] / (marks[-1][1] - marks[0][1]):.1%} of the time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=bundled("weights/tiny"))
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--side", type=int, default=8, help="latents in a row")
    parser.add_argument("--peak", type=float, help="FLOP/s of the device [default: measured]")
    given = parser.parse_args()
    if given.kills:
        survive(given.model, given.kills, given.steps, given.batch, given.side)
    else:
        speed(given.model, given.steps, given.batch, given.side, given.peak)


if __name__ == "__main__":
    main()
