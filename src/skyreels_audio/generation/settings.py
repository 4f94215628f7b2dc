"""How to generate: one frozen value, checked when it is made and handed on whole."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from skyreels_audio.generation.guidance import OFF, Guidance, Scale
from skyreels_audio.generation.windows import Fusion, Windows


@dataclass(frozen=True)
class Settings:
    """How to generate. A checkpoint brings its own as ``generation_defaults``; a call may replace any of them.

    Attributes:
        num_inference_steps: the paper uses 50.
        audio_guidance_scale, text_guidance_scale: number or schedule (``guidance.Scale``); 1 is off. Paper: audio 4.5.
        height, width: pixels.
        fps: frames per second of the output; the audio clock follows it.
        window, overlap: in latent frames (of four pixel frames). Longer videos are made in overlapping windows.
        fusion: how windows meet (``windows``).
        guidance_order, unconditional_drops: see ``guidance.Guidance``.
        timestep_spacing: see ``sampling.set_timesteps``.
        audio_feature_rounding: whether a last, partial frame has features of its own (``encode_audio_features``).
        silence_guidance_fade: audio guidance fades where the voice is silent, so that it does not exaggerate silence.
        hybrid_steps: video editing sees the video for this many steps and then only its first frame (eq. 4); None: all.
        colour_strength: 0 … 1, how far colours are brought back to the reference's (``colour.unify_colours``).
        text_tokens: length of the encoded prompt; Wan's is 512.
        motion: 0 … 1, how much of a portrait moves besides its mouth; 0 is the mouth alone. For models whose latents
            are motion.
        teacache_coefficients, magcache_ratios: what step caches know of this checkpoint; None: nothing.
    """

    num_inference_steps: int = 50
    audio_guidance_scale: float | str = 4.5
    text_guidance_scale: float | str = 5.0
    height: int = 544
    width: int = 960
    fps: float = 25.0
    window: int = 21
    overlap: int = 5
    fusion: Fusion = "bidirectional"
    guidance_order: Literal["audio_last", "text_last"] = "audio_last"
    timestep_spacing: Literal["trailing", "linspace"] = "trailing"
    audio_feature_rounding: Literal["ceil", "floor"] = "ceil"
    unconditional_drops: tuple[str, ...] = ("text", "audio", "reference")
    silence_guidance_fade: bool = False
    hybrid_steps: int | None = None
    colour_strength: float = 0.0
    text_tokens: int = 512
    motion: float = 1.0
    teacache_coefficients: tuple[float, ...] | None = None
    magcache_ratios: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("audio_guidance_scale", "text_guidance_scale"):
            Scale.parse(getattr(self, name))
        object.__setattr__(self, "unconditional_drops", tuple(self.unconditional_drops))
        overlaps, drops = 2 <= self.overlap < self.window, set(self.unconditional_drops)
        rules = {
            "num_inference_steps": (self.num_inference_steps >= 1, "at least 1"),
            "fps": (self.fps > 0, "positive"),
            "overlap": (overlaps, f"at least 2 latents and less than the window of {self.window}"),
            "fusion": (self.fusion in get_args(Fusion), "bidirectional, unidirectional or none"),
            "guidance_order": (self.guidance_order in ("audio_last", "text_last"), "audio_last or text_last"),
            "timestep_spacing": (self.timestep_spacing in ("trailing", "linspace"), "trailing or linspace"),
            "audio_feature_rounding": (self.audio_feature_rounding in ("ceil", "floor"), "ceil or floor"),
            "unconditional_drops": (drops <= {"text", "audio", "reference"}, "some of text, audio, reference"),
            "hybrid_steps": (self.hybrid_steps is None or self.hybrid_steps >= 0, "none or a number, not negative"),
            "motion": (0 <= self.motion <= 1, "between 0 and 1"),
            "colour_strength": (0 <= self.colour_strength <= 1, "between 0 and 1"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise ValueError(f"{name} must be {expected}, not {getattr(self, name)!r}.")

    def updated(self, **given: Any) -> "Settings":
        """These settings with those that are given (not None) in their place.

        Raises:
            ValueError: there is no such setting, or it cannot have this value.
        """
        unknown = given.keys() - {field.name for field in fields(self)}
        if unknown:
            raise ValueError(f"There is no setting named {', '.join(sorted(unknown))}.")
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    @property
    def guidance(self) -> Guidance:
        audio, text = Scale.parse(self.audio_guidance_scale), Scale.parse(self.text_guidance_scale)
        return Guidance(audio, text, self.unconditional_drops, self.guidance_order)

    @property
    def windows(self) -> Windows:
        return Windows(self.window, self.overlap, self.fusion)

    @property
    def branches(self) -> int:
        """How many velocities of a window guidance needs at most."""
        return 1 + sum(scale != OFF for scale in (self.guidance.audio_scale, self.guidance.text_scale))
