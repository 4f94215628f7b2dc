"""Fit the tokenizer of the small model's prompts to captions of drawn people and of what they do.

python tools/fit_words.py src/skyreels_audio/synthetic/assets/words.json
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tqdm import trange

from skyreels_audio.synthetic.captions import motion_prompt
from skyreels_audio.synthetic.portraits import sample_portrait
from skyreels_audio.training.motion.speech import sample_manner
from skyreels_audio.training.portrait import words_for
from skyreels_audio.training.portrait_data import portrait_seed

PIECES = 1024  # at most
PEOPLE, PROMPTS = 3000, 4  # and prompts about each


def prompts() -> Iterator[str]:
    rng = np.random.default_rng(0)
    for number in trange(PEOPLE):
        attributes = sample_portrait(portrait_seed(number, "train")).attributes
        for _ in range(PROMPTS):
            yield words_for(attributes, rng)
            yield motion_prompt(sample_manner(rng), rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=PIECES, special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(prompts(), trainer)
    end = [("</s>", tokenizer.token_to_id("</s>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=end)  # type: ignore[assignment]
    tokenizer.save(str(given.out))


if __name__ == "__main__":
    main()
