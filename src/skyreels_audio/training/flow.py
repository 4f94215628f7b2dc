"""Training of the transformer, the audio projector and the text encoder by flow matching on precomputed clips."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ByT5Tokenizer, UMT5Config, UMT5EncoderModel

from skyreels_audio.models.autoencoder import CausalVideoAutoencoder
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel
from skyreels_audio.training.curriculum import Sample, compose
from skyreels_audio.training.data import Clips, ShardFolder
from skyreels_audio.training.loss import flow_loss, interpolate, loss_region, sample_sigmas
from skyreels_audio.training.precompute import precompute
from skyreels_audio.training.recipe import ClipsRecipe

TEXT_TOKENS = 192  # bytes of a prompt that the default checkpoint reads
REFRESH_EVERY = 200  # steps between looks at the growing folder of clips


class FlowTask:
    """Random windows of random clips; the loss of `loss.py` on the region of `curriculum.py`."""

    def __init__(self, recipe: ClipsRecipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        kinds = [kind.source for kind in recipe.data.kinds]
        self.clips = ShardFolder(recipe.data.folder / "train", kinds)
        self.clips.refresh()
        if not self.clips.shards:  # else another process may still be adding to them
            precompute(recipe)
            self.clips.refresh()
        self.portraits = ShardFolder(recipe.data.folder / "portraits", kinds)
        held_out = ShardFolder(recipe.data.folder / "test", kinds)
        held_out.refresh()
        self.held_out = Clips.concatenate(list(held_out.shards.values()))
        self.tokenizer = ByT5Tokenizer()
        vae_config: Any = CausalVideoAutoencoder.load_config(recipe.autoencoder)
        std_C = torch.tensor(vae_config["latents_std"])
        weight_C = std_C**recipe.curriculum.channel_power
        self.weight_C = (weight_C / weight_C.mean()).to(device)
        transformer = SkyReelsAudioTransformer3DModel(**recipe.transformer)
        transformer.initialise_audio_alignment(output_std=0.02)
        config: Any = transformer.config
        audio_width = config.audio_width or config.num_attention_heads * config.attention_head_dim
        text_encoder = UMT5EncoderModel(
            UMT5Config(vocab_size=len(self.tokenizer), dropout_rate=0.0, **recipe.text_encoder)
        )
        visemes = self.held_out.visemes_NAV.shape[-1]
        self.modules = nn.ModuleDict(
            {"transformer": transformer, "text_encoder": text_encoder, "viseme_head": nn.Linear(audio_width, visemes)}
        ).to(device)
        self.portraits.refresh()
        if config.empty_reference is not None and len(self.portraits):
            mean_CHW = (
                torch.cat([part.latents_NCTHW[:, :, 0] for part in self.portraits.shards.values()]).float().mean(0)
            )
            transformer.empty_latents.data.copy_(mean_CHW)
        if recipe.initial is not None:  # the viseme head, which is not exported, starts fresh
            for name, module in exported(recipe.initial).items():
                self.modules[name].load_state_dict(module.state_dict())
        self.prepare(transformer)

    def prepare(self, transformer: Any) -> None:
        """Make a transformer fast on this device."""
        if self.device.type == "cpu":
            # For few tokens plain matrix products beat flash attention, whose bfloat16 backward is slow on CPUs:
            # a training step takes half the time. Inductor's pattern matcher would turn them back into it.
            torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
            transformer.set_attention_backend("_native_math")
        if self.recipe.optimisation.compile:
            options = {"pattern_matcher": False} if self.device.type == "cpu" else None
            transformer.compile_repeated_blocks(fullgraph=True, options=options)

    def encode_text(self, modules: Any, captions: tuple[str, ...]) -> Tensor:
        """Prompts → text tokens [B, S, D]; what lies past a prompt's end is zero, as in Wan."""
        batch = self.tokenizer(
            list(captions), padding="max_length", max_length=TEXT_TOKENS, truncation=True, return_tensors="pt"
        ).to(self.device)
        hidden = modules["text_encoder"](
            input_ids=batch.input_ids, attention_mask=batch.attention_mask
        ).last_hidden_state
        return hidden * batch.attention_mask[..., None]

    def predict(self, modules: Any, sample: Sample, noisy_BCTHW: Tensor, sigmas_B: Tensor) -> Tensor:
        """The clean latent that the network sees behind ``noisy``."""
        mask = sample.known_B1THW.expand(-1, 4, -1, -1, -1)
        stacked = torch.cat([noisy_BCTHW, mask, sample.condition_BCTHW], 1)
        return modules["transformer"].predict_clean(
            stacked.to(self.device),
            (1000 * sigmas_B).to(self.device),
            self.encode_text(modules, sample.captions),
            audio_hidden_states=sample.audio_BAD.to(self.device),
            audio_positions=sample.audio_positions_A.to(self.device),
            video_positions=sample.video_positions_T.to(self.device),
        )

    def viseme_loss(self, sample: Sample) -> Tensor:
        """Squared error of the viseme curves read off the projected audio tokens by a linear head."""
        modules: Any = self.modules
        tokens = modules["transformer"].audio_projector(sample.audio_BAD.to(self.device))
        # Recordings have no known curves (NaN), dropped voices say nothing about them.
        truth = sample.visemes_BAV.to(self.device)
        usable = sample.has_audio_B.to(self.device) & truth.isfinite().all(-1).all(-1)
        error = (modules["viseme_head"](tokens).float() - truth.nan_to_num()).square()
        return (error.mean((1, 2)) * usable).sum() / usable.sum().clamp(min=1)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        generator = self.begin(step)
        options, batch = self.recipe.curriculum, self.recipe.optimisation.batch
        if step < self.recipe.viseme_steps:
            sample = compose(self.clips.draw(batch, generator), options, options.latent_frames, "mouth", generator)
            loss = self.viseme_loss(sample)
            return loss, {"viseme_loss": float(loss.detach())}
        sample = self.draw(batch, generator)
        flow = self.flow_loss(sample, generator)
        visemes = self.viseme_loss(sample)
        values = {"flow_loss": float(flow.detach()), "viseme_loss": float(visemes.detach())}
        return flow + self.recipe.viseme_weight * visemes, values

    def begin(self, step: int) -> torch.Generator:
        """The source of all that is random in a step; now and then a look for new clips."""
        if step % REFRESH_EVERY == 0:
            self.clips.refresh()
            self.portraits.refresh()
        return torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)

    def flow_loss(self, sample: Sample, generator: torch.Generator) -> Tensor:
        options, clean = self.recipe.curriculum, sample.clean_BCTHW
        sigmas = sample_sigmas(len(clean), options.sigma_shift, options.sigma_one, generator)
        noise = torch.randn(clean.shape, generator=generator)
        predicted = self.predict(self.modules, sample, interpolate(clean, noise, sigmas), sigmas)
        region = self.region(sample, generator)
        clean, sigmas, region = (x.to(self.device) for x in (clean, sigmas, region))
        return flow_loss(predicted, clean, sigmas, region, self.weight_C)

    def region(self, sample: Sample, generator: torch.Generator) -> Tensor:
        """Weights of the loss over the latents [B, 1, T, H, W]."""
        options = self.recipe.curriculum
        gated = torch.rand(len(sample.clean_BCTHW), generator=generator) < options.mask_gate
        return loss_region(sample.lips_B1THW, 1 - sample.known_B1THW, gated, options.lip_weight)

    def draw(self, batch: int, generator: torch.Generator) -> Sample:
        """Clips of one task, as many as make steps of all tasks cost about the same."""
        options = self.recipe.curriculum
        task, eyes = torch.rand(2, generator=generator).tolist()
        if task < options.portrait and len(self.portraits):
            return compose(self.portraits.draw(batch, generator), options, 1, None, generator)
        if task < options.portrait + options.editing:
            region = "face" if eyes < options.eyes else "mouth"
            return compose(self.clips.draw(batch, generator), options, options.latent_frames, region, generator)
        clips = self.clips.draw(max(batch // 4, 1), generator)
        return compose(clips, options, options.latent_frames, None, generator)

    @torch.no_grad()
    def evaluate(self, averaged: nn.ModuleDict, step: int) -> dict[str, float]:
        """Held-out clips from pure noise: does the clip's own voice explain its lips better than another's?

        Errors are over lip cells, relative to what repeating the reference would leave. ``lip_correlation`` compares
        the predicted with the true movement along each clip's own main direction of lip motion.
        """
        options = self.recipe.curriculum.model_copy(update={"drop": 0.0})
        generator = torch.Generator().manual_seed(1)
        sample = compose(self.held_out, options, self.held_out.latents_NCTHW.shape[2], "mouth", generator)
        ones = torch.ones(len(self.held_out))
        noise = torch.randn(sample.clean_BCTHW.shape, generator=generator)
        lips = (sample.lips_B1THW > 0.05).float()
        lips[:, :, 0] = 0
        reference = sample.clean_BCTHW[:, :, :1]
        still = (lips * (sample.clean_BCTHW - reference).square()).sum()
        results = {}
        for name, audio in (("own", sample.audio_BAD), ("other", sample.audio_BAD.roll(len(ones) // 2 + 1, 0))):
            rows = []
            for part in torch.arange(len(ones)).split(8):
                piece = _rows(sample, part, audio)
                rows.append(self.predict(averaged, piece, noise[part], ones[part]).float().cpu())
            predicted = torch.cat(rows)
            results[f"held_out/lip_error_{name}"] = float(
                (lips * (predicted - sample.clean_BCTHW).square()).sum() / still
            )
            results[f"held_out/lip_correlation_{name}"] = lip_correlation(
                predicted, sample.clean_BCTHW, reference, lips
            )
        return results

    def export(self, averaged: nn.ModuleDict, folder: Path) -> None:
        from skyreels_audio.training.export import export_pipeline

        export_pipeline(averaged, self.recipe, self.tokenizer, TEXT_TOKENS, folder)


def exported(folder: Path) -> nn.ModuleDict:
    """Transformer and text encoder of a checkpoint's folder, float32."""
    classes = {"transformer": SkyReelsAudioTransformer3DModel, "text_encoder": UMT5EncoderModel}
    return nn.ModuleDict(
        {name: cls.from_pretrained(folder / name, torch_dtype=torch.float32) for name, cls in classes.items()}
    )


def _rows(sample: Sample, rows: Tensor, audio_BAD: Tensor) -> Sample:
    from dataclasses import replace

    return replace(
        sample,
        clean_BCTHW=sample.clean_BCTHW[rows],
        condition_BCTHW=sample.condition_BCTHW[rows],
        known_B1THW=sample.known_B1THW[rows],
        audio_BAD=audio_BAD[rows],
        captions=tuple(sample.captions[i] for i in rows.tolist()),
    )


def lip_correlation(predicted: Tensor, clean: Tensor, reference: Tensor, lips: Tensor) -> float:
    """Mean Pearson correlation over clips of lip motion along the clip's first principal direction of true motion."""
    values = []
    for p, c, r, m in zip(predicted, clean, reference, lips, strict=True):
        cells = m.amax(1, keepdim=True) > 0  # [1, 1, H, W]: cells that the lips ever touch
        true, ours = (((x - r) * cells)[:, 1:].transpose(0, 1).flatten(1) for x in (c, p))
        true, ours = true - true.mean(0), ours - ours.mean(0)
        direction = torch.linalg.svd(true, full_matrices=False).Vh[0]
        values.append(F.cosine_similarity(true @ direction, ours @ direction, dim=0))
    return float(torch.stack(values).mean())
