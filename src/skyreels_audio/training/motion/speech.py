"""Training of the small transformer by flow matching: voice and words → codes of motion, computed as they are needed.

Nothing is rendered: what a head does while it speaks follows from the speech (``synthetic.codes``), so every utterance
is performed in several ways, and heard in several rooms.

Shape letters: B batch, F pixel frame, N channel of the code, C latent channel, T latent frame, A audio token.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel

from skyreels_audio.media import InputError
from skyreels_audio.models.audio_features import encode_whisper, trim_whisper
from skyreels_audio.models.motion_autoencoder import CHANNELS, REST, pack, unpack
from skyreels_audio.models.rope import FRAMES_PER_LATENT, TOKENS_PER_SECOND, latent_positions, token_positions
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel
from skyreels_audio.synthetic.bank import SpeechBank
from skyreels_audio.synthetic.captions import motion_prompt
from skyreels_audio.synthetic.codes import speech_code
from skyreels_audio.synthetic.motion import DIRECTIONS, EXPRESSIONS, FPS, GESTURES, HEADS, Manner
from skyreels_audio.synthetic.music import music
from skyreels_audio.synthetic.speech import augment
from skyreels_audio.synthetic.visemes import VISEME_CHANNELS, loudness
from skyreels_audio.synthetic.words import word_tokenizer
from skyreels_audio.training.loss import clean_loss, interpolate, times
from skyreels_audio.training.motion.listen import Listener
from skyreels_audio.training.motion.recipe import SpeechMotionRecipe

DEFAULT = Manner(head="slight", blinks=True, upper_face=True)
"""How somebody speaks of whom the prompt says nothing."""
TEXT_TOKENS = 64  # of a prompt
WORDS = (*EXPRESSIONS, *HEADS, *GESTURES, *DIRECTIONS)  # what a prompt can ask for
READ = 32  # prompts a step from which the text encoder must tell them
MARGIN = 16  # audio tokens heard before and after a clip
FROM_START = 0.2  # share of clips that begin where their utterance does
HEAD_IMPORTANCE = 0.6  # of the head's channels, whose deviation is in radians, over the mean of all
# Weights of where the head is in the mean of a window, of how it moves about that, and of its steps between frames.
# Without the first two, directions and nods are a hundredth of the loss; without the last every latent stood elsewhere.
POSTURE, SWAY, STEADY = 1.0, 3.0, 5.0
IMPORTANCE = 1.0  # a channel's error counts by its deviation to this power: jaws move more than tongues
HEAD = torch.tensor([name in CHANNELS[-5:] for name in CHANNELS])
LEAST = 0.04  # deviation that a channel is normalised by at least


@dataclass(frozen=True)
class Performance:
    """An utterance as it is heard and as it is performed in several manners."""

    audio_AD: Tensor  # float16
    codes: tuple[Tensor, ...]  # float16 [F, N] each
    manners: tuple[Manner, ...]


@dataclass(frozen=True)
class Sample:
    clean_BCT11: Tensor
    audio_BAD: Tensor
    captions: tuple[str, ...]
    video_positions_T: Tensor
    audio_positions_A: Tensor


def sample_manner(rng: np.random.Generator) -> Manner:
    expression = str(rng.choice(list(EXPRESSIONS), p=[0.4, 0.25, 0.12, 0.12, 0.11]))
    head = str(rng.choice(["still", "slight", "lively"], p=[0.15, 0.65, 0.2]))
    gesture = str(rng.choice([*GESTURES, *GESTURES, *DIRECTIONS])) if head != "still" and rng.random() < 0.7 else None
    return Manner(expression, head, gesture, blinks=True, upper_face=head != "still")


class Performances:
    """The utterances of one split of a speech corpus, and music that nobody speaks in.

    ``listener``: who hears how far the lips of those part who were not filmed; by default fitted on those who were.
    """

    def __init__(self, recipe: SpeechMotionRecipe, split: str, listener: Listener | None = None) -> None:
        corpus = SpeechBank(recipe.speech.bank, split)
        self.recipe, self.split, self.items = recipe, split, []
        draws = [np.random.default_rng([recipe.seed, row, split == "test"]) for row in range(len(corpus))]
        heard, filmed = [], [row.get("filmed", False) for _, _, row in corpus.rows]
        for row, rng in enumerate(draws):
            name = f"{corpus.rows[row][0].stem}-{corpus.rows[row][1]:02d}"
            heard.append(self._features(name, augment(corpus[row][0].waveform, rng)))
        if listener is None and any(filmed):
            listener = Listener([(heard[row], corpus[row][1]) for row, seen in enumerate(filmed) if seen])
        self.listener = listener
        for row, rng in enumerate(draws):
            utterance, curves = corpus[row]
            if listener is not None and not filmed[row]:
                curves = listener(heard[row], curves)
            self._add(heard[row], curves, loudness(utterance.waveform), rng)
        for number in range(recipe.music if split == "train" else 4):
            rng = np.random.default_rng([recipe.seed, number, 2 + (split == "test")])
            sound = music(20.0, rng) * rng.uniform(0.1, 0.9)
            still = np.zeros((2000, len(VISEME_CHANNELS)), np.float32)
            features = self._features(f"music-{split}-{number:03d}", sound)
            self._add(features, still, np.zeros(2000, np.float32), rng)

    def _add(self, audio_AD: Tensor, curves: np.ndarray, loud: np.ndarray, rng: np.random.Generator) -> None:
        manners = (DEFAULT, *(sample_manner(rng) for _ in range(self.recipe.motions - 1)))
        codes = tuple(torch.from_numpy(speech_code(curves, loud, manner, rng)).half() for manner in manners)
        self.items.append(Performance(audio_AD, codes, manners))

    def _features(self, name: str, waveform: np.ndarray) -> Tensor:
        """Whisper's features, kept beside the corpus: they cost more than all the rest."""
        path = self.recipe.speech.bank / "features" / f"{name}.npy"
        if not path.exists():
            whisper = self.recipe.speech.whisper
            if whisper is None or not (whisper / "config.json").is_file():
                raise InputError(f"{whisper}: no Whisper encoder lies there (speech.whisper of the recipe).")
            extractor, encoder = _whisper(whisper, self.recipe.speech.layers)
            features = encode_whisper(waveform, extractor, encoder, self.recipe.speech.layers)
            path.parent.mkdir(exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}.partial.npy")
            np.save(partial, features.half().numpy())
            partial.rename(path)
        return torch.from_numpy(np.load(path))

    def draw(self, count: int, generator: torch.Generator) -> Sample:
        """Random windows. The first latent is always the picture at rest, as every window's is in use."""
        latents = self.recipe.latent_frames
        frames = FRAMES_PER_LATENT * (latents - 1) + 1
        rng = np.random.default_rng(int(torch.randint(1 << 62, (), generator=generator)))
        parts = []
        while len(parts) < count:
            item = self.items[int(rng.integers(len(self.items)))]
            if len(item.codes[0]) < frames:
                continue
            start = 0 if rng.random() < FROM_START else int(rng.integers(len(item.codes[0]) - frames + 1))
            parts.append(self.cut(item, start, frames, rng))
        codes, audio, captions = zip(*parts, strict=True)
        return Sample(
            clean_BCT11=pack(torch.stack(codes)),
            audio_BAD=torch.stack(audio),
            captions=captions,
            video_positions_T=latent_positions(latents),
            audio_positions_A=token_positions(audio[0].shape[0]) - MARGIN,
        )

    def cut(self, item: Performance, start: int, frames: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, str]:
        """Codes [F, N], audio with its margin and words of one window; no words mean the default manner."""
        recipe, silent = self.recipe, rng.random() < self.recipe.drop_text
        which = 0 if silent else int(rng.integers(len(item.codes)))
        codes_FN = item.codes[which][start : start + frames].float()
        codes_FN[0] = torch.tensor(REST)
        per_frame = TOKENS_PER_SECOND // FPS
        tokens = np.arange(per_frame * start - MARGIN, per_frame * (start + frames) + MARGIN)
        audio = item.audio_AD[torch.from_numpy(tokens.clip(0, len(item.audio_AD) - 1))].float()
        if rng.random() < recipe.drop_audio:
            audio = torch.zeros_like(audio)
        words = "" if silent else motion_prompt(item.manners[which], rng)
        return codes_FN, audio, words


_loaded: dict[tuple, Any] = {}


def _whisper(path: Path, layers: tuple[int, ...]) -> tuple[Any, Any]:
    if (path, layers) not in _loaded:
        from transformers import WhisperFeatureExtractor
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        encoder = trim_whisper(WhisperEncoder.from_pretrained(path, dtype=torch.bfloat16), max(layers))
        _loaded[path, layers] = WhisperFeatureExtractor.from_pretrained(path), encoder
    return _loaded[path, layers]


class SpeechMotionTask:
    """Eq. 1 on codes of motion."""

    def __init__(self, recipe: SpeechMotionRecipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.train = Performances(recipe, "train")
        self.held_out = Performances(recipe, "test", self.train.listener)
        self.mean_C, self.std_C = self._statistics()
        self.weight_C = self.std_C**IMPORTANCE / (self.std_C**IMPORTANCE).mean()
        self.weight_C[HEAD.repeat(FRAMES_PER_LATENT)] = HEAD_IMPORTANCE
        self.tokenizer = word_tokenizer()
        transformer = SkyReelsAudioTransformer3DModel(**recipe.transformer)
        transformer.initialise_audio_alignment(output_std=0.02)
        text = UMT5EncoderModel(UMT5Config(vocab_size=len(self.tokenizer), dropout_rate=0.0, **recipe.text_encoder))
        initialise_neighbours(text)
        if recipe.initial is not None:
            transformer = SkyReelsAudioTransformer3DModel.from_pretrained(recipe.initial / "transformer")
            text = UMT5EncoderModel.from_pretrained(recipe.initial / "text_encoder", torch_dtype=torch.float32)
        reader = nn.Linear(text.config.d_model, len(WORDS))
        modules = {"transformer": transformer, "text_encoder": text, "reader": reader}
        self.modules = nn.ModuleDict(modules).to(device)
        if device.type == "cpu":
            torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
            transformer.set_attention_backend("_native_math")

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each latent channel: of the code's channels, four times."""
        codes = torch.cat([codes for item in self.train.items for codes in item.codes]).float()
        mean, std = codes.mean(0), codes.std(0)
        std = torch.where(HEAD, std, std.clamp(min=LEAST))
        return mean.repeat(FRAMES_PER_LATENT).view(-1, 1, 1, 1), std.repeat(FRAMES_PER_LATENT).view(-1, 1, 1, 1)

    def encode_text(self, modules: Any, captions: tuple[str, ...]) -> Tensor:
        """Prompts → text tokens [B, S, D]; what lies past a prompt's end is zero, as in Wan."""
        batch = self.tokenizer(
            list(captions), padding="max_length", max_length=TEXT_TOKENS, truncation=True, return_tensors="pt"
        ).to(self.device)
        encoder = modules["text_encoder"]
        hidden = encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        return hidden * batch.attention_mask[..., None]

    def predict(self, modules: Any, sample: Sample, noisy: Tensor, sigmas_B: Tensor) -> Tensor:
        """The clean latents that the network sees behind noisy ones, both normalised."""
        mask = torch.zeros_like(noisy[:, :FRAMES_PER_LATENT])
        mask[:, :, 0] = 1
        condition = self.normalise(sample.clean_BCT11) * mask[:, :1]
        return modules["transformer"].predict_clean(
            torch.cat([noisy, mask, condition], 1).to(self.device),
            (1000 * sigmas_B).to(self.device),
            self.encode_text(modules, sample.captions),
            audio_hidden_states=sample.audio_BAD.to(self.device),
            audio_positions=sample.audio_positions_A.to(self.device),
            video_positions=sample.video_positions_T.to(self.device),
        )

    def normalise(self, latents: Tensor) -> Tensor:
        return (latents - self.mean_C) / self.std_C

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        sample = self.train.draw(self.recipe.optimisation.batch, generator)
        clean = self.normalise(sample.clean_BCT11)
        uniform_B, one_B = torch.rand(2, len(clean), generator=generator)
        sigmas = times(uniform_B, one_B, self.recipe.sigma_shift, self.recipe.sigma_one)
        noise = torch.randn(clean.shape, generator=generator)
        predicted = self.predict(self.modules, sample, interpolate(clean, noise, sigmas), sigmas).cpu()
        unknown = torch.ones_like(clean[:, :1])
        unknown[:, :, 0] = 0
        loss = clean_loss(predicted, clean, sigmas, unknown, self.weight_C).mean()
        error_BF5 = (unpack(predicted) - unpack(clean))[:, 1:, HEAD]
        posture_B15 = error_BF5.mean(1, keepdim=True)
        losses = {
            "flow_loss": loss,
            "posture_loss": POSTURE * posture_B15.square().mean(),
            "sway_loss": SWAY * (error_BF5 - posture_B15).square().mean(),
            "steady_loss": STEADY * error_BF5.diff(dim=1).square().mean(),
            "reading_loss": self.reading_loss(step),
        }
        return torch.stack(list(losses.values())).sum(), {k: float(v.detach()) for k, v in losses.items()}

    def reading_loss(self, step: int) -> Tensor:
        """Cross entropy of the words that a linear reader finds in the mean token of prompts.

        Flow alone teaches the encoder expressions, which move many channels, but in 3 000 steps not left from right.
        """
        rng = np.random.default_rng([self.recipe.seed, step])
        manners = [sample_manner(rng) for _ in range(READ)]
        tokens_BSD = self.encode_text(self.modules, tuple(motion_prompt(m, rng) for m in manners))
        found_BW = self.modules["reader"](mean_token(tokens_BSD))
        true_BW = [[float(word in (m.expression, m.gesture or m.head)) for word in WORDS] for m in manners]
        return nn.functional.binary_cross_entropy_with_logits(found_BW, torch.tensor(true_BW, device=self.device))

    @torch.no_grad()
    def evaluate(self, averaged: nn.ModuleDict, step: int) -> dict[str, float]:
        """From pure noise, held-out voices: correlation of the jaw and of pressed lips with the true ones.

        ``other`` hears the voice of another clip.
        """
        generator = torch.Generator().manual_seed(1)
        parts = [self.held_out.draw(16, generator) for _ in range(6)]
        values: dict[str, list[float]] = {}
        for part in parts:
            noise = torch.randn(part.clean_BCT11.shape, generator=generator)
            true = unpack(part.clean_BCT11)
            for name, sample in (("own", part), ("other", _replace_audio(part))):
                predicted = self.predict(averaged, sample, noise, torch.ones(len(noise))).float().cpu()
                made = unpack(predicted * self.std_C + self.mean_C)
                for channel in ("jawOpen", "mouthPress", "mouthPucker"):
                    index = CHANNELS.index(channel)
                    a, b = made[..., index], true[..., index]
                    r = _correlation(a, b)
                    values.setdefault(f"held_out/{channel}_{name}", []).append(r)
                    if name == "own":
                        values.setdefault(f"held_out/{channel}_amplitude", []).append(float(a.std() / b.std()))
        return {name: float(np.mean(v)) for name, v in values.items()}

    def export(self, averaged: nn.ModuleDict, folder: Path) -> None:
        """Transformer and text encoder, and the statistics of latents that belong into the autoencoder's config.

        Weights are rounded to bfloat16, in which the transformer runs: files of float16 that pack to a sixth less.
        """
        import json

        for name in ("transformer", "text_encoder"):
            averaged[name].bfloat16().half().save_pretrained(folder / name)  # type: ignore[operator]
        statistics = {"latents_mean": self.mean_C.flatten().tolist(), "latents_std": self.std_C.flatten().tolist()}
        (folder / "latents.json").write_text(json.dumps(statistics))


def _replace_audio(sample: Sample) -> Sample:
    from dataclasses import replace

    return replace(sample, audio_BAD=sample.audio_BAD.roll(1, 0))


def _correlation(a_BF: Tensor, b_BF: Tensor) -> float:
    """Mean Pearson correlation over the clips in which something moves."""
    a, b = a_BF - a_BF.mean(1, keepdim=True), b_BF - b_BF.mean(1, keepdim=True)
    moving = b.std(1) > 0.02
    return float(nn.functional.cosine_similarity(a, b, dim=1)[moving].mean())


def mean_token(tokens_BSD: Tensor) -> Tensor:
    """Mean [B, D] of each prompt's tokens; those past its end are zero."""
    length_B1 = tokens_BSD.detach().abs().amax(-1).gt(0).sum(1, keepdim=True)
    return tokens_BSD.sum(1) / length_B1


NEAR = 12.0  # logit of the token that a head of the text encoder starts at


@torch.no_grad()
def initialise_neighbours(text_encoder: Any) -> None:
    """Start a fresh UMT5 reading stretches of text instead of single tokens.

    Every head begins at a token of its own before the one it stands on: those of the first layer at 1, 2, 3 … back,
    each further layer's where the one before ends. Heads that look everywhere at once would first have to find out that
    order matters: of colours of backgrounds they explained 0.14 after 200 steps, so they explain 0.71.
    """
    reach = 0
    for block in text_encoder.encoder.block:
        attention = block.layer[0].SelfAttention
        for head in range(attention.n_heads):
            bucket = attention._relative_position_bucket(torch.tensor([[-(reach + head + 1)]]))
            attention.relative_attention_bias.weight[int(bucket), head] += NEAR
        attention.q.weight.mul_(0.1)  # what is there should count less than where it is
        reach += attention.n_heads - 1
