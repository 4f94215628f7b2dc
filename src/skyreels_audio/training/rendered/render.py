"""Render, encode and label training clips, shard by shard, so that training reads nothing but tensors.

Shard ``n`` depends on the recipe and on ``n`` alone: an interrupted run goes on where it stopped, workers need not talk
to each other, and a training may begin on the first shards while the others are being made.
"""

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skyreels_audio.media import InputError
from skyreels_audio.models.autoencoder import CausalVideoAutoencoder
from skyreels_audio.synthetic.bank import SpeechBank, speech_bank
from skyreels_audio.synthetic.speech import augment
from skyreels_audio.synthetic.visemes import VISEME_CHANNELS, loudness
from skyreels_audio.training.rendered.clips import AUDIO_MARGIN, Clips
from skyreels_audio.training.rendered.recipe import ClipShare, ClipsRecipe
from skyreels_audio.training.rendered.scenes import Scene, posed, scene_of

CLIPS_PER_UTTERANCE = 8
CURVES_PER_FRAME = 4  # viseme curves are at 100 Hz, frames at 25


@dataclass(frozen=True)
class Speech:
    """A stretch of speech as long as a clip."""

    curves: np.ndarray  # [4F, 9] at 100 Hz
    loudness: np.ndarray  # [4F]
    audio_AD: Tensor
    visemes_AV: Tensor


def precompute(recipe: ClipsRecipe) -> None:
    """Make what is missing: the speech bank, then train and test shards. Returns at once when nothing is."""
    from tqdm import tqdm

    data = recipe.data
    counts = {"test": data.held_out_shards, "portraits": data.portrait_shards, "train": data.shards}
    jobs = [(split, n) for split, count in counts.items() for n in range(count)]
    missing = [job for job in jobs if not shard_path(recipe, *job).exists()]
    if not missing:
        return
    speech_bank(recipe.speech.bank, recipe.speech.hours, recipe.seed, recipe.data.workers, recipe.data.videos)
    with ProcessPoolExecutor(recipe.data.workers, initializer=_single_thread) as pool:
        futures = [
            pool.submit(write_portraits, recipe, n)
            if split == "portraits"
            else pool.submit(write_shard, recipe, split, n)
            for split, n in missing
        ]
        for future in tqdm(as_completed(futures), total=len(missing), desc="clips", unit="shard"):
            future.result()


def shard_path(recipe: ClipsRecipe, split: str, index: int) -> Path:
    return recipe.data.folder / split / f"shard-{index:05d}.safetensors"


def _single_thread() -> None:
    os.environ["LP_NUM_THREADS"] = "1"  # Mesa's rasteriser
    torch.set_num_threads(1)


def write_shard(recipe: ClipsRecipe, split: str, index: int) -> None:
    """Render ``clips_per_shard`` clips of this split and save them as one file."""
    data = recipe.data
    rng = np.random.default_rng([recipe.seed, index, ("train", "test").index(split)])
    bank = _bank(recipe.speech.bank, split)
    shares = np.array([kind.share for kind in data.kinds])
    clips: list[Clips] = []
    listener = _Listener.load(recipe.speech.whisper, recipe.speech.layers)
    vae = _autoencoder(recipe.autoencoder)
    heard: tuple[np.ndarray, np.ndarray, Tensor] | None = None
    while len(clips) < data.clips_per_shard:
        if len(clips) % CLIPS_PER_UTTERANCE == 0:
            heard = hear(recipe, bank, int(rng.integers(len(bank))), listener)
        kind: ClipShare = data.kinds[int(rng.choice(len(shares), p=shares / shares.sum()))]
        seed = int(rng.integers(2**31))
        assert heard is not None
        scene = scene_of(kind, recipe, split, seed, lambda frames, seed, part=heard: cut(*part, frames, seed), listener)
        if scene is not None:
            clips.append(encode_scene(scene, vae))
    path = shard_path(recipe, split, index)
    path.parent.mkdir(parents=True, exist_ok=True)
    Clips.concatenate(clips).save(path)


def write_portraits(recipe: ClipsRecipe, index: int) -> None:
    """Draw ``portraits_per_shard`` people who say nothing and save them as clips of one frame."""
    rng = np.random.default_rng([recipe.seed, index, 2])
    tokens = 2 + 2 * AUDIO_MARGIN
    width = _Listener.load(recipe.speech.whisper, recipe.speech.layers).width
    curves = np.zeros((CURVES_PER_FRAME, len(VISEME_CHANNELS)), np.float32)
    silence = Speech(curves, curves[:, 0], torch.zeros(tokens, width), torch.zeros(tokens, len(VISEME_CHANNELS)))
    vae = _autoencoder(recipe.autoencoder)
    seeds = rng.integers(2**31, size=recipe.data.portraits_per_shard)
    clips = [encode_scene(posed(recipe, "train", int(seed), silence), vae) for seed in seeds]
    path = shard_path(recipe, "portraits", index)
    path.parent.mkdir(parents=True, exist_ok=True)
    Clips.concatenate(clips).save(path)


def hear(
    recipe: ClipsRecipe, bank: SpeechBank, row: int, listener: "_Listener"
) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """Viseme curves, loudness and audio features of an utterance as some room and microphone heard it.

    Features are kept beside the bank: Whisper costs more than rendering the clips that speak with its tokens.
    """
    utterance, curves = bank[row]
    path, number, _ = bank.rows[row]
    cache = recipe.speech.bank / "features" / f"{path.stem}-{number:02d}.npy"
    if cache.exists():
        features = torch.from_numpy(np.load(cache)).float()
    else:
        features = listener(augment(utterance.waveform, np.random.default_rng([recipe.seed, int(path.stem), number])))
        cache.parent.mkdir(exist_ok=True)
        partial = cache.with_suffix(f".{os.getpid()}.partial.npy")
        np.save(partial, features.half().numpy())
        partial.rename(cache)
    return curves, loudness(utterance.waveform), features


@lru_cache(maxsize=2)
def _bank(path: Path, split: str) -> SpeechBank:
    return SpeechBank(path, split)


@lru_cache(maxsize=1)
def _autoencoder(path: Path) -> CausalVideoAutoencoder:
    """Raises InputError: the folder holds another autoencoder; its weights would be left out, and random ones used."""
    try:
        config: Any = CausalVideoAutoencoder.load_config(path)
        given = config["_class_name"]
    except (OSError, KeyError) as error:
        raise InputError(f"{path} holds no autoencoder: its config.json is missing or names no class.") from error
    if given != CausalVideoAutoencoder.__name__:
        raise InputError(f"{path} holds {given}; rendered clips are encoded by {CausalVideoAutoencoder.__name__}.")
    return CausalVideoAutoencoder.from_pretrained(path).eval()


class _Listener:
    """Whisper, trimmed: waveform → audio features at 50 Hz."""

    def __init__(self, path: Path, layers: tuple[int, ...]) -> None:
        from transformers import WhisperFeatureExtractor
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        from skyreels_audio.models.audio_features import trim_whisper

        self.extractor = WhisperFeatureExtractor.from_pretrained(path)
        self.encoder = trim_whisper(WhisperEncoder.from_pretrained(path, dtype=torch.bfloat16), max(layers))
        self.layers = layers
        self.width = self.encoder.config.d_model

    @staticmethod
    @lru_cache(maxsize=1)
    def load(path: Path, layers: tuple[int, ...]) -> "_Listener":
        return _Listener(path, layers)

    def __call__(self, waveform: np.ndarray) -> Tensor:
        from skyreels_audio.models.audio_features import encode_whisper

        return encode_whisper(waveform, self.extractor, self.encoder, self.layers)


def cut(curves: np.ndarray, loud: np.ndarray, features_AD: Tensor, frames: int, seed: int) -> Speech:
    """A random stretch of ``frames`` frames of an utterance, its audio with a margin on both sides."""
    rng = np.random.default_rng(seed)
    first = int(rng.integers(max(len(curves) // CURVES_PER_FRAME - frames, 1)))
    window = slice(CURVES_PER_FRAME * first, CURVES_PER_FRAME * (first + frames))
    tokens = np.arange(2 * first - AUDIO_MARGIN, 2 * (first + frames) + AUDIO_MARGIN)
    inside = torch.from_numpy((tokens >= 0) & (tokens < len(features_AD)))
    # Before the beginning and after the end there is silence: the nearest token of an utterance that begins in silence.
    audio = features_AD[torch.from_numpy(tokens.clip(0, len(features_AD) - 1))]
    at_token_times = (2 * tokens + 1).clip(0, len(curves) - 1)
    visemes = torch.from_numpy(curves[at_token_times]) * inside[:, None]
    return Speech(curves[window], loud[window], audio, visemes)


@torch.no_grad()
def encode_scene(scene: Scene, vae: Any) -> Clips:
    """Latents and labels of one rendered scene, as a batch of one."""

    def latents_of(frames_FHWC: np.ndarray) -> Tensor:
        video = torch.from_numpy(frames_FHWC).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        return vae.encode(video).latent_dist.mode() / scale

    scale = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    stills = torch.stack([latents_of(still[None])[0, :, 0] for still in scene.stills_RHWC])
    lips = torch.from_numpy(scene.lip_mask_FHW).float()[None]
    lips = F.avg_pool3d(torch.cat([lips[:, :1].expand(-1, 3, -1, -1), lips], 1), (4, 16, 16))
    return Clips(
        latents_NCTHW=latents_of(scene.frames_FHWC).half(),
        stills_NRCHW=stills[None].half(),
        lips_NTHW=lips.round().to(torch.uint8),
        audio_NAD=scene.speech.audio_AD[None].half(),
        visemes_NAV=scene.speech.visemes_AV[None].half(),
        captions=(scene.caption,),
        kinds=(scene.kind,),
    )
