"""What a video is conditioned on, as one value.

Legend: B batch, C latent channel, T latent frame, H W latent grid, S text token, A audio token, N image token,
D width of an encoder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


class Part(NamedTuple):
    """Which part of a timeline's conditions: a span of latents (start, stop), None for all, and what was dropped."""

    span: tuple[int, int] | None = None
    drops: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Conditions:
    """Everything the transformer sees besides the noisy latents and the time.

    Attributes:
        text_BSD, null_text_BSD: the encoded prompt, and what stands for its absence (the encoded negative prompt).
        audio_BAD, audio_positions_A: audio tokens and their positions on the clock (``models.rope``);
            None: no audio branch.
        reference_BCTHW: normalised latents of the given pixels. Image animation needs only one window of them: when the
            reference is shorter than the timeline, every window sees it from its beginning, as training clips do.
        known_B4THW: 1 where the reference is given, 0 where pixels are to be invented; four time-folded channels.
        video_positions_T: positions of the latent frames on the clock.
        image_BND: CLIP tokens of the reference image, for backbones that read them.
        still_BCTHW, still_known_B4THW: reference and mask of a video's first frame alone, what stands for its absence
            in the later steps of hybrid inference (eq. 4); None: there is nothing else to see than the reference.
        voice_activity_T: of each latent, in [0, 1], on the CPU; audio guidance fades with it. None: full guidance.
        audio_reach: how far beyond a window's own time its audio reaches, in token units (20 ms).
        parts: what this is of the timeline, an item for each part of a batch: caches keep their state by it.
    """

    text_BSD: Tensor
    null_text_BSD: Tensor
    audio_BAD: Tensor | None
    audio_positions_A: Tensor | None
    reference_BCTHW: Tensor
    known_B4THW: Tensor
    video_positions_T: Tensor
    image_BND: Tensor | None = None
    still_BCTHW: Tensor | None = None
    still_known_B4THW: Tensor | None = None
    voice_activity_T: Tensor | None = None
    audio_reach: float = 0.0
    parts: tuple[Part, ...] = (Part(),)

    def drop(self, *names: str, rows_B: Tensor | None = None) -> "Conditions":
        """Null the conditions ``names`` out of "text", "audio", "video", "reference"; only in ``rows_B`` if given.

        Text becomes the null text, audio features become zeros, a video becomes its first frame, the reference becomes
        zeros of which nothing is known (its CLIP tokens too). Training nulls with this too, so that the model meets
        what it knows.

        Args:
            rows_B: which samples of a batch, bool [B].
        """
        still = {} if self.still_BCTHW is None else {"reference_BCTHW": self.still_BCTHW}
        null_of = {
            "text": {"text_BSD": self.null_text_BSD},
            "audio": {"audio_BAD": _zeros(self.audio_BAD)},
            "video": still | ({"known_B4THW": self.still_known_B4THW} if still else {}),
            "reference": {
                "reference_BCTHW": _zeros(self.reference_BCTHW),
                "known_B4THW": _zeros(self.known_B4THW),
                "image_BND": _zeros(self.image_BND),
            },
        }
        unknown = set(names) - null_of.keys()
        assert not unknown, f"no such condition: {sorted(unknown)}"
        nulls = {field: null for name in null_of if name in names for field, null in null_of[name].items()}
        if rows_B is not None:
            nulls = {field: _select(rows_B, null, getattr(self, field)) for field, null in nulls.items()}
        parts = tuple(part._replace(drops=part.drops | frozenset(names)) for part in self.parts)
        return replace(self, **nulls, parts=parts)

    def window(self, start: int, stop: int) -> "Conditions":
        """The conditions of latents ``start`` … ``stop - 1``, whose first one carries the reference of the timeline.

        The network was trained on clips that begin with the reference frame, so each window begins with it too
        (latent 0 and its mask); what it makes of that latent has no weight in the fusion of windows. Audio is cut to
        what the window's own latents cover, plus ``audio_reach`` on either side.
        """
        positions = self.video_positions_T[start:stop]
        # A latent covers the time half-way to its neighbours.
        half = 0.0 if len(positions) < 2 else float(positions[-1] - positions[-2]) / 2
        audio, audio_positions = self.audio_BAD, self.audio_positions_A
        if audio is not None and audio_positions is not None:
            reach = half + self.audio_reach
            edges = torch.stack([positions[0] - reach, positions[-1] + reach]).to(audio_positions)
            first, last = torch.searchsorted(audio_positions, edges).tolist()
            audio, audio_positions = audio[:, first:last], audio_positions[first:last]

        def from_reference(x_BCTHW: Tensor) -> Tensor:
            timeline, stationary = len(self.video_positions_T), x_BCTHW.shape[2]
            assert timeline == stationary or stop - start <= stationary, "a short reference must fill a window"
            if stationary < timeline or start == 0:
                return x_BCTHW[:, :, : stop - start]
            return torch.cat([x_BCTHW[:, :, :1], x_BCTHW[:, :, start + 1 : stop]], dim=2)

        activity_T = self.voice_activity_T
        return replace(
            self._with_pictures(from_reference),
            audio_BAD=audio,
            audio_positions_A=audio_positions,
            video_positions_T=positions,
            voice_activity_T=None if activity_T is None else activity_T[start:stop],
            parts=tuple(part._replace(span=(start, stop)) for part in self.parts),
        )

    def _with_pictures(self, change: Callable[[Tensor], Tensor]) -> "Conditions":
        names = ("reference_BCTHW", "known_B4THW", "still_BCTHW", "still_known_B4THW")
        return replace(self, **{name: change(x) for name in names if (x := getattr(self, name)) is not None})


def stack(conditions: Sequence[Conditions]) -> Conditions:
    """Conditions of equal shapes as one batch for the transformer: positions are per sample, and parts are of each."""
    first = conditions[0]
    if len(conditions) == 1:
        return first

    def cat(name: str) -> Tensor | None:
        given = [getattr(each, name) for each in conditions]
        if given[0] is None:
            return None
        if name.endswith(("_T", "_A")):
            given = [positions.expand(len(first.text_BSD), -1) for positions in given]
        return torch.cat(given)

    names = ("text_BSD", "null_text_BSD", "audio_BAD", "reference_BCTHW", "known_B4THW", "image_BND")
    joined = {name: cat(name) for name in (*names, "audio_positions_A", "video_positions_T")}
    parts = tuple(part for each in conditions for part in each.parts)
    return replace(first, **joined, still_BCTHW=None, still_known_B4THW=None, voice_activity_T=None, parts=parts)


def _zeros(x: Tensor | None) -> Tensor | None:
    return None if x is None else torch.zeros_like(x)


def _select(rows_B: Tensor, null: Tensor | None, given: Tensor | None) -> Tensor | None:
    if null is None or given is None:
        return given
    return torch.where(rows_B.view(-1, *[1] * (given.ndim - 1)).to(given.device), null, given)
