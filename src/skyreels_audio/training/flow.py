"""Training of a model folder's transformer by flow matching, on batches from any `Source`."""

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skyreels_audio.acceleration.distributed import Parallel, parallelise
from skyreels_audio.acceleration.ranks import world_size
from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.latents import spatial_factor
from skyreels_audio.generation.settings import Settings
from skyreels_audio.generation.step import transformer_velocity
from skyreels_audio.media import InputError
from skyreels_audio.models.rope import FRAMES_PER_LATENT
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel
from skyreels_audio.training.batch import Batch, Source, generator_of
from skyreels_audio.training.curriculum import TASKS, Draw, conditions_of
from skyreels_audio.training.export import export_lora, export_transformer, whole_state
from skyreels_audio.training.lip_sync import LipSync
from skyreels_audio.training.loss import flow_loss, interpolate, motion_weights, region_weights
from skyreels_audio.training.precompute import model_fingerprint
from skyreels_audio.training.recipe import FlowRecipe, Loss
from skyreels_audio.training.samples import SampleVideos
from skyreels_audio.training.shards import Shards

TIMES = 0.1, 0.3, 0.5, 0.7, 0.9
"""Where held-out losses are measured."""


class FlowTask:
    """The transformer of a model folder; which of its weights are trained, the recipe says.

    Args:
        recipe: what is trained, how, and on which data.
        device: where.
        source: of batches; None: the precomputed shards that the recipe names.

    Raises:
        InputError: the model folder or the data cannot be used.
    """

    def __init__(self, recipe: FlowRecipe, device: torch.device, source: Source | None = None) -> None:
        self.recipe, self.device = recipe, device
        index = recipe.model / "model_index.json"
        if not index.exists():
            raise InputError(f"{recipe.model} is no model folder; `skyreels-audio convert` and `train` make them.")
        for clip in recipe.samples:
            if not clip.is_file():
                raise InputError(f"{clip}, of which this training is to make a video, does not exist.")
        defaults = json.loads(index.read_text()).get("generation_defaults", {})
        self.source = source or self.shards(Settings(**defaults).text_tokens)
        self.fingerprint = self.source.fingerprint
        transformer: Any = SkyReelsAudioTransformer3DModel.from_pretrained(
            recipe.model / "transformer", torch_dtype=torch.float32
        )
        self.config = transformer.config
        if self.config.audio_dim is None or self.config.frame_window is not None:
            raise InputError(
                f"{recipe.model} has no audio branch of the paper's kind; `skyreels-audio convert --backbone` adds it."
            )
        if recipe.align_audio is not None:
            transformer.initialise_audio_alignment(recipe.align_audio)
        self.choose(transformer)
        self.prepare(transformer)
        self.modules = nn.ModuleDict({"transformer": transformer.to(device)})
        options = recipe.loss
        self.lip_sync = LipSync(recipe.model, options.sync_latents, device) if options.sync_weight else None
        self.samples: SampleVideos | None = None
        self.reader = ThreadPoolExecutor(1)
        self.next: tuple[tuple[int, range], Future[Batch]] | None = None

    def shards(self, text_tokens: int) -> Shards:
        recipe = self.recipe
        source = Shards(
            recipe.data, recipe.optimisation.batch, recipe.seed, recipe.curriculum.quality, text_tokens, self.device
        )
        if source.encoders != model_fingerprint(recipe.model):
            raise InputError(
                f"{recipe.data[0]} was encoded by another model than {recipe.model}; run `skyreels-audio precompute`."
            )
        return source

    def choose(self, transformer: Any) -> None:
        """Say which weights are trained; the others need no gradient and, where nothing is sharded, half the memory."""
        options = self.recipe.optimisation
        if self.recipe.train == "lora":
            from peft import LoraConfig

            lora = self.recipe.lora
            transformer.requires_grad_(False)
            transformer.add_adapter(LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.targets))
        else:
            for name, parameter in transformer.named_parameters():
                parameter.requires_grad_(self.recipe.train == "all" or "audio" in name)
        if options.precision == "bfloat16" and options.parallel == "ddp":
            for parameter in transformer.parameters():
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(torch.bfloat16)

    def prepare(self, transformer: Any) -> None:
        """Make a transformer fast, or small, on this device."""
        options = self.recipe.optimisation
        if self.device.type == "cpu":
            # For few tokens plain matrix products beat flash attention, whose bfloat16 backward is slow on CPUs.
            torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
            transformer.set_attention_backend("_native_math")
        if options.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        if options.context_parallel > 1:
            self.share_tokens(transformer, options.context_parallel)
        if options.compile:
            transformer.compile_repeated_blocks(fullgraph=True)

    def share_tokens(self, transformer: Any, degree: int) -> None:
        """Divide the tokens of each sample over ``degree`` processes, as generation does (Ulysses)."""
        ranks, heads = world_size(), self.config.num_attention_heads
        if ranks % degree or heads % degree:
            raise InputError(
                f"optimisation.context_parallel: {degree} must divide the {ranks} processes and the model's {heads} "
                "attention heads."
            )
        parallelise(transformer, Parallel(ulysses=degree, window=ranks // degree), self.device)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        return self.part_of_loss(step, range(self.recipe.optimisation.batch))

    def part_of_loss(self, step: int, samples: range) -> tuple[Tensor, dict[str, float]]:
        recipe, batch = self.recipe, self.read(step, samples)
        shape = batch.clean_BCTHW.shape
        draw = Draw.of(shape, recipe.curriculum, recipe.loss, recipe.seed, step, samples)
        conditions = conditions_of(batch, draw.task_B, draw.dropped_B)
        loss_B, clean_BCTHW = self.losses(batch, conditions, draw.noise_BCTHW, draw.t_B, draw.gated_B, recipe.loss)
        tokens = shape[2] * shape[3] * shape[4] // self.config.patch_size[1] ** 2
        told = {
            f"loss/{TASKS[task]}": float(loss) for task, loss in zip(draw.task_B.tolist(), loss_B.detach(), strict=True)
        }
        if self.lip_sync is not None:
            if batch.squares_BF4 is None or batch.mfcc_BCM is None:
                raise InputError("loss.sync_weight: faces are missing at 25 a second; run `skyreels-audio precompute`.")
            sync_B = self.lip_sync(clean_BCTHW, batch.squares_BF4, batch.mfcc_BCM, draw.stretch_B)
            heard_B = (~draw.dropped_B["audio"]).to(self.device)  # who hears nothing cannot know
            loss_B = loss_B + recipe.loss.sync_weight * heard_B * sync_B
            told["loss/sync"] = float(sync_B.mean().detach())
        return loss_B.mean(), told | {"tokens_per_sample": float(tokens)}

    def read(self, step: int, samples: range) -> Batch:
        """The batch; that of the next one is read meanwhile."""
        if self.next is not None and self.next[0] == (step, samples):
            batch = self.next[1].result()
        else:
            with torch.autocast(self.device.type, enabled=False):  # as it is in the reader's own thread
                batch = self.source.batch(step, samples)
        each, parts = len(samples), self.recipe.optimisation.accumulation
        number = samples.start // each
        last = number % parts == parts - 1
        following = number - parts + 1 if last else number + 1
        coming = step + last, range(following * each, (following + 1) * each)
        self.next = coming, self.reader.submit(self.source.batch, *coming)
        return batch

    def losses(
        self,
        batch: Batch,
        conditions: Conditions,
        noise_BCTHW: Tensor,
        t_B: Tensor,
        gated_B: Tensor,
        options: Loss,
    ) -> tuple[Tensor, Tensor]:
        """One loss per sample [B], and the clean latents that the velocity leads to [B, C, T, H, W]."""
        noise_BCTHW, t_B = noise_BCTHW.to(self.device), t_B.to(self.device)
        noisy_BCTHW = interpolate(batch.clean_BCTHW, noise_BCTHW, t_B)
        velocity_BCTHW = transformer_velocity(self.modules["transformer"], noisy_BCTHW, 1000 * t_B, conditions)
        weights = region_weights(conditions.known_B4THW, batch.lips_BTHW, gated_B, options)
        if options.motion_weight:
            weights = weights * motion_weights(batch.clean_BCTHW, options.motion_weight)
        loss_B = flow_loss(velocity_BCTHW, batch.clean_BCTHW, noise_BCTHW, t_B, weights, options)
        return loss_B, noisy_BCTHW - t_B.view(-1, 1, 1, 1, 1) * velocity_BCTHW

    @torch.no_grad()
    def evaluate(self, averaged: nn.ModuleDict, step: int) -> dict[str, float]:
        """Eq. 1 on held-out clips: by task, by time, and on the lips with the clip's own voice and with another's.

        The gap between the two voices is what makes a video talk: if it stays zero, nothing else matters.
        """
        curriculum, found = self.recipe.curriculum, {}
        shares = {"image": curriculum.image, "editing": curriculum.editing, "text": curriculum.text}
        for number in range(self.recipe.held_out_batches):
            batch = self.source.held_out(number)
            if batch is None:
                break
            count = len(batch.clean_BCTHW)
            nothing = {name: torch.zeros(count, dtype=torch.bool) for name in ("reference", "audio", "text")}
            noise = torch.randn(batch.clean_BCTHW.shape, generator=generator_of(self.recipe.seed, -1, number))

            def add(name: str, values: Tensor) -> None:
                found.setdefault(f"held_out/{name}", []).append(float(values.mean()))

            for task in (task for task in TASKS if shares[task] > 0):
                conditions = conditions_of(batch, torch.full((count,), TASKS.index(task)), nothing)
                for t in TIMES:
                    t_B = torch.full((count,), t)
                    losses, _ = self.losses(batch, conditions, noise, t_B, nothing["audio"], Loss())
                    add(task, losses)
                    add(f"t={t}", losses)
            if batch.lips_BTHW is not None and count > 1 and batch.conditions.audio_BAD is not None:
                other = replace(batch.conditions, audio_BAD=batch.conditions.audio_BAD.roll(1, 0))
                for name, conditions in (("own_voice", batch.conditions), ("other_voice", other)):
                    lips = Loss(mean="region")
                    t_B, everywhere = torch.full((count,), 0.9), ~nothing["audio"]
                    add(f"lips/{name}", self.losses(batch, conditions, noise, t_B, everywhere, lips)[0])
        return {name: sum(values) / len(values) for name, values in found.items()} | self.sample(averaged, step)

    def sample(self, averaged: nn.ModuleDict, step: int) -> dict[str, float]:
        """Videos of the recipe's clips, in the size and length of the data, and what their lips do."""
        batch = (self.source.held_out(0) or self.source.batch(0, range(1))) if self.recipe.samples else None
        if batch is None:
            return {}
        if self.samples is None:
            transformer = getattr(averaged["transformer"], "module", averaged["transformer"])  # out of DDP
            self.samples = SampleVideos(self.recipe.samples, self.recipe.model, transformer, self.device)
        factor, shape = spatial_factor(self.samples.pipe.vae), batch.clean_BCTHW.shape
        size, frames = (factor * shape[3], factor * shape[4]), FRAMES_PER_LATENT * (shape[2] - 1) + 1
        return self.samples.make(self.recipe.output / "samples", step, size, frames)

    def export(self, averaged: nn.ModuleDict, folder: Path) -> None:
        """A model folder that `generate --model` loads; of adapters a LoRA file that `generate --lora` loads."""
        only_adapters = self.recipe.train == "lora"
        weights = whole_state(averaged["transformer"], only_adapters)
        if torch.distributed.is_initialized() and torch.distributed.get_rank():
            return
        if only_adapters:
            export_lora(weights, self.recipe.lora.alpha, folder)
            return
        config = {name: value for name, value in self.config.items() if not name.startswith("_")}
        export_transformer(weights, config, self.recipe.model, folder, self.recipe.generation_defaults)
