"""When each phoneme of a recorded English sentence is spoken: forced alignment with PocketSphinx."""

import re
from functools import cache

import numpy as np

from skyreels_audio.synthetic.speech import RATE, Phoneme

# ARPABET (CMUdict, PocketSphinx, and in small letters Flite) → IPA.
IPA = {
    "AA": "ɑ", "AE": "æ", "AH": "ʌ", "AO": "ɔ", "AW": "aʊ", "AX": "ə", "AXR": "ɚ", "AY": "aɪ", "B": "b",
    "CH": "tʃ", "D": "d", "DH": "ð", "DX": "ɾ", "EH": "ɛ", "EL": "l", "EM": "m", "EN": "n", "ER": "ɚ",
    "EY": "eɪ", "F": "f", "G": "ɡ", "HH": "h", "HV": "h", "IH": "ɪ", "IX": "ɨ", "IY": "i", "JH": "dʒ",
    "K": "k", "L": "l", "M": "m", "N": "n", "NG": "ŋ", "OW": "oʊ", "OY": "ɔɪ", "P": "p", "R": "ɹ", "S": "s",
    "SH": "ʃ", "T": "t", "TH": "θ", "UH": "ʊ", "UW": "u", "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "ʒ",
}  # fmt: skip


@cache
def _decoder():
    from pocketsphinx import Decoder

    return Decoder(samprate=RATE, bestpath=False, loglevel="FATAL")


def align(waveform: np.ndarray, text: str) -> tuple[Phoneme, ...]:
    """The phonemes of `text` with their times in `waveform`, to 10 ms.

    Raises ValueError if a word is not in the pronunciation dictionary or the sound does not fit the words.
    """
    words, decoder = re.findall(r"[a-z']+", text.lower()), _decoder()
    if unknown := [word for word in words if decoder.lookup_word(word) is None]:
        raise ValueError(f"not in the pronunciation dictionary: {', '.join(unknown)}")
    samples = (np.clip(waveform, -1, 1) * 32767).astype(np.int16).tobytes()
    decoder.set_align_text(" ".join(words))
    try:
        for stage in ("words", "phones"):
            if stage == "phones":
                decoder.set_alignment()
            decoder.start_utt()
            decoder.process_raw(samples, full_utt=True)
            decoder.end_utt()
        alignment = decoder.get_alignment()
    except RuntimeError as error:
        raise ValueError(f"the sound does not fit the words {text!r}") from error
    if alignment is None:
        raise ValueError(f"the sound does not fit the words {text!r}")
    return tuple(
        (phone.start / 100, (phone.start + phone.duration) / 100, IPA[phone.name])
        for word in alignment
        for phone in word
        if phone.name in IPA
    )
