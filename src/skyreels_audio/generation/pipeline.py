"""SkyReelsAudioPipeline: a picture, a video or a sentence, plus a voice → frames of a talking video."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
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

from skyreels_audio.generation.calls import Compose
from skyreels_audio.generation.colour import still_region, unify_colours
from skyreels_audio.generation.conditions import Conditions, build_reference, encode_text, spatial_factor
from skyreels_audio.generation.decoding import Around, decode
from skyreels_audio.generation.guidance import Guidance, Scale, Velocity, latent_voice
from skyreels_audio.generation.masks import bounding_cells
from skyreels_audio.generation.portrait import Portrait
from skyreels_audio.generation.sampling import Hybrid, TransformerVelocity, sample, set_timesteps
from skyreels_audio.generation.settings import Settings, check_audio, check_pictures, fit_picture
from skyreels_audio.generation.windows import Fusion, Windows
from skyreels_audio.media import SAMPLE_RATE
from skyreels_audio.models import autoencoder, transformer
from skyreels_audio.models.audio_features import encode_audio_features, voice_activity
from skyreels_audio.models.rope import FRAMES_PER_LATENT, latent_positions, token_positions
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel

# model_index.json names our classes by their modules. diffusers looks for those among the modules that are imported,
# and in a module for the base class that tells how to load.
for _module in (autoencoder, transformer):
    vars(_module).setdefault("ModelMixin", ModelMixin)

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with the phase ("portrait", "encode", "sample", "decode"), what is done of it, and all of it."""


@dataclass(frozen=True)
class SkyReelsAudioOutput:
    """A generated video: ``frames`` yields ``num_frames`` times uint8 [height, width, 3], as they are decoded, once."""

    frames: Iterator[np.ndarray]
    num_frames: int
    fps: float


class SkyReelsAudioPipeline(DiffusionPipeline):
    """Talking portraits from an image (image animation), a video (editing) or text alone, driven by speech.

    Args:
        tokenizer, text_encoder: UMT5 and its tokenizer.
        feature_extractor, audio_encoder: Whisper's encoder and its spectrogram.
        vae: causal video autoencoder, 4 frames per latent: ``AutoencoderKLWan`` or ``CausalVideoAutoencoder``.
        transformer: the velocity model.
        scheduler: any flow-matching scheduler of diffusers.
        image_encoder, image_processor: CLIP, for backbones that read its tokens.
        generation_defaults: what differs from ``Settings`` for this checkpoint.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->audio_encoder->transformer->vae"
    _optional_components = ["image_encoder", "image_processor"]

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
        )
        unknown = set(generation_defaults or {}) - {field.name for field in fields(Settings)}
        if unknown:
            raise ValueError(f"generation_defaults has settings that do not exist: {', '.join(sorted(unknown))}.")
        self.register_to_config(generation_defaults=generation_defaults or {})

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

    def settings(self, **given: Any) -> Settings:
        """The settings of a call: those given (not None), else the checkpoint's, else ``Settings``'."""
        given = {name: value for name, value in given.items() if value is not None}
        settings = Settings(**{**self.config["generation_defaults"], **given})
        step = spatial_factor(self.vae) * self.transformer.config.patch_size[1]
        if settings.height % step or settings.width % step or min(settings.height, settings.width) <= 0:
            nearest = [max(round(side / step), 1) * step for side in (settings.width, settings.height)]
            raise ValueError(
                f"The size {settings.width}×{settings.height} (width × height) must be a multiple of {step}; "
                f"the nearest is {nearest[0]}×{nearest[1]}."
            )
        return settings

    @torch.no_grad()
    def __call__(
        self,
        image: np.ndarray | Image.Image | None = None,
        audio: np.ndarray | Tensor | None = None,
        prompt: str = "",
        negative_prompt: str = "",
        video: np.ndarray | None = None,
        known: np.ndarray | None = None,
        num_inference_steps: int | None = None,
        audio_guidance_scale: float | str | None = None,
        text_guidance_scale: float | str | None = None,
        height: int | None = None,
        width: int | None = None,
        fps: float | None = None,
        window: int | None = None,
        overlap: int | None = None,
        fusion: Fusion | None = None,
        hybrid_steps: int | None = None,
        ease_silence: bool | None = None,
        colour_strength: float | None = None,
        animate: Literal["everything", "face", "mouth"] | None = None,
        colour_region: np.ndarray | None = None,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
        resume: str | Path | None = None,
        velocity: Velocity | None = None,
        arrange: Callable[[Compose], Velocity] | None = None,
    ) -> SkyReelsAudioOutput:
        """Make a video as long as the audio, to one frame.

        Args:
            image: the portrait (image animation): uint8 [H, W, 3] or PIL; cropped to the aspect of the video.
            audio: mono speech at 16 kHz, float [n] in [-1, 1].
            prompt, negative_prompt: who, expression, motion, setting; and what to stay away from.
            video, known: editing instead of animating: uint8 [F, height, width, 3], at least as long as the audio, and
                a mask [F, height, width], 1 where pixels stay, 0 where they are made anew. Frame 0 is the reference.
            num_inference_steps … animate: see ``Settings``; None takes the checkpoint's.
            colour_region: True [height, width] where colours are measured, since nothing should change them; None: all
                but the lower face.
            generator: source of the noise; the same seed gives the same video.
            progress: see ``Progress``.
            resume: file with the state of an interrupted run to go on from, kept up to date. Not deleted.
            velocity: what to call for the velocity of one window and branch, e.g. a step cache around the transformer.
            arrange: instead, what puts guidance and windows around the model (``acceleration.accelerated``).

        Raises:
            ValueError: an input is missing, has the wrong shape or size, or contradicts another.
        """
        settings = self.settings(
            num_inference_steps=num_inference_steps,
            audio_guidance_scale=audio_guidance_scale,
            text_guidance_scale=text_guidance_scale,
            height=height,
            width=width,
            fps=fps,
            window=window,
            overlap=overlap,
            fusion=fusion,
            hybrid_steps=hybrid_steps,
            ease_silence=ease_silence,
            colour_strength=colour_strength,
            animate=animate,
        )
        report = progress or (lambda phase, done, total: None)
        waveform = check_audio(audio)
        num_frames = math.ceil(len(waveform) * settings.fps / SAMPLE_RATE - 1e-6)
        latents = math.ceil((num_frames - 1) / FRAMES_PER_LATENT) + 1
        given = check_pictures(image, video, known, num_frames, settings)
        portrait, by_region = None, settings.animate != "everything"
        if video is None and by_region:
            own = self.settings()  # regions were learned in one size; the picture around them may have another
            size = own.height, own.width
            if given is None:
                shown = self.portray(prompt, negative_prompt, own, generator, report)
                given = fit_picture(shown, settings.height, settings.width)[None]
            portrait = Portrait.find(given[0], settings.animate, size)
            if portrait is None and image is None:
                log.warning("No face came of the words; the whole frame is animated.")
        if portrait is not None:
            frames = FRAMES_PER_LATENT * (min(latents, settings.window) - 1) + 1
            given = np.repeat(portrait.aligned[None], frames, axis=0)
            known = np.repeat(~portrait.region[None], frames, axis=0)

        report("encode", 0, 1)
        conditions = self.encode(given, known, waveform, [prompt, negative_prompt], latents, settings)
        timesteps = set_timesteps(self.scheduler, settings.num_inference_steps, self._execution_device)
        report("encode", 1, 1)

        whole, box = conditions, None
        unknown_HW = (conditions.known_B4THW < 1).flatten(0, 2).any(0)
        if by_region and known is not None and unknown_HW.any():  # of a single frame all is known
            box = bounding_cells(unknown_HW, self.transformer.config.patch_size[1])
            conditions = conditions.crop(*box)
        image_conditions, switch = None, 0.0
        if video is not None and settings.hybrid_steps is not None and settings.hybrid_steps < len(timesteps):
            reference, mask = self.reference(video[:1], None, min(latents, settings.window), settings)
            image_conditions = replace(whole, reference_BCTHW=reference, known_B4THW=mask, key=("image",))
            image_conditions = image_conditions if box is None else image_conditions.crop(*box)
            switch = float(timesteps[settings.hybrid_steps - 1]) if settings.hybrid_steps else math.inf

        def compose(velocity: Velocity) -> Velocity:
            guided = Guidance(
                velocity,
                timesteps,
                Scale.parse(settings.audio_guidance_scale),
                Scale.parse(settings.text_guidance_scale),
                settings.unconditional_drops,
                "audio_last" if settings.guidance_order == "audio_last" else "text_last",
            )
            fused = Windows(guided, settings.window, settings.overlap, settings.fusion)
            return fused if image_conditions is None else Hybrid(fused, image_conditions, switch)

        shape = (1, self.vae.config.z_dim, latents, *conditions.reference_BCTHW.shape[3:])
        latents_BCTHW = sample(
            arrange(compose) if arrange else compose(velocity or TransformerVelocity(self.transformer)),
            self.scheduler,
            randn_tensor(shape, generator, self._execution_device, torch.float32),
            conditions,
            progress=lambda done, total: report("sample", done, total),
            resume=None if resume is None else Path(resume),
            options=str(asdict(settings)),
        )
        self.maybe_free_model_hooks()
        if box is not None:
            latents_BCTHW = Around(latents_BCTHW, whole.reference_BCTHW, *box)
        reference = None if given is None else given[0]
        frames = self.decode(latents_BCTHW, num_frames, settings, reference, colour_region, report)
        if portrait is not None:
            frames = map(portrait.with_region_of, frames)
        return SkyReelsAudioOutput(frames, num_frames, settings.fps)

    def portray(
        self,
        prompt: str,
        negative_prompt: str,
        settings: Settings,
        generator: torch.Generator | None,
        report: Progress,
    ) -> np.ndarray:
        """A picture from words, uint8 [height, width, 3]: a video of one latent without audio."""
        silence = torch.zeros(SAMPLE_RATE // 10)
        conditions = self.encode(None, None, silence, [prompt, negative_prompt], 1, settings).drop("audio")
        timesteps = set_timesteps(self.scheduler, settings.portrait_steps, self._execution_device)
        velocity = Guidance(
            TransformerVelocity(self.transformer),
            timesteps,
            Scale.parse(1),
            Scale.parse(settings.portrait_guidance_scale),
        )
        shape = (1, self.vae.config.z_dim, *conditions.reference_BCTHW.shape[2:])
        noise = randn_tensor(shape, generator, self._execution_device, torch.float32)
        latents_BCTHW = sample(
            velocity,
            self.scheduler,
            noise,
            conditions,
            progress=lambda done, total: report("portrait", done, total),
        )
        return next(decode(latents_BCTHW, self.vae)).numpy()

    def encode(
        self,
        given_FHWC: np.ndarray | None,
        known_FHW: np.ndarray | None,
        waveform_n: Tensor,
        prompts: list[str],
        latents: int,
        settings: Settings,
    ) -> Conditions:
        """All conditions of a timeline of ``latents`` latents."""
        device, dtype = self._execution_device, self.transformer.dtype
        text_BSD = encode_text(prompts, self.tokenizer, self.text_encoder, settings.text_tokens).to(device, dtype)
        video_positions_T = latent_positions(latents, settings.fps)
        audio_BAD = audio_positions_A = voice_T = None
        if self.transformer.config.audio_dim is not None:
            encoder = self.feature_extractor, self.audio_encoder, self.transformer.config.frame_window
            audio_AD, audio_positions_A = encode_audio_features(waveform_n, *encoder, settings.fps)
            audio_BAD = audio_AD[None].to(device)
            if settings.ease_silence:
                activity_A = voice_activity(waveform_n)
                voice_T = latent_voice(activity_A, token_positions(len(activity_A)), video_positions_T).to(device)
        # A still picture looks the same from every window, so one window of it is enough.
        moving = known_FHW is not None and len(known_FHW) > FRAMES_PER_LATENT * (settings.window - 1) + 1
        span = latents if moving else min(latents, settings.window)
        reference_BCTHW, known_B4THW = self.reference(given_FHWC, known_FHW, span, settings)
        return Conditions(
            text_BSD=text_BSD[:1],
            null_text_BSD=text_BSD[1:],
            audio_BAD=audio_BAD,
            audio_positions_A=audio_positions_A,
            reference_BCTHW=reference_BCTHW,
            known_B4THW=known_B4THW,
            video_positions_T=video_positions_T,
            image_BND=self.encode_image(None if given_FHWC is None else given_FHWC[0]),
            voice_T=voice_T,
            audio_reach=self.transformer.audio_reach,
        )

    def reference(
        self, given_FHWC: np.ndarray | None, known_FHW: np.ndarray | None, latents: int, settings: Settings
    ) -> tuple[Tensor, Tensor]:
        """The first frames of what is given as latents [1, C, T, H, W] and mask [1, 4, T, H, W]."""
        if given_FHWC is not None:
            given_FHWC = given_FHWC[: FRAMES_PER_LATENT * (latents - 1) + 1]
            known_FHW = None if known_FHW is None else known_FHW[: len(given_FHWC)]
        size = (settings.height, settings.width)
        return build_reference(given_FHWC, known_FHW, latents, self.vae, size, self._execution_device)

    def encode_image(self, image_HWC: np.ndarray | None) -> Tensor | None:
        """CLIP tokens [1, N, D] of the reference (last layer but one, as in Wan), zeros without it; None if unread."""
        if self.transformer.config.image_dim is None:
            return None
        device, dtype = self._execution_device, self.transformer.dtype
        if self.image_encoder is None or self.image_processor is None:
            raise ValueError(
                "This transformer reads CLIP tokens: load the pipeline with image_encoder and image_processor."
            )
        shown = np.zeros((224, 224, 3), np.uint8) if image_HWC is None else image_HWC
        pixels = self.image_processor(images=Image.fromarray(shown), return_tensors="pt").pixel_values
        pixels = pixels.to(device, self.image_encoder.dtype)
        tokens_BND = self.image_encoder(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
        return (torch.zeros_like(tokens_BND) if image_HWC is None else tokens_BND).to(dtype)

    def decode(
        self,
        latents_BCTHW: Tensor | Around,
        num_frames: int,
        settings: Settings,
        reference_HWC: np.ndarray | None,
        colour_region: np.ndarray | None,
        report: Progress,
    ) -> Iterator[np.ndarray]:
        """Frames as they are decoded, their colours unified with the reference's."""
        frames = (frame.numpy() for frame in islice(decode(latents_BCTHW, self.vae), num_frames))
        if reference_HWC is not None and settings.colour_strength > 0:
            region_HW = still_region(reference_HWC) if colour_region is None else colour_region
            frames = unify_colours(frames, reference_HWC, settings.colour_strength, region_HW)
        for done, frame in enumerate(frames, start=1):
            yield frame
            report("decode", done, num_frames)
