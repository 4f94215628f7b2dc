"""Recipes of the small model: its decoder, the transformer that moves it, and the portraits that words make."""

from pathlib import Path
from typing import Any, Literal

from skyreels_audio.training.options import Optimisation, Strict


class SpeechCorpus(Strict):
    bank: Path  # where the speech corpus is made, or found
    hours: float = 2.0
    recordings: Path | None = None  # GRID clips, whose voice speaks too
    whisper: Path | None = None  # the encoder that listens, where audio is read
    layers: tuple[int, ...] = (3, 4)


class MotionRecipe(Strict):
    """Train the motion autoencoder's decoder on pairs of frames."""

    task: Literal["motion"]
    output: Path
    seed: int = 0
    speech: SpeechCorpus
    photographs: Path | None = None  # folder of portraits, of which those with closed lips are animated
    pairs: Path  # folder of pair clips, `train` and `test`
    clips: int = 1500
    workers: int = 1
    model: dict[str, Any] = {}  # of MotionAutoencoder
    initial: Path | None = None  # an exported autoencoder to go on from
    adversarial_from: int = 7000  # step from which a discriminator judges mouths
    adversarial_weight: float = 0.03
    optimisation: Optimisation


class SpeechMotionRecipe(Strict):
    """Train the transformer and the text encoder on codes of motion, computed from speech."""

    task: Literal["speech-motion"]
    output: Path
    seed: int = 0
    speech: SpeechCorpus
    autoencoder: Path  # an exported motion autoencoder; only its configuration is read
    transformer: dict[str, Any]  # of SkyReelsAudioTransformer3DModel
    text_encoder: dict[str, Any]  # of UMT5Config
    initial: Path | None = None
    latent_frames: int = 25
    motions: int = 3  # ways in which each utterance is performed
    drop_audio: float = 0.15
    drop_text: float = 0.4  # and then the motion is the default one, so that an empty prompt means it
    music: int = 48  # stretches of music in which nobody speaks
    sigma_shift: float = 3.0
    sigma_one: float = 0.2
    optimisation: Optimisation


class PortraitData(Strict):
    """Drawn portraits; those that are missing in the folder are drawn when a run begins."""

    folder: Path
    portraits: int = 1536
    held_out: int = 32
    size: int = 256
    taef2: Path  # folder of TAEF2's encoder.safetensors and decoder.safetensors


class PortraitAutoencoderRecipe(Strict):
    """Train the painter of portraits on drawn ones: on TAEF2's latents, then with its decoder on pixels."""

    task: Literal["portrait-autoencoder"]
    output: Path
    seed: int = 0
    data: PortraitData
    model: dict[str, Any] = {}  # of PortraitAutoencoder
    initial: Path | None = None  # an exported autoencoder to go on from
    pixels_from: int  # step from which losses are on pixels
    pixel_batch: int = 2
    optimisation: Optimisation


class PortraitRecipe(Strict):
    """Train a transformer and a text encoder on words → codes of portraits."""

    task: Literal["portrait"]
    output: Path
    seed: int = 0
    codes: Path  # file that keeps the sampled codes
    portraits: int = 16384
    autoencoder: Path  # an exported portrait autoencoder; only its configuration is read
    transformer: dict[str, Any]  # of SkyReelsAudioTransformer3DModel
    text_encoder: dict[str, Any]  # of UMT5Config
    initial: Path | None = None  # folder with portrait_transformer and portrait_text_encoder to go on from
    initial_text_encoder: Path | None = None  # or with a text encoder alone
    drop_text: float = 0.1
    sigma_shift: float = 2.0
    sigma_one: float = 0.3
    optimisation: Optimisation
