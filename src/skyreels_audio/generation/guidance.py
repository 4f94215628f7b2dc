"""Audio and text guidance (eq. 3) with scales that change over the denoising."""

import math
import re
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from skyreels_audio.generation.conditions import Conditions


class Velocity(Protocol):
    """What sampler, guidance, windows, cache and parallelism share: each of them takes one and is one."""

    def __call__(self, latents_BCTHW: Tensor, t: Tensor, conditions: Conditions, /) -> Tensor:
        """dz/dsigma at timestep ``t`` in [0, 1000] (0-dim), shaped as the latents."""
        ...


_NUMBER = r"(\d+(?:\.\d+)?)"
_FORMS = {
    "constant": re.compile(_NUMBER),
    "ramp": re.compile(rf"(cosine|linear):{_NUMBER}(?:→|->){_NUMBER}"),
    "interval": re.compile(rf"interval:{_NUMBER}@{_NUMBER}-{_NUMBER}"),
}


@dataclass(frozen=True)
class Scale:
    """A guidance scale over the progress of the denoising, 0 at its first step and 1 at its last. 1 is no guidance."""

    shape: Literal["constant", "linear", "cosine", "interval"]
    first: float
    last: float
    begin: float = 0.0
    end: float = 1.0

    @classmethod
    def parse(cls, text: "str | float | Scale") -> "Scale":
        """Read "4.5", "linear:1→4.5", "cosine:1->4.5" (half a cosine wave) or "interval:4.5@0.1-0.8" (1 outside).

        Raises:
            ValueError: ``text`` is none of these.
        """
        if isinstance(text, Scale):
            return text
        compact = str(text).replace(" ", "")
        if match := _FORMS["constant"].fullmatch(compact):
            return cls("constant", float(match[1]), float(match[1]))
        if match := _FORMS["ramp"].fullmatch(compact):
            return cls("linear" if match[1] == "linear" else "cosine", float(match[2]), float(match[3]))
        if match := _FORMS["interval"].fullmatch(compact):
            begin, end = float(match[2]), float(match[3])
            if begin <= end <= 1:
                return cls("interval", float(match[1]), float(match[1]), begin, end)
        raise ValueError(
            f"{str(text)!r} is not a guidance scale: write a number such as 4.5, a ramp such as linear:1→4.5 or "
            "cosine:1→4.5, or an interval of the denoising such as interval:4.5@0.1-0.8."
        )

    def __call__(self, progress: float) -> float:
        if self.shape == "interval":
            return self.first if self.begin <= progress <= self.end else 1.0
        if self.shape == "cosine":
            progress = (1 - math.cos(math.pi * progress)) / 2
        return self.first + (self.last - self.first) * progress


class Guidance:
    """Eq. 3, repaired (as printed its coefficients sum to 2):

    v = v(text, audio) + (s_a - 1) · (v(text, audio) - v(text, ∅)) + (s_t - 1) · (v(text, ∅) - v(∅, ∅))

    The scales are s = 1 + ω. A branch that no scale needs is not evaluated. With ``order="text_last"``, text and audio
    change places (v(∅, audio) between the two ends), which public checkpoints of the MultiTalk family were tuned for.

    Args:
        velocity: the model.
        timesteps: those of the run, in order; progress is the place of ``t`` among them.
        audio_scale, text_scale: s_a and s_t.
        unconditional_drops: what v(∅, ∅) goes without besides text and audio: the paper drops the reference too.
        order: the condition that is added last, i.e. dropped first.
    """

    def __init__(
        self,
        velocity: Velocity,
        timesteps: Tensor,
        audio_scale: Scale,
        text_scale: Scale,
        unconditional_drops: tuple[str, ...] = ("text", "audio", "reference"),
        order: Literal["audio_last", "text_last"] = "audio_last",
    ) -> None:
        self.velocity = velocity
        self.timesteps = timesteps
        self.scales = {"audio": audio_scale, "text": text_scale}
        self.unconditional_drops = unconditional_drops
        self.last, self.first = ("audio", "text") if order == "audio_last" else ("text", "audio")

    def __call__(self, latents_BCTHW: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        index = int((self.timesteps - t.to(self.timesteps)).abs().argmin())
        progress = index / max(len(self.timesteps) - 1, 1)
        extra = {name: scale(progress) - 1 for name, scale in self.scales.items()}
        if conditions.audio_BAD is None:
            extra["audio"] = 0.0

        full = self.velocity(latents_BCTHW, t, conditions)
        if not any(extra.values()):
            return full
        if self.last == "audio" and conditions.audio_BAD is None:
            partial = full
        else:
            partial = self.velocity(latents_BCTHW, t, conditions.drop(self.last))
        guided = full + self._ease(extra, self.last, conditions) * (full - partial)
        if extra[self.first]:
            nothing = self.velocity(latents_BCTHW, t, conditions.drop(*self.unconditional_drops))
            guided = guided + self._ease(extra, self.first, conditions) * (partial - nothing)
        return guided

    @staticmethod
    def _ease(extra: dict[str, float], name: str, conditions: Conditions) -> float | Tensor:
        """The weight of one difference; audio's fades with the voice, so that guidance does not exaggerate silence."""
        if name == "text" or conditions.voice_T is None:
            return extra[name]
        return extra[name] * conditions.voice_T.view(-1, 1, 1)


def latent_voice(activity_A: Tensor, audio_positions_A: Tensor, video_positions_T: Tensor) -> Tensor:
    """Voice activity of each latent [T]: the loudest token that is nearer to it than to its neighbours."""
    nearest_A = torch.bucketize(audio_positions_A, (video_positions_T[1:] + video_positions_T[:-1]) / 2)
    silence_T = activity_A.new_zeros(len(video_positions_T))
    return silence_T.scatter_reduce(0, nearest_A, activity_A, reduce="amax")
