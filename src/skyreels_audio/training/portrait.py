"""Training of words → codes of portraits by flow matching; no picture is needed, a code says all.

Shape letters: B batch, C channel of the code, S text token, N part of the code.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel

from skyreels_audio.models.portrait_autoencoder import PortraitAutoencoder
from skyreels_audio.models.portrait_code import CHOICES, CODE_CHANNELS, PARTS, part
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel
from skyreels_audio.synthetic.captions import Attributes, caption, description, manner_attributes
from skyreels_audio.synthetic.portraits import sample_portrait
from skyreels_audio.synthetic.words import word_tokenizer
from skyreels_audio.training.loss import clean_loss, interpolate, times
from skyreels_audio.training.motion.recipe import PortraitRecipe
from skyreels_audio.training.motion.speech import initialise_neighbours, sample_manner
from skyreels_audio.training.portrait_data import portrait_seed

HELD_OUT = 256
FULL = 0.4  # share of captions that tell of manner and motion too; the others are descriptions
SHARED = 8  # batches' worth of captions that are sorted by length, so that a batch pads little
MINOR = {"background_grid": 0.1, "shape": 0.4, "light_side": 0.3}  # weights of what words hardly tell; others 1


class Reader(nn.Module):
    """Reads a code off text tokens, each of its parts by a query of its own.

    Trained beside the flow, which alone hardly teaches a text encoder what ends a prompt.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries_ND = nn.Parameter(0.1 * torch.randn(len(PARTS), width))
        self.key = nn.Linear(width, width)
        self.values = nn.ModuleList(nn.Linear(width, size) for size in PARTS.values())

    def forward(self, text_BSD: Tensor) -> Tensor:
        logits_BNS = self.queries_ND @ self.key(text_BSD).transpose(1, 2) / text_BSD.shape[-1] ** 0.5
        beyond_B1S = (text_BSD.detach() == 0).all(-1)[:, None]
        found_BND = logits_BNS.masked_fill(beyond_B1S, -torch.inf).softmax(-1) @ text_BSD
        return torch.cat([value(found_BND[:, n]) for n, value in enumerate(self.values)], 1)


class PortraitTask:
    """Eq. 1 on codes of portraits."""

    def __init__(self, recipe: PortraitRecipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        codes, self.attributes = sample_codes(recipe.codes, recipe.portraits + HELD_OUT)
        config: Any = PortraitAutoencoder.load_config(recipe.autoencoder)
        self.mean_C, self.std_C = torch.tensor(config["latents_mean"]), torch.tensor(config["latents_std"])
        self.codes = (torch.from_numpy(codes) - self.mean_C) / self.std_C
        weight_1C = torch.ones(1, CODE_CHANNELS)
        for name, weight in MINOR.items():
            part(weight_1C, name).fill_(weight)
        self.weight_C = (weight_1C / weight_1C.mean())[0]
        self.tokenizer = word_tokenizer()
        transformer, text = self._start()
        reader = Reader(recipe.text_encoder["d_model"])
        modules = {"portrait_transformer": transformer, "portrait_text_encoder": text, "reader": reader}
        self.modules = nn.ModuleDict(modules).to(device)

    def _start(self) -> tuple[nn.Module, nn.Module]:
        recipe = self.recipe
        if recipe.initial is not None:
            transformer = SkyReelsAudioTransformer3DModel.from_pretrained(recipe.initial / "portrait_transformer")
            text = UMT5EncoderModel.from_pretrained(recipe.initial / "portrait_text_encoder", dtype=torch.float32)
            return transformer.float(), text
        sizes = {"patch_size": [1, 1, 1], "in_channels": CODE_CHANNELS, "out_channels": CODE_CHANNELS}
        transformer = SkyReelsAudioTransformer3DModel(**sizes, **recipe.transformer)
        if recipe.initial_text_encoder is not None:
            return transformer, UMT5EncoderModel.from_pretrained(recipe.initial_text_encoder, dtype=torch.float32)
        text = UMT5EncoderModel(UMT5Config(vocab_size=len(self.tokenizer), dropout_rate=0.0, **recipe.text_encoder))
        initialise_neighbours(text)
        return transformer, text

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        """Normalised codes [B, C, 1, 1, 1] and captions of about the same length."""
        rng = np.random.default_rng(int(torch.randint(1 << 62, (), generator=generator)))
        rows = rng.integers(self.recipe.portraits, size=SHARED * count)
        words = [words_for(self.attributes[row], rng) if rng.random() >= self.recipe.drop_text else "" for row in rows]
        start = int(rng.integers((SHARED - 1) * count + 1))
        picked = np.argsort([len(text) for text in words], kind="stable")[start : start + count]
        return self.codes[rows[picked]][:, :, None, None, None], [words[i] for i in picked]

    def encode_text(self, modules: Any, captions: list[str]) -> Tensor:
        """Prompts → text tokens [B, S, D] without room for longer ones; what lies past a prompt's end is zero."""
        batch = self.tokenizer(captions, padding="longest", return_tensors="pt").to(self.device)
        encoder = modules["portrait_text_encoder"]
        hidden = encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        return hidden * batch.attention_mask[..., None]

    def predict(self, modules: Any, noisy: Tensor, sigmas_B: Tensor, text_BSD: Tensor) -> Tensor:
        timestep = (1000 * sigmas_B).to(self.device)
        return modules["portrait_transformer"].predict_clean(noisy.to(self.device), timestep, text_BSD).cpu()

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        clean, captions = self.draw(self.recipe.optimisation.batch, generator)
        uniform_B, one_B = torch.rand(2, len(clean), generator=generator)
        sigmas = times(uniform_B, one_B, self.recipe.sigma_shift, self.recipe.sigma_one)
        noise = torch.randn(clean.shape, generator=generator)
        text_BSD = self.encode_text(self.modules, captions)
        predicted = self.predict(self.modules, interpolate(clean, noise, sigmas), sigmas, text_BSD)
        flow = clean_loss(predicted, clean, sigmas, torch.ones_like(clean[:, :1]), self.weight_C).mean()
        read = self.modules["reader"](text_BSD).cpu()
        reading = (self.weight_C * (read - clean.flatten(1)).square()).mean()
        return flow + reading, {"flow_loss": float(flow.detach()), "reading_loss": float(reading.detach())}

    @torch.no_grad()
    def evaluate(self, averaged: nn.ModuleDict, step: int) -> dict[str, float]:
        """From pure noise and held-out words that tell everything: choices guessed right, colours explained."""
        rng, generator = np.random.default_rng(1), torch.Generator().manual_seed(1)
        held_out = self.codes[-HELD_OUT:]
        captions = [words_for(attributes, rng, tell=1.0) for attributes in self.attributes[-HELD_OUT:]]
        made = []
        for texts in np.array_split(np.array(captions, dtype=object), HELD_OUT // 32):
            noise = torch.randn(len(texts), CODE_CHANNELS, 1, 1, 1, generator=generator)
            text_BSD = self.encode_text(averaged, list(texts))
            made.append(self.predict(averaged, noise, torch.ones(len(texts)), text_BSD).flatten(1).float())
        made, true = ((x * self.std_C + self.mean_C) for x in (torch.cat(made), held_out))
        values = {
            f"held_out/{name}": float((part(made, name).argmax(1) == part(true, name).argmax(1)).float().mean())
            for name in CHOICES
        }
        for name in ("skin", "hair", "iris", "cloth", "background_mean"):
            error, spread = part(made, name) - part(true, name), part(true, name) - part(true, name).mean(0)
            values[f"held_out/{name}_explained"] = 1 - float(error.square().sum() / spread.square().sum())
        return values

    def export(self, averaged: nn.ModuleDict, folder: Path) -> None:
        for name in ("portrait_transformer", "portrait_text_encoder"):
            averaged[name].half().save_pretrained(folder / name)  # type: ignore[operator]


def words_for(attributes: Attributes, rng: np.random.Generator, tell: float = 0.7) -> str:
    """A caption of the video that the portrait would be in, or a description of the portrait."""
    if rng.random() < FULL:
        return caption(attributes | manner_attributes(sample_manner(rng)), rng)
    return description(attributes, rng, tell)


def sample_codes(path: Path, count: int) -> tuple[np.ndarray, list[Attributes]]:
    """Codes [count, C] of portraits of training and what is known of each; kept in the file."""
    from tqdm import tqdm

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        portraits = [sample_portrait(portrait_seed(n, "train")) for n in tqdm(range(count), desc="codes of portraits")]
        codes = np.stack([portrait.code_C for portrait in portraits])
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, codes=codes, attributes=json.dumps([portrait.attributes for portrait in portraits]))
        partial.rename(path)
    with np.load(path) as data:
        if len(data["codes"]) < count:
            raise ValueError(f"{path} holds {len(data['codes'])} codes of {count}: delete it to sample them anew.")
        return data["codes"][:count], json.loads(str(data["attributes"]))[:count]
