"""SkyReelsAudioPipeline: a picture, a video or a sentence, plus a voice → frames of a talking video."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from skyreels_audio.generation.codes import at_times, scale_motion, steady_head
from skyreels_audio.generation.colour import still_region, unify_colours
from skyreels_audio.generation.compositing import Compositor
from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.decoding import Scaled, decode
from skyreels_audio.generation.encoders import encode_conditions, encode_prompts, encode_reference
from skyreels_audio.generation.inputs import (
    PORTRAIT_COMPONENTS,
    Prepared,
    Progress,
    Source,
    check_audio,
    picture_source,
    video_source,
)
from skyreels_audio.generation.latents import spatial_factor
from skyreels_audio.generation.sampling import sample, set_timesteps, weights_hash
from skyreels_audio.generation.settings import Settings
from skyreels_audio.generation.step import BATCH_TOKENS, Batched, Executor, TransformerVelocity
from skyreels_audio.media import SAMPLE_RATE
from skyreels_audio.models import motion_autoencoder, portrait_autoencoder, transformer
from skyreels_audio.models.motion_autoencoder import MotionAutoencoder, unpack
from skyreels_audio.models.rope import FRAMES_PER_LATENT, FRAMES_PER_SECOND
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel

# model_index.json names our classes by their modules. diffusers looks for those among the modules that are imported,
# and in a module for the base class that tells how to load.
for _module in (motion_autoencoder, portrait_autoencoder, transformer):
    vars(_module).setdefault("ModelMixin", ModelMixin)

OutputType = Literal["np", "pil", "latent"]


@dataclass(frozen=True)
class SkyReelsAudioOutput:
    """A generated video.

    Attributes:
        frames: yields ``num_frames`` frames once, as they are decoded: uint8 [height, width, 3], or PIL images; as
            "latent", the denoised latents [1, C, T, H, W] of what was computed.
        num_frames, fps: of the video.
        faces: what was found in the given picture: how many faces, the box of the one chosen, the crop around it.
    """

    frames: Any
    num_frames: int
    fps: float
    faces: dict[str, Any] = field(default_factory=dict)


def fast_dtype(device: str) -> torch.dtype:
    """bfloat16, but for processors that would have to emulate it."""
    fast = device != "cpu" or torch.cpu.get_capabilities().get("avx512_bf16")
    return torch.bfloat16 if fast else torch.float32


class SkyReelsAudioPipeline(DiffusionPipeline):
    """Talking portraits from an image (image animation), a video (editing) or text alone, driven by speech.

    Args:
        tokenizer, text_encoder: UMT5 and its tokenizer.
        feature_extractor, audio_encoder: Whisper's encoder and its spectrogram.
        vae: causal video autoencoder, 4 frames per latent: ``AutoencoderKLWan``, or ``MotionAutoencoder``, whose
            latents move the pixels of a picture.
        transformer: the velocity model.
        scheduler: any flow-matching scheduler of diffusers.
        image_encoder, image_processor: CLIP, for backbones that read its tokens.
        portrait_transformer, portrait_vae, portrait_text_encoder: what makes a portrait of words for a ``vae`` that
            moves the pixels of one (``portrait_from_words``).
        generation_defaults: what differs from ``Settings`` for this checkpoint.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->audio_encoder->transformer->vae"
    _optional_components = ["image_encoder", "image_processor", *PORTRAIT_COMPONENTS]
    executor: Executor | None = None
    """What computes a step; None: the transformer, small evaluations in batches. ``acceleration`` puts others here."""

    def __init__(
        self,
        tokenizer: Any,
        text_encoder: Any,
        feature_extractor: Any,
        audio_encoder: Any,
        vae: Any,
        transformer: SkyReelsAudioTransformer3DModel,
        scheduler: Any,
        image_encoder: Any = None,
        image_processor: Any = None,
        portrait_transformer: Any = None,
        portrait_vae: Any = None,
        portrait_text_encoder: Any = None,
        generation_defaults: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            feature_extractor=feature_extractor,
            audio_encoder=audio_encoder,
            vae=vae,
            transformer=transformer,
            scheduler=scheduler,
            image_encoder=image_encoder,
            image_processor=image_processor,
            portrait_transformer=portrait_transformer,
            portrait_vae=portrait_vae,
            portrait_text_encoder=portrait_text_encoder,
        )
        unknown = set(generation_defaults or {}) - {field.name for field in fields(Settings)}
        if unknown:
            raise ValueError(f"generation_defaults has settings that do not exist: {', '.join(sorted(unknown))}.")
        self.register_to_config(generation_defaults=generation_defaults or {})

    @classmethod
    def from_pretrained(cls, source: str | Path, **loading: Any) -> "SkyReelsAudioPipeline":
        """As diffusers', but without a ``dtype`` in the one that is fast here: all ways to a video take the same."""
        if loading.get("dtype") is None and loading.get("torch_dtype") is None:
            loading["dtype"] = fast_dtype("cuda" if torch.cuda.is_available() else "cpu")
        return super().from_pretrained(str(source), **loading)

    @classmethod
    def from_backbone(
        cls, source: str | Path, whisper: str | Path | None = None, **loading: Any
    ) -> "SkyReelsAudioPipeline":
        """A SkyReels-V2 or Wan 2.1 checkpoint with a fresh audio branch, which adds nothing until it is trained.

        ``source`` and ``whisper`` as in ``models.convert.convert_backbone``, whose result is kept; ``loading`` goes to
        ``from_pretrained``.
        """
        from skyreels_audio.models.convert import load_backbone

        return cls.from_pretrained(load_backbone(source, whisper), **loading)

    def settings(self, settings: Settings | None = None, **given: Any) -> Settings:
        """The settings of a call: those given by name (not None), else those of ``settings``, else the checkpoint's."""
        settings = (settings or Settings(**self.config["generation_defaults"])).updated(**given)
        step = 2 if self.moves_pixels else spatial_factor(self.vae) * self.transformer.config.patch_size[1]
        if settings.height % step or settings.width % step or min(settings.height, settings.width) <= 0:
            nearest = [max(round(side / step), 1) * step for side in (settings.width, settings.height)]
            raise ValueError(
                f"The size {settings.width}×{settings.height} (width × height) must be a multiple of {step}; "
                f"the nearest is {nearest[0]}×{nearest[1]}."
            )
        return settings

    @property
    def moves_pixels(self) -> bool:
        """Whether latents are the motion of a picture, of any size, at 25 frames per second."""
        return isinstance(self.vae, MotionAutoencoder)

    def timeline(self, settings: Settings) -> Settings:
        """The settings as latents see them: motion has 25 frames per second, whatever the video's rate."""
        return settings.updated(fps=float(FRAMES_PER_SECOND)) if self.moves_pixels else settings

    @torch.no_grad()
    def __call__(
        self,
        image: np.ndarray | Image.Image | None = None,
        audio: np.ndarray | Tensor | None = None,
        prompt: str = "",
        negative_prompt: str = "",
        video: np.ndarray | None = None,
        known: np.ndarray | None = None,
        settings: Settings | None = None,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        output_type: OutputType = "np",
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        progress: Progress | None = None,
        resume: str | Path | None = None,
        **overrides: Any,
    ) -> SkyReelsAudioOutput:
        """Make a video as long as the audio, to one frame.

        Args:
            image: the portrait (image animation): uint8 [H, W, 3] or PIL; cut around its face to the video's size.
            audio: mono speech at 16 kHz, float [n] in [-1, 1].
            prompt, negative_prompt: who, expression, motion, setting; and what to stay away from.
            video, known: editing instead of animating: uint8 [F, height, width, 3], at least as long as the audio, and
                a mask [F, height, width], 1 where pixels stay, 0 where they are made anew. Frame 0 is the reference.
            settings: how to generate; None: as the checkpoint says.
            generator: source of the noise; the same seed gives the same video.
            latents: the noise itself, [1, C, T, H, W] of what is computed.
            prompt_embeds, negative_prompt_embeds: [1, S, D], instead of the prompts.
            output_type: "np", "pil" or "latent", see ``SkyReelsAudioOutput``.
            callback_on_step_end: called with (pipeline, step, timestep, {"latents": …}); returns what to go on with.
            progress: see ``Progress``.
            resume: file with the state of an interrupted run to go on from, kept up to date. Not deleted.
            overrides: single settings by name, e.g. ``num_inference_steps=50``; None takes the checkpoint's.

        Raises:
            ValueError: an input is missing, has the wrong shape or size, or contradicts another.
        """
        settings = self.settings(settings, **overrides)
        report = progress or (lambda phase, done, total: None)
        texts = prompt, negative_prompt, prompt_embeds, negative_prompt_embeds
        prepared = self.prepare(image, audio, texts, video, known, settings, generator, report)
        latents = self.denoise(prepared, settings, latents, generator, callback_on_step_end, report, resume)
        about = prepared.num_frames, settings.fps, prepared.source.faces
        if output_type == "latent":
            return SkyReelsAudioOutput(latents, *about)
        frames = self.composite(self.decode(latents, prepared, settings, report), prepared, settings)
        return SkyReelsAudioOutput(map(Image.fromarray, frames) if output_type == "pil" else frames, *about)

    @torch.no_grad()
    def generate_motion(
        self,
        audio: np.ndarray | Tensor,
        prompt: str = "",
        negative_prompt: str = "",
        settings: Settings | None = None,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
        resume: str | Path | None = None,
        **overrides: Any,
    ) -> Tensor:
        """What a face does that says this, whoever's it is: codes [F, N] (``motion_autoencoder.CHANNELS``).

        Raises:
            ValueError: the checkpoint's latents are pixels, or an input is wrong.
        """
        if not self.moves_pixels:
            raise ValueError("This checkpoint makes pixels, not motion.")
        settings, report = self.settings(settings, **overrides), progress or (lambda phase, done, total: None)
        waveform_n = check_audio(audio)
        num_frames, latents = self.lengths(waveform_n, settings)
        text_2SD = encode_prompts(self, prompt, negative_prompt, None, None, settings)
        nobody = Source(np.zeros((1, *self.vae.config.size, 3), np.uint8))
        timeline = self.timeline(settings)
        conditions = encode_conditions(self, nobody.frames_FHWC, None, waveform_n, text_2SD, latents, timeline)
        prepared = Prepared(conditions, nobody, num_frames)
        latents_BCTHW = self.denoise(prepared, settings, None, generator, None, report, resume)
        return self.codes(latents_BCTHW, num_frames, settings)

    def prepare(
        self,
        image: np.ndarray | Image.Image | None,
        audio: np.ndarray | Tensor | None,
        texts: tuple[str, str, Tensor | None, Tensor | None],
        video: np.ndarray | None,
        known: np.ndarray | None,
        settings: Settings,
        generator: torch.Generator | None,
        report: Progress,
    ) -> Prepared:
        """What is given → what the frames are made from."""
        waveform_n = check_audio(audio)
        num_frames, latents = self.lengths(waveform_n, settings)
        if video is not None or known is not None:
            source = video_source(image, video, known, num_frames, settings)
        else:
            source = picture_source(self, image, texts[0], settings, generator, report)
        text_2SD = encode_prompts(self, *texts, settings)
        report("encode", 0, 1)
        conditions = encode_conditions(
            self, source.frames_FHWC, source.known_FHW, waveform_n, text_2SD, latents, self.timeline(settings)
        )
        if video is not None and settings.hybrid_steps is not None:
            still, still_known = encode_reference(self, video[:1], None, min(latents, settings.window), settings)
            conditions = replace(conditions, still_BCTHW=still, still_known_B4THW=still_known)
        report("encode", 1, 1)
        return Prepared(conditions, source, num_frames)

    def lengths(self, waveform_n: Tensor, settings: Settings) -> tuple[int, int]:
        """How many frames and how many latents a voice lasts."""
        frames, coded_frames = (
            math.ceil(len(waveform_n) * fps / SAMPLE_RATE - 1e-6) for fps in (settings.fps, self.timeline(settings).fps)
        )
        return frames, math.ceil((coded_frames - 1) / FRAMES_PER_LATENT) + 1

    def denoise(
        self,
        prepared: Prepared,
        settings: Settings,
        latents: Tensor | None,
        generator: torch.Generator | None,
        callback_on_step_end: Callable[..., dict[str, Any]] | None,
        report: Progress,
        resume: str | Path | None,
    ) -> Tensor:
        """Noise → latents [1, C, T, H, W]."""
        conditions = prepared.conditions
        noise_BCTHW = self.noise(conditions, generator, latents)
        spacing = settings.timestep_spacing
        set_timesteps(self.scheduler, settings.num_inference_steps, self._execution_device, spacing)

        def on_step_end(step: int, t: Tensor, latents_BCTHW: Tensor) -> Tensor:
            if callback_on_step_end is None:
                return latents_BCTHW
            return callback_on_step_end(self, step, t, {"latents": latents_BCTHW}).get("latents", latents_BCTHW)

        latents_BCTHW = sample(
            self.executor or self.default_executor(),
            self.scheduler,
            noise_BCTHW,
            conditions,
            settings.guidance,
            settings.windows,
            None if conditions.still_BCTHW is None else settings.hybrid_steps,
            progress=lambda done, total: report("sample", done, total),
            on_step_end=on_step_end,
            resume=None if resume is None else Path(resume),
            options=f"{asdict(settings)} {'' if resume is None else weights_hash(self.transformer, self.vae)}",
        )
        self.maybe_free_model_hooks()
        return latents_BCTHW

    def default_executor(self) -> Executor:
        """The transformer as it is, small evaluations in batches."""
        return Batched(
            TransformerVelocity(self.transformer), BATCH_TOKENS * math.prod(self.transformer.config.patch_size)
        )

    def noise(self, conditions: Conditions, generator: torch.Generator | None, given: Tensor | None = None) -> Tensor:
        """Noise [1, C, T, H, W], float32, for a timeline with these conditions; ``given`` if that fits.

        Raises:
            ValueError: it does not.
        """
        timeline = len(conditions.video_positions_T)
        shape = (1, self.vae.config.z_dim, timeline, *conditions.reference_BCTHW.shape[3:])
        if given is None:
            return randn_tensor(shape, generator, self._execution_device, torch.float32)
        if given.shape != shape:
            raise ValueError(f"latents must have the shape {shape}, not {tuple(given.shape)}.")
        return given.to(self._execution_device, torch.float32, copy=True)

    def decode(
        self, latents_BCTHW: Tensor, prepared: Prepared, settings: Settings, report: Progress
    ) -> Iterator[np.ndarray]:
        """Latents → frames of the checkpoint's size, uint8 [H, W, 3], one by one; of motion, the picture moved."""
        if prepared.source.aligned is not None:
            lively = settings.motion > 0
            compositor = Compositor(prepared.source.aligned, self.vae, eyes=lively, head=lively)
            frames = compositor.frames(self.codes(latents_BCTHW, prepared.num_frames, settings))
        else:
            frames = (frame.numpy() for frame in islice(decode(latents_BCTHW, self.vae), prepared.num_frames))
        for done, frame in enumerate(frames, start=1):
            yield frame
            report("decode", done, prepared.num_frames)

    def codes(self, latents_BCTHW: Tensor, num_frames: int, settings: Settings) -> Tensor:
        """Codes of motion [F, N] of every frame of the video, as lively as the settings say."""
        own: Any = Scaled(latents_BCTHW, self.vae)
        codes_FN = steady_head(unpack(own[:, :, :].float())[0].cpu())
        return scale_motion(at_times(codes_FN, settings.fps, num_frames, FRAMES_PER_SECOND), settings.motion)

    def composite(self, frames: Iterator[np.ndarray], prepared: Prepared, settings: Settings) -> Iterator[np.ndarray]:
        """Frames with the colours of the reference."""
        source = prepared.source
        if source.frames_FHWC is not None and settings.colour_strength > 0:
            reference_HWC = source.frames_FHWC[0]
            region_HW = still_region(source.landmarks, reference_HWC.shape[:2])
            frames = unify_colours(frames, reference_HWC, settings.colour_strength, region_HW)
        return frames
