"""Training of the transformer, the audio projector and the text encoder by flow matching on precomputed clips."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ByT5Tokenizer, UMT5Config, UMT5EncoderModel

from skyreels_audio.models.autoencoder import CausalVideoAutoencoder
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel
from skyreels_audio.training.rendered.clips import Clips, ShardFolder
from skyreels_audio.training.rendered.curriculum import Sample, compose
from skyreels_audio.training.rendered.loss import flow_loss, interpolate, loss_region, sample_sigmas
from skyreels_audio.training.rendered.recipe import ClipsRecipe
from skyreels_audio.training.rendered.render import precompute

COARSE = 8, 2  # what captions are first read for: so many channels, the coarsest, averaged over so many cells a side
SPELLING = 12.0  # logit of the byte that a head of the text encoder starts at
TEXT_TOKENS = 192  # bytes of a prompt that the default checkpoint reads
REFRESH_EVERY = 200  # steps between looks at the growing folder of clips


class FlowTask:
    """Random windows of random clips; the loss of `loss.py` on the region of `curriculum.py`."""

    def __init__(self, recipe: ClipsRecipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        kinds = [kind.source for kind in recipe.data.kinds]
        self.clips = ShardFolder(recipe.data.folder / "train", kinds)
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
        initialise_spelling(text_encoder)
        visemes = self.held_out.visemes_NAV.shape[-1]
        heads = {"viseme_head": nn.Linear(audio_width, visemes)}
        self.portraits.refresh()
        if len(self.portraits):
            portraits = Clips.concatenate(list(self.portraits.shards.values())).latents_NCTHW[:, :, 0].float()
            if config.empty_reference is not None:
                transformer.empty_latents.data.copy_(portraits.mean(0))
            coarse = coarse_picture(portraits)
            self.coarse_mean, self.coarse_std = coarse.mean(0).to(device), coarse.std().to(device)
            heads["caption_head"] = nn.Linear(recipe.text_encoder["d_model"], coarse.shape[1])
        self.modules = nn.ModuleDict({"transformer": transformer, "text_encoder": text_encoder, **heads}).to(device)
        if recipe.initial is not None:  # the heads, which are not exported, start fresh
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

    def caption_loss(self, portraits: Clips) -> Tensor:
        """Squared error of the coarse picture, in deviations, read off the mean of a caption's tokens."""
        modules: Any = self.modules
        tokens_BSD = self.encode_text(modules, portraits.captions)
        lengths = [min(len(ids), TEXT_TOKENS) for ids in self.tokenizer(list(portraits.captions)).input_ids]
        mean_BD = tokens_BSD.sum(1) / torch.tensor(lengths, device=self.device).view(-1, 1)
        truth = coarse_picture(portraits.latents_NCTHW[:, :, 0].float()).to(self.device)
        return (modules["caption_head"](mean_BD).float() - (truth - self.coarse_mean) / self.coarse_std).square().mean()

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        generator = self.begin(step)
        options, batch = self.recipe.curriculum, self.recipe.optimisation.batch
        if step < self.recipe.supervised_steps:
            sample = compose(self.clips.draw(batch, generator), options, options.latent_frames, "mouth", generator)
            losses = {"viseme_loss": self.viseme_loss(sample)}
            if "caption_head" in self.modules:
                losses["caption_loss"] = self.caption_loss(self.portraits.draw(batch, generator))
            values = {name: float(loss.detach()) for name, loss in losses.items()}
            return torch.stack(list(losses.values())).sum(), values
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
        from skyreels_audio.training.rendered.export import export_pipeline

        export_pipeline(averaged, self.recipe, self.tokenizer, TEXT_TOKENS, folder)


def coarse_picture(latents_NCHW: Tensor) -> Tensor:
    """The colours of a picture in broad areas: [N, ...] → [N, K]."""
    channels, cells = COARSE
    return F.avg_pool2d(latents_NCHW[:, :channels], cells).flatten(1)


@torch.no_grad()
def initialise_spelling(text_encoder: Any) -> None:
    """Start a fresh UMT5 of bytes reading stretches of text instead of single bytes.

    Every head begins at a byte of its own before the one it stands on: those of the first layer at 1, 2, 3 … back, each
    further layer's where the one before ends. Heads that look everywhere at once would first have to find out that
    spelling matters: they explain nothing of the broad colours of a picture after 100 steps, these a quarter.
    """
    reach = 0
    for block in text_encoder.encoder.block:
        attention = block.layer[0].SelfAttention
        for head in range(attention.n_heads):
            bucket = attention._relative_position_bucket(torch.tensor([[-(reach + head + 1)]]))
            attention.relative_attention_bias.weight[int(bucket), head] += SPELLING
        attention.q.weight.mul_(0.1)  # what is there should count less than where it is
        reach += attention.n_heads - 1


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
