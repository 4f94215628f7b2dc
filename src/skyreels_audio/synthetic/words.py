"""The tokenizer of the small model's prompts: pieces of words as captions have them (byte-level BPE, lower case).

Bytes can spell anything, but a text encoder of two layers hardly learnt from them which colour belongs to which thing:
it explained 0.13 of held-out backgrounds' colours, of these pieces 0.73 after as many steps.
"""

from importlib.resources import as_file, files

from transformers import PreTrainedTokenizerFast


def word_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer that ``tools/fit_words.py`` fitted; what is not in captions is spelt."""
    with as_file(files("skyreels_audio.synthetic") / "assets" / "words.json") as path:
        return PreTrainedTokenizerFast(tokenizer_file=str(path), pad_token="<pad>", eos_token="</s>")
