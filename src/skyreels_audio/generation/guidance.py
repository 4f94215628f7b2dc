"""Audio and text guidance (eq. 3) with scales that change over the denoising."""

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from skyreels_audio.generation.conditions import Conditions

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


OFF = Scale("constant", 1.0, 1.0)


@dataclass(frozen=True)
class Guidance:
    """Eq. 3, repaired (as printed its coefficients sum to 2):

    v = v(text, audio) + (s_a - 1) · (v(text, audio) - v(text, ∅)) + (s_t - 1) · (v(text, ∅) - v(∅, ∅))

    The scales are s = 1 + ω. It is linear in the velocities, so guidance is a weight for each of them. With
    ``order="text_last"``, text and audio change places (v(∅, audio) between the two ends), which public checkpoints of
    the MultiTalk family were tuned for.

    Attributes:
        audio_scale, text_scale: s_a and s_t.
        unconditional_drops: what v(∅, ∅) goes without besides text and audio: the paper drops the reference too.
        order: the condition that is added last, i.e. dropped first.
    """

    audio_scale: Scale = OFF
    text_scale: Scale = OFF
    unconditional_drops: tuple[str, ...] = ("text", "audio", "reference")
    order: Literal["audio_last", "text_last"] = "audio_last"

    def branches(self, progress: float, conditions: Conditions) -> dict[frozenset[str], Tensor]:
        """What to drop for each velocity, and its weight on every latent of the timeline [T]; branches of no weight
        are left out.

        Where there is no voice audio guidance fades, so that it does not exaggerate silence.

        Args:
            progress: of the denoising, 0 at its first step and 1 at its last.
            conditions: of the timeline. What they already go without is not dropped again.
        """
        audible_T = conditions.voice_activity_T
        audible_T = torch.ones(len(conditions.video_positions_T)) if audible_T is None else audible_T
        absent = conditions.parts[0].drops | (frozenset() if conditions.audio_BAD is not None else {"audio"})
        audio_T = 1 + (self.audio_scale(progress) - 1) * audible_T
        text_T = torch.full_like(audio_T, self.text_scale(progress))
        branches: dict[frozenset[str], Tensor] = {}
        for drops, weight_T in self.weights(torch.ones_like(audio_T) if "audio" in absent else audio_T, text_T).items():
            branches[drops - absent] = branches.get(drops - absent, 0) + weight_T
        return {drops: weight_T for drops, weight_T in branches.items() if weight_T.any()}

    def weights(self, audio: Any, text: Any) -> dict[frozenset[str], Any]:
        """Eq. 3 sorted by velocities: the weight of each for scales that are numbers or tensors."""
        last, first = (audio, text) if self.order == "audio_last" else (text, audio)
        partial = frozenset({"audio" if self.order == "audio_last" else "text"})
        return {frozenset(): last, partial: first - last, frozenset(self.unconditional_drops): 1 - first}

    def branches_change(self, steps: int) -> bool:
        """Whether some velocity is needed at some steps of a run and not at others."""
        patterns = set()
        for progress in (step / max(steps - 1, 1) for step in range(steps)):
            audio, text = self.audio_scale(progress), self.text_scale(progress)
            weights = [self.weights(scale, text).values() for scale in (audio, 1.0)]  # with a voice, and in silence
            patterns.add(tuple(weight != 0 for each in weights for weight in each))
        return len(patterns) > 1


def latent_voice_activity(activity_A: Tensor, audio_positions_A: Tensor, video_positions_T: Tensor) -> Tensor:
    """Voice activity of each latent [T]: the loudest token that is nearer to it than to its neighbours."""
    nearest_A = torch.bucketize(audio_positions_A, (video_positions_T[1:] + video_positions_T[:-1]) / 2)
    silence_T = activity_A.new_zeros(len(video_positions_T))
    return silence_T.scatter_reduce(0, nearest_A, activity_A, reduce="amax")
