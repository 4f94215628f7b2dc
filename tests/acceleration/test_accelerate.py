"""What makes a run cheaper, put together around a whole pipeline of random weights, does not change the video."""

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch

from skyreels_audio.acceleration.accelerate import Acceleration, Cache, accelerated
from skyreels_audio.acceleration.offload import apply_memory_mode
from skyreels_audio.bundled import bundled
from skyreels_audio.cli.door import read_settings
from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
from skyreels_audio.generation.settings import Settings

STEPS = 6
KNOWN = {"teacache_coefficients": (0.0, 0.0, 0.0, 1.0, 0.0), "magcache_ratios": (1.0,) * STEPS}


@pytest.fixture
def pipe(pipeline: SkyReelsAudioPipeline) -> Iterator[SkyReelsAudioPipeline]:
    """One of its own, for what cannot be taken off again."""
    yield deepcopy(pipeline)


def video(pipe: Any, acceleration: Acceleration | None, portrait: np.ndarray | None, voice: np.ndarray) -> np.ndarray:
    inputs = {"image": portrait, "audio": voice, "prompt": "a voice", "num_inference_steps": STEPS}
    generator = torch.Generator().manual_seed(0)
    if acceleration is None:
        return np.stack(list(pipe(**inputs, generator=generator).frames)).astype(int)
    with accelerated(pipe, acceleration, replace(pipe.settings(num_inference_steps=STEPS), **KNOWN)):
        return np.stack(list(pipe(**inputs, generator=generator).frames)).astype(int)


EXACT = {
    "nothing asked for": Acceleration(),
    "a cache that skips nothing": Acceleration("teacache", threshold=0.0),
    "little memory": Acceleration("teacache", threshold=0.0, spare_memory=True),
}


@pytest.mark.parametrize("case", EXACT)
def test_what_skips_nothing_changes_nothing(case, pipeline, portrait, voice):
    expected = video(pipeline, None, portrait, voice)
    assert (video(pipeline, EXACT[case], portrait, voice) == expected).all()
    assert (video(pipeline, None, portrait, voice) == expected).all()  # it leaves no trace


@pytest.mark.parametrize("cache", ["teacache", "magcache", "taylorseer"])
def test_each_cache_skips_blocks_and_leaves_no_trace(cache, pipeline, portrait, voice):
    runs = []
    watch = pipeline.transformer.blocks[1].ffn.register_forward_pre_hook(lambda *_: runs.append(cache))
    expected = video(pipeline, None, portrait, voice)
    uncached = len(runs)
    cached = video(pipeline, Acceleration(cache, threshold=100.0), portrait, voice)
    watch.remove()
    assert (cached != expected).any()
    assert len(runs) - uncached < uncached or cache == "taylorseer"  # which skips attention alone
    assert (video(pipeline, None, portrait, voice) == expected).all()


@pytest.mark.parametrize("cache", ["none", "teacache"])
def test_compiled_blocks_make_the_same_video(cache, pipe, portrait, voice):
    expected = video(pipe, Acceleration(cache), portrait, voice)
    assert abs(video(pipe, Acceleration(cache, compile=True), portrait, voice) - expected).max() <= 1


@pytest.mark.parametrize("cache", ["none", "teacache"])
def test_eight_bit_blocks_go_with_a_cache(cache, pipe, portrait, voice):
    apply_memory_mode(pipe, "low", "cpu")
    expected = video(pipe, None, portrait, voice)
    assert (
        abs(video(pipe, Acceleration(cache, threshold=0.0, spare_memory=True), portrait, voice) - expected).max() <= 1
    )


WIDE = SimpleNamespace(num_attention_heads=40, attention_head_dim=128, in_channels=36, out_channels=16)
NARROW = SimpleNamespace(num_attention_heads=4, attention_head_dim=64, in_channels=36, out_channels=16)


def test_the_checkpoints_own_coefficients_go_before_the_published_ones():
    own = Settings(teacache_coefficients=(1.0, 0.0))
    assert Acceleration("teacache").coefficients(own, WIDE) == (1.0, 0.0)
    assert len(Acceleration("teacache").coefficients(Settings(), WIDE)) == 5
    Acceleration("teacache").check(own, NARROW, ranks=1)


@pytest.mark.parametrize(
    ("acceleration", "settings", "ranks", "sentence"),
    [
        (Acceleration("teacache"), Settings(), 1, "benchmark --fit-teacache"),
        (Acceleration("magcache"), Settings(), 1, "benchmark --fit-teacache"),
        (
            Acceleration("taylorseer"),
            Settings(audio_guidance_scale="interval:4@0.1-0.8", text_guidance_scale=1),
            1,
            "come and go",
        ),
        (Acceleration("taylorseer"), Settings(text_guidance_scale="linear:1→4"), 1, "come and go"),
        (Acceleration("taylorseer", compile=True), Settings(), 1, "do not compile"),
        (Acceleration(parallel="ulysses=2"), Settings(), 1, "1 were started"),
        (Acceleration(parallel="ulysses=3"), Settings(), 3, "4 attention heads"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(acceleration, settings, ranks, sentence):
    with pytest.raises(ValueError, match=sentence):
        acceleration.check(settings, NARROW, ranks)


def test_guidance_that_changes_but_never_ends_suits_every_cache():
    Acceleration("taylorseer").check(Settings(audio_guidance_scale="linear:2→4"), NARROW, ranks=1)


@pytest.mark.parametrize("cache", get_args(Cache))
def test_the_checkpoint_that_ships_knows_its_caches(cache: Cache) -> None:
    folder = bundled("weights/tiny")
    config = SimpleNamespace(**json.loads((folder / "transformer" / "config.json").read_text()))
    Acceleration(cache).check(read_settings(folder), config, 1)
