"""Hours of speech on disk: shards of utterances with their viseme curves, small enough to travel.

One shard is one `.npz`: the waveforms as Opus, the curves as float16 at 100 Hz, the rest as JSON. The waveforms are
clean; whoever uses them applies `speech.augment`, so that one utterance serves many rooms and microphones.
"""

import io
import json
import multiprocessing
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from skyreels_audio.synthetic import voices
from skyreels_audio.synthetic.sentences import ENGLISH, is_test, languages, sentence
from skyreels_audio.synthetic.speech import RATE, Utterance, concatenate, replay
from skyreels_audio.synthetic.visemes import curves

SHARD = 16  # utterances per shard, about five minutes
SECONDS = (12.0, 28.0)
# What share of the utterances each engine speaks; engines that are not installed leave theirs to the others.
SHARES = {"espeak": 0.37, "flite": 0.12, "hibari": 0.17, "kokoro": 0.09, "grid": 0.25}
TEST_VOICES = frozenset(
    {"espeak:f5", "espeak:m7", "espeak:Andrea", "espeak:Gene", "espeak:klatt3", "espeak:steph", "espeak:pablo"}
    | {"flite:awb", "kokoro:jm_kumo", "kokoro:jf_nezumi"}
)


def compose(
    split: str,
    rng: np.random.Generator,
    engines: Sequence[str],
    recordings: Sequence[Path] = (),
    spoken: Sequence[str] | None = None,
    seconds: tuple[float, float] = SECONDS,
) -> Utterance:
    """12 to 28 s of one voice saying several sentences, with pauses of 0.05 to 2.5 s, all from one split.

    ``spoken``: languages, by default those that can be spoken here.

    'train' and 'test' share neither voice (speaker) nor sentence.
    """
    test = split == "test"
    speakers = {
        engine: [name for name in _SPEAKERS[engine] if (f"{engine}:{name or 'default'}" in TEST_VOICES) == test]
        for engine in engines
    }
    open_engines = [engine for engine in engines if speakers[engine]]
    shares = np.array([SHARES[engine] for engine in open_engines])
    engine = str(rng.choice(open_engines, p=shares / shares.sum()))
    speaker = speakers[engine][int(rng.integers(len(speakers[engine])))]
    if engine == "espeak":
        spoken = languages() if spoken is None else spoken
        language = spoken[int(rng.integers(len(spoken)))] if rng.random() < 0.6 else ENGLISH[int(rng.integers(2))]
    else:
        language = ENGLISH[0]
    enough, parts, gaps = rng.uniform(*seconds), [], [_pause(rng)]
    while sum(part.duration for part in parts) + sum(gaps) < enough:
        part = _say(engine, language, speaker, rng, test, recordings)
        if part is not None:
            parts.append(part)
            gaps.append(_pause(rng))
    return concatenate(parts, gaps)


_SPEAKERS = {
    "espeak": voices.ESPEAK,
    "flite": voices.FLITE,
    "hibari": voices.HIBARI,
    "kokoro": voices.KOKORO,
    "grid": ("s1",),
}


def _pause(rng: np.random.Generator) -> float:
    """Mostly the short pauses between sentences, now and then a long silence."""
    return float(rng.uniform(0.05, 0.5) if rng.random() < 0.7 else rng.uniform(0.5, 2.5))


def _say(engine: str, language: str, speaker: str, rng: np.random.Generator, test: bool, recordings: Sequence[Path]):
    """One sentence, or None where the aligner could not follow it."""
    try:
        if engine == "grid":
            path = recordings[int(rng.integers(len(recordings)))]
            code = path.stem.split("-")[-1]
            if is_test(voices.grid_sentence(code)) != test:
                return None
            return replay(voices.recording(path), rng.uniform(0.9, 1.12))
        text = sentence(language, rng, test)
        if engine == "espeak":
            return voices.say_espeak(text, language, speaker, rng)
        say = {"flite": voices.say_flite, "hibari": voices.say_hibari, "kokoro": voices.say_kokoro}[engine]
        return say(text, speaker, rng)
    except ValueError as error:
        if engine == "espeak":
            raise
        del error
        return None


def speech_bank(
    path: Path,
    hours: float,
    seed: int = 0,
    workers: int = 1,
    recordings: Path | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Writes about `hours` of speech into the folder `path`; the same call goes on where it was interrupted.

    Every eighth shard is the test split. `recordings` is a folder of GRID clips (`grid-s1-*.mp4`). Shard n depends on
    `seed` and n alone. Raises ValueError if espeak-ng is missing.
    """
    from tqdm import tqdm

    clips = tuple(sorted(recordings.glob("grid-*.mp4"))) if recordings else ()
    present = voices.installed() | {"grid": voices.installed()["grid"] and bool(clips)}
    for engine in (engine for engine, here in present.items() if not here):
        report(f"{engine}: not available here, its share goes to the other voices")
    engines = [engine for engine, here in present.items() if here]
    path.mkdir(parents=True, exist_ok=True)
    count = max(1, round(hours * 3600 / (SHARD * sum(SECONDS) / 2)))
    missing = [index for index in range(count) if not _shard_path(path, index).exists()]
    said = dict(engines=engines, recordings=clips, spoken=tuple(languages()), seconds=SECONDS)
    write = partial(_write_shard, path, seed=seed, utterances=SHARD, **said)
    # A process per shard: what espeak-ng says depends a little on all that it said before in the same one. Not a fork,
    # which may wait for ever for a lock that another thread had.
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=1) as pool:
        written = pool.imap_unordered(write, missing)
        for _ in tqdm(written, total=count, initial=count - len(missing), desc="speech", unit="shard"):
            pass
        pool.close()  # let idle workers end by themselves: ended by a signal they would report it
        pool.join()


def _shard_path(path: Path, index: int) -> Path:
    return path / f"{index:05d}.npz"


def _write_shard(path: Path, index: int, seed: int, utterances: int, **said: Any) -> None:
    split = "test" if index % 8 == 7 else "train"
    packets, shapes, rows = [], [], []
    for number in range(utterances):
        utterance = compose(split, np.random.default_rng((seed, index, number)), **said)
        packets.append(np.frombuffer(compress(utterance.waveform), np.uint8))
        shapes.append(curves(utterance).astype(np.float16))
        row = {"split": split, "text": utterance.text, "language": utterance.language, "voice": utterance.voice}
        phonemes = [(round(start, 3), round(end, 3), ipa) for start, end, ipa in utterance.phonemes]
        seen = {"filmed": bool(utterance.seen)}
        rows.append(row | seen | {"samples": len(utterance.waveform), "phonemes": phonemes})
    partial_path = _shard_path(path, index).with_suffix(".partial")
    with partial_path.open("wb") as file:
        np.savez_compressed(
            file,
            opus=np.concatenate(packets),
            opus_lengths=[len(packet) for packet in packets],
            curves=np.concatenate(shapes),
            curve_lengths=[len(shape) for shape in shapes],
            rows=np.frombuffer(json.dumps(rows, ensure_ascii=False).encode(), np.uint8),
        )
    partial_path.rename(_shard_path(path, index))


class SpeechBank:
    """The utterances of a folder written by `speech_bank`: `bank[i]` → (Utterance, curves float32 [n, 9] at 100 Hz)."""

    def __init__(self, path: Path, split: str | None = None) -> None:
        self._shards = sorted(Path(path).glob("[0-9]*.npz"))
        if not self._shards:
            raise ValueError(f"{path}: no speech here; make some with skyreels_audio.synthetic.bank.speech_bank")
        rows = [(shard, number, row) for shard in self._shards for number, row in enumerate(_rows(shard))]
        self.rows = [(shard, number, row) for shard, number, row in rows if split in (None, row["split"])]
        if not self.rows:
            raise ValueError(
                f"{path}: no speech of the {split} split; a bank of at least {8 * SHARD} utterances has both"
            )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def seconds(self) -> float:
        """Length of all utterances together."""
        return sum(row["samples"] for _, _, row in self.rows) / RATE

    def __getitem__(self, index: int) -> tuple[Utterance, np.ndarray]:
        shard, number, row = self.rows[index]
        packets, shapes = _shard(shard)
        phonemes = tuple((start, end, ipa) for start, end, ipa in row["phonemes"])
        waveform = decompress(packets[number], row["samples"])
        return Utterance(waveform, phonemes, row["text"], row["language"], row["voice"]), shapes[number].astype(
            np.float32
        )


def _rows(shard: Path) -> list[dict]:
    with np.load(shard) as data:
        return json.loads(data["rows"].tobytes())


@lru_cache(maxsize=64)
def _shard(shard: Path) -> tuple[list[bytes], list[np.ndarray]]:
    with np.load(shard) as data:
        packets = np.split(data["opus"], np.cumsum(data["opus_lengths"])[:-1])
        return [packet.tobytes() for packet in packets], np.split(data["curves"], np.cumsum(data["curve_lengths"])[:-1])


def compress(waveform: np.ndarray, bits_per_second: int = 28_000) -> bytes:
    """float32 at 16 kHz → an Ogg Opus file in memory."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="ogg", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libopus", rate=RATE, layout="mono", bit_rate=bits_per_second)
        samples = (np.clip(waveform, -1, 1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return buffer.getvalue()


def decompress(data: bytes, samples: int) -> np.ndarray:
    """An Ogg Opus file in memory → exactly `samples` float32 at 16 kHz, in place to the sample."""
    import av

    with av.open(io.BytesIO(data), "r") as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
        frames = [*container.decode(audio=0), None]
        pieces = [out.to_ndarray()[0] for frame in frames for out in resampler.resample(frame)]
    waveform = np.concatenate(pieces)[:samples]
    return np.pad(waveform, (0, samples - len(waveform)))
