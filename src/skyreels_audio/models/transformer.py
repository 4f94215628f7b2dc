"""The diffusion transformer: diffusers' Wan / SkyReels-V2 backbone plus audio cross-attention with 1-D RoPE.

Legend: B batch, C latent channel, T H W latent grid, L video token (L = T · H/2 · W/2), S text (and image) token,
A audio token, D audio feature, E projected audio width, N heads, M model width.
"""

import inspect
from functools import partial
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models._modeling_parallel import ContextParallelInput
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.transformers.transformer_skyreels_v2 import SkyReelsV2Timesteps
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.utils.peft_utils import apply_lora_scale
from torch import Tensor, nn

from skyreels_audio.models.audio_attention import AudioContext, SkyReelsAudioBlock
from skyreels_audio.models.embedded import Embedded, PatchTokens, repeated_reference, sigmas
from skyreels_audio.models.rope import (
    FRAMES_PER_LATENT,
    TokenClock,
    clock_dtype,
    latent_positions,
    rotary_table,
    token_positions,
)
from skyreels_audio.models.windowed_audio_attention import (
    BLOCKS,
    PROJECTORS,
    REACH,
    FrameWindow,
    windowed_audio_context,
)

MASK_CHANNELS = FRAMES_PER_LATENT
"""Wan folds the mask of four pixel frames into the channels of their latent frame."""

SMALLEST_SIGMA = 0.02
"""Floor of sigma in velocity = (z - x0) / sigma, which would else multiply any error of x0 without bound.

A sampler's last step, from a sigma below the floor to 0, then leaves at most 0.005 of the noise.
"""


WAN_ARGUMENTS = tuple(inspect.signature(WanTransformer3DModel.__init__).parameters)[1:]


class SkyReelsAudioTransformer3DModel(WanTransformer3DModel):
    """Wan's video transformer with audio cross-attention in every block; state-dict keys are Wan's plus `audio_*`.

    A fresh audio branch adds exactly zero, so any Wan or SkyReels-V2 checkpoint keeps its output bit for bit.

    Args (beyond `WanTransformer3DModel`):
        audio_dim: width of the audio features; None leaves the audio branch out.
        audio_width: width E of the projected audio tokens; None takes the model width.
        audio_rope: rotate queries and keys by their time on the common clock (`rope.py`).
        audio_rope_theta: base of the rotary frequencies.
        audio_window: video tokens see audio tokens within ± this many token units (20 ms); None sees all.
        frame_window: audio attention of a public model, in windows of its own (`windowed_audio_attention.py`); None is
            the paper's.
        reference_residual: predict the clean latent as a residual to the repeated reference (`predict_clean`), which
            leaves known latents as they are. Needs `in_channels = 2 * out_channels + 4` (noise, mask, condition). The
            untrained network returns the reference.
        exact_timesteps: embed timesteps in float64, as SkyReels-V2 does; diffusers' Wan rounds to float32 (1e-5 of v).
    """

    config: Any  # the arguments of __init__
    _gradient_checkpointing_func: Any
    _no_split_modules = [block.__name__ for block in BLOCKS.values()]
    _repeated_blocks = _no_split_modules
    # It asks its weights for the type to compute in.
    _skip_layerwise_casting_patterns = [*WanTransformer3DModel._skip_layerwise_casting_patterns, "audio_projector"]
    _keep_in_fp32_modules = [*WanTransformer3DModel._keep_in_fp32_modules, "audio_norm", "norm_in", "norm_out"]
    # Tokens are split where they are made (Wan: at the first block), so that everything between `embed` and `head`,
    # a step cache's residual included, is one rank's share.
    _cp_plan = {
        **{name: plan for name, plan in WanTransformer3DModel._cp_plan.items() if name != "blocks.0"},
        "patch_tokens": {0: ContextParallelInput(split_dim=1, expected_dims=3, split_output=True)},
        "token_clock": {0: ContextParallelInput(split_dim=1, expected_dims=2, split_output=True)},
    }

    @register_to_config
    def __init__(
        self,
        patch_size: tuple[int, ...] = (1, 2, 2),
        num_attention_heads: int = 40,
        attention_head_dim: int = 128,
        in_channels: int = 36,
        out_channels: int = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 13824,
        num_layers: int = 40,
        cross_attn_norm: bool = True,
        qk_norm: str = "rms_norm_across_heads",
        eps: float = 1e-6,
        image_dim: int | None = None,
        added_kv_proj_dim: int | None = None,
        rope_max_seq_len: int = 1024,
        pos_embed_seq_len: int | None = None,
        audio_dim: int | None = None,
        audio_width: int | None = None,
        audio_rope: bool = True,
        audio_rope_theta: float = 10000.0,
        audio_window: float | None = None,
        reference_residual: bool = False,
        exact_timesteps: bool = False,
        frame_window: FrameWindow | None = None,
    ) -> None:
        wan: dict[str, Any] = {name: self.config[name] for name in WAN_ARGUMENTS}
        wan["num_layers"] = 0  # the blocks are ours, below
        super().__init__(**wan)
        self.register_to_config(num_layers=num_layers)
        _check_config(self.config)
        width = num_attention_heads * attention_head_dim
        audio_width = audio_width or width
        self.blocks = nn.ModuleList(
            BLOCKS[frame_window](
                dim=width,
                heads=num_attention_heads,
                audio_width=None if audio_dim is None else audio_width,
                eps=eps,
                ffn_dim=ffn_dim,
                qk_norm=qk_norm,
                cross_attn_norm=cross_attn_norm,
                added_kv_proj_dim=added_kv_proj_dim,
            )
            for _ in range(num_layers)
        )
        self.patch_tokens = PatchTokens()
        self.token_clock = TokenClock()
        if exact_timesteps:
            timesteps_proj = SkyReelsV2Timesteps(freq_dim, flip_sin_to_cos=True)
            self.condition_embedder.register_module("timesteps_proj", timesteps_proj)
        if audio_dim is not None:
            self.audio_projector = PROJECTORS[frame_window](audio_dim, audio_width)
        if reference_residual:
            nn.init.zeros_(self.proj_out.weight)
            nn.init.zeros_(self.proj_out.bias)

    def set_attention_backend(self, backend: str) -> None:
        """As diffusers', but of this model alone: there it becomes that of every other model of the process too."""
        others, _ = _AttentionBackendRegistry.get_active_backend()
        super().set_attention_backend(backend)
        _AttentionBackendRegistry.set_active_backend(others)

    def initialise_audio_alignment(self, reach: float = 8.0, output_std: float = 0.0) -> Tensor:
        """Start a fresh audio branch with attention around each latent's own time instead of everywhere at once.

        Every head begins at its own offset within ± `reach` token units (20 ms), spread evenly over the heads of the
        model by the golden ratio. `output_std` > 0 starts the output projection at random instead of at zero: faster
        from scratch, but a pretrained backbone then no longer keeps its output.

        Returns:
            The offsets [blocks, heads].

        Raises:
            ValueError: the model has no audio branch, or one without RoPE.
        """
        if self.config.audio_dim is None or not self.config.audio_rope:
            raise ValueError("Audio alignment needs a config with audio_dim and audio_rope.")
        golden_ratio = (5**0.5 - 1) / 2
        steps = torch.arange(len(self.blocks) * self.config.num_attention_heads, dtype=torch.float64) + 0.5
        offsets = reach * (2 * (steps * golden_ratio % 1) - 1)
        offsets = offsets.view(len(self.blocks), -1)
        for block, offsets_N in zip(self.blocks, offsets, strict=True):
            assert isinstance(block, SkyReelsAudioBlock)
            block.audio_attn.align(offsets_N, self.config.audio_rope_theta, output_std)
        return offsets

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_image: Tensor | None = None,
        audio_hidden_states: Tensor | None = None,
        audio_positions: Tensor | None = None,
        video_positions: Tensor | None = None,
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Velocity dz/dsigma = noise - x0 of the noisy latents z = (1 - sigma) x0 + sigma noise.

        Args:
            hidden_states: noise, mask (known = 1) and condition latents [B, C + 4 + C, T, H, W].
            timestep: 1000 sigma [B] (or one per token [B, L], unless `reference_residual`).
            encoder_hidden_states: text tokens [B, S, text_dim].
            encoder_hidden_states_image: CLIP image tokens, for backbones trained with them.
            audio_hidden_states: audio features [B, A, audio_dim], 50 per second; None skips audio attention.
            audio_positions: their positions on the clock of `rope.py`, [A] or [B, A]; None starts them with the video.
            video_positions: positions of the latent frames, [T] or [B, T]; None is a video of 25 frames per second.
            return_dict: False returns a tuple.
            attention_kwargs: `{"scale": s}` scales LoRA adapters.

        Raises:
            ValueError: audio was given to a model without audio branch.
        """
        embedded = self.embed(
            hidden_states,
            timestep,
            encoder_hidden_states,
            encoder_hidden_states_image,
            audio_hidden_states,
            audio_positions,
            video_positions,
        )
        velocity = self.head(self.run_blocks(embedded), embedded)
        return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)

    def predict_clean(self, hidden_states: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Estimate of the clean latents x0 [B, C, T, H, W], float32; arguments as `forward` up to the positions."""
        embedded = self.embed(hidden_states, timestep, *args, **kwargs)
        return self.clean(self.run_blocks(embedded), embedded)

    def embed(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_image: Tensor | None = None,
        audio_hidden_states: Tensor | None = None,
        audio_positions: Tensor | None = None,
        video_positions: Tensor | None = None,
    ) -> Embedded:
        """First third of `forward`: everything the blocks read."""
        channels, (frames, height, width) = self.config.out_channels, hidden_states.shape[2:]
        grid = (frames, height // self.config.patch_size[1], width // self.config.patch_size[2])
        noisy, base, unknown = hidden_states[:, :channels], None, None
        if self.config.reference_residual:
            mask, cond = hidden_states[:, channels:].split([MASK_CHANNELS, channels], dim=1)
            base, unknown = repeated_reference(mask, cond), 1 - mask.mean(dim=1, keepdim=True)
            hidden_states = torch.cat([hidden_states[:, : channels + MASK_CHANNELS], base], dim=1)
        # Latents may be finer than the weights: with bfloat16 weights, float32 latents keep (z - x0) / sigma exact.
        patches = self.patch_embedding(hidden_states.to(self.patch_embedding.weight.dtype))

        temb, modulation, context, image = self.condition_embedder(
            timestep.flatten(),
            encoder_hidden_states,
            encoder_hidden_states_image,
            timestep_seq_len=timestep.shape[1] if timestep.ndim == 2 else None,
        )
        audio = None
        if audio_hidden_states is not None:
            audio = self.audio_context(audio_hidden_states, grid, audio_positions, video_positions)
        return Embedded(
            hidden_BLM=self.patch_tokens(patches),
            context_BSM=context if image is None else torch.cat([image, context], dim=1),
            modulation=modulation.unflatten(-1, (6, -1)),
            temb=temb,
            rotary=self.rope(hidden_states),
            audio=audio,
            grid=grid,
            noisy_BCTHW=noisy,
            timestep=timestep,
            base_BCTHW=base,
            unknown_B1THW=unknown,
        )

    def audio_context(
        self,
        features_BAD: Tensor,
        grid: tuple[int, int, int],
        audio_positions: Tensor | None = None,
        video_positions: Tensor | None = None,
    ) -> AudioContext:
        """Audio tokens with the rotary tables and the window mask for a grid of video patches along T, H, W."""
        if self.config.audio_dim is None:
            raise ValueError("This transformer has no audio branch: load one whose config sets audio_dim.")
        frames, height, width = grid
        video = latent_positions(frames) if video_positions is None else video_positions
        audio = token_positions(features_BAD.shape[1]) if audio_positions is None else audio_positions
        place = {"device": features_BAD.device, "dtype": clock_dtype(features_BAD.device)}
        video_BT, audio_BA = torch.atleast_2d(video).to(**place), torch.atleast_2d(audio).to(**place)
        if self.config.frame_window is not None:
            spread = partial(self.token_clock, tokens=height * width)
            return windowed_audio_context(self.audio_projector, features_BAD, audio_BA, video_BT, spread)

        video_BL = self.token_clock(video_BT, height * width)
        rotary = None, None
        if self.config.audio_rope:
            angles = self.config.attention_head_dim, self.config.audio_rope_theta
            rotary = rotary_table(video_BL, *angles), rotary_table(audio_BA, *angles)
        mask_BNLA = None
        if self.config.audio_window is not None:
            mask_BNLA = ((video_BL[:, :, None] - audio_BA[:, None]).abs() <= self.config.audio_window).unsqueeze(1)
        return AudioContext(self.audio_projector(features_BAD), *rotary, mask_BNLA)

    @property
    def audio_reach(self) -> float:
        """How far from their own time video tokens attend to audio, in token units (20 ms)."""
        return REACH if self.config.frame_window else self.config.audio_window or 0.0

    def run_blocks(self, embedded: Embedded) -> Tensor:
        """Second third of `forward`: video tokens after the last block [B, L, M]."""
        hidden = embedded.hidden_BLM
        shared = embedded.context_BSM, embedded.modulation, embedded.rotary, embedded.audio
        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden = self._gradient_checkpointing_func(block, hidden, *shared)
            else:
                hidden = block(hidden, *shared)
        return hidden

    def head(self, hidden_BLM: Tensor, embedded: Embedded) -> Tensor:
        """Last third of `forward`: the velocity [B, C, T, H, W]."""
        if embedded.base_BCTHW is None:
            return self.unpatchify(hidden_BLM, embedded)
        noisy = embedded.noisy_BCTHW
        clean = self.clean(hidden_BLM, embedded)
        return ((noisy.float() - clean) / sigmas(embedded.timestep).clamp(min=SMALLEST_SIGMA)).to(noisy.dtype)

    def clean(self, hidden_BLM: Tensor, embedded: Embedded) -> Tensor:
        """Alternative to `head`: the clean latents x0 [B, C, T, H, W], float32."""
        output = self.unpatchify(hidden_BLM, embedded).float()
        if embedded.base_BCTHW is not None:
            assert embedded.unknown_B1THW is not None
            return embedded.base_BCTHW.float() + embedded.unknown_B1THW.float() * output
        return embedded.noisy_BCTHW.float() - sigmas(embedded.timestep) * output

    def unpatchify(self, hidden_BLM: Tensor, embedded: Embedded) -> Tensor:
        """Output norm and projection of the tokens, put back on the latent grid [B, C, T, H, W]."""
        temb = embedded.temb if embedded.temb.ndim == 3 else embedded.temb.unsqueeze(1)
        shift, scale = (self.scale_shift_table.to(temb.device) + temb.unsqueeze(2)).to(hidden_BLM.device).unbind(2)
        hidden_BLM = (self.norm_out(hidden_BLM.float()) * (1 + scale) + shift).type_as(hidden_BLM)
        patches = self.proj_out(hidden_BLM).unflatten(1, embedded.grid).unflatten(-1, (*self.config.patch_size, -1))
        # B, T, H, W, patch T, patch H, patch W, C → B, C, T, patch T, H, patch H, W, patch W
        return patches.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)


def _check_config(config: Any) -> None:
    """Raises ValueError: arguments of the transformer contradict each other."""
    if config.patch_size[0] != 1:
        raise ValueError(f"patch_size {tuple(config.patch_size)}: a patch must hold one latent frame, so begin with 1.")
    channels = 2 * config.out_channels + MASK_CHANNELS
    if config.reference_residual and config.in_channels != channels:
        raise ValueError(
            f"reference_residual needs in_channels = 2 * out_channels + {MASK_CHANNELS} = {channels} (noise, mask, "
            f"condition), got {config.in_channels}."
        )
    if config.frame_window not in BLOCKS:
        raise ValueError(f"frame_window {config.frame_window!r}: it is one of {', '.join(map(str, BLOCKS))}.")
