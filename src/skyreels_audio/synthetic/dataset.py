"""The synthetic data set on disk: an mp4 and a lip mask per clip, and Parquet files with one row per clip.

out/clips/000017.mp4    the video with its sound
out/masks/000017.npz    the lip mask, one bit per pixel (`read_lip_mask`)
out/rows/00001.parquet  everything else that is known about clips 16 to 31; the folder reads as one table
out/speech/             the speech bank that the voices come from
"""

import multiprocessing
import os
import tempfile
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import numpy as np

from skyreels_audio.synthetic.bank import speech_bank
from skyreels_audio.synthetic.captions import ATTRIBUTES
from skyreels_audio.synthetic.motion import FPS
from skyreels_audio.synthetic.rig import ACTIONS
from skyreels_audio.synthetic.speech import RATE
from skyreels_audio.synthetic.studio import TEST_SHARE, Clip, Studio

PART = 16  # clips per Parquet file, and what an interruption loses at most, per worker


def synthesize(
    clips: int,
    out: Path,
    seed: int = 0,
    size: int | tuple[int, int] = 256,
    frames: int = 81,
    workers: int = 1,
    stage: str = "full",
    photographs: Path | None = None,
    recordings: Path | None = None,
    speech: Path | None = None,
) -> None:
    """Writes `clips` clips of `frames` frames into the folder `out`; the same call goes on where it was interrupted.

    `stage` says how much moves ("mouth", "slight", "full"); `photographs` is a folder of portraits to animate besides
    drawn people; `recordings` a folder of GRID clips whose voice is used too; `speech` a bank made before (otherwise
    one is made in `out`). Raises ValueError for what cannot be: an unknown stage, an empty bank, espeak-ng missing.
    """
    from tqdm import tqdm

    out = Path(out)
    if speech is None:
        speech = out / "speech"
        hours = max(clips * frames / FPS / 3600, TEST_SHARE * 0.09)  # at least one shard of the test split
        speech_bank(speech, hours, seed, workers, recordings)
    for folder in ("clips", "masks", "rows"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    parts = [range(first, min(first + PART, clips)) for first in range(0, clips, PART)]
    missing = [part for part in parts if _rows_in(_part_path(out, part)) < len(part)]
    write = partial(
        _write_part, out, speech=speech, frames=frames, size=size, seed=seed, stage=stage, photographs=photographs
    )
    with tqdm(total=clips, initial=clips - sum(map(len, missing)), desc="clips", unit="clip") as progress:
        for part in map(write, missing) if workers == 1 else _in_processes(write, missing, workers):
            progress.update(len(part))


def _in_processes(write: Callable[[range], range], parts: list[range], workers: int) -> Iterator[range]:
    with _one_thread_each(), ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for job in as_completed([pool.submit(write, part) for part in parts]):
            yield job.result()


@contextmanager
def _one_thread_each():
    """Processes started in this block compute and rasterise on one thread: they divide the cores among themselves."""
    limits = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")}
    before = dict(os.environ)
    os.environ.update(limits)
    try:
        yield
    finally:
        for name in limits:
            os.environ.pop(name)
        os.environ.update(before)


def _part_path(out: Path, part: range) -> Path:
    return out / "rows" / f"{part.start // PART:05d}.parquet"


def _rows_in(path: Path) -> int:
    import pyarrow.parquet

    return pyarrow.parquet.read_metadata(path).num_rows if path.exists() else 0


_studio = cache(Studio)  # one per worker process


def _write_part(out: Path, part: range, **settings) -> range:
    """Clips first, their rows last: a row says that its files are complete."""
    import pyarrow
    import pyarrow.parquet

    studio = _studio(**settings)
    rows = []
    for index in part:
        clip = studio.clip(index)
        _write_video(out / "clips" / f"{index:06d}.mp4", clip)
        _write_lip_mask(out / "masks" / f"{index:06d}.npz", clip.rendered.lip_mask)
        rows.append(row(index, clip))
    path = _part_path(out, part)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, _schema()), path.with_suffix(".partial"))
    path.with_suffix(".partial").rename(path)
    return part


def row(index: int, clip: Clip) -> dict:
    """What a Parquet row says of a clip, by column. Arrays are flattened; their shapes are in `_schema`."""
    frames, height, width = clip.rendered.lip_mask.shape
    files = {"video": f"clips/{index:06d}.mp4", "lip_mask": f"masks/{index:06d}.npz"}
    shape = {"frames": frames, "height": height, "width": width, "fps": float(clip.motion.fps)}
    curves = {
        "lower_face_box": clip.rendered.lower_face_box_T4.ravel(),
        "landmarks": clip.rendered.landmarks_T682.ravel(),
        "jaw_open": clip.motion.weights_TK[:, ACTIONS.index("jawOpen")],
        "visemes": clip.visemes.ravel(),
    }
    said = {"transcript": clip.speech.text, "language": clip.speech.language, "voice": clip.speech.voice}
    phonemes = [{"start": start, "end": end, "ipa": ipa} for start, end, ipa in clip.speech.phonemes]
    known = {name: clip.attributes.get(name) for name in ATTRIBUTES}
    who = {"index": index, "split": clip.split, "identity": clip.identity, "caption": clip.caption}
    return files | shape | curves | said | known | who | {"phonemes": phonemes}


def _schema():
    import pyarrow as pa

    phoneme = pa.struct([("start", pa.float32()), ("end", pa.float32()), ("ipa", pa.string())])
    curve = pa.list_(pa.float32())
    return pa.schema([
        *((name, pa.string()) for name in ("split", "identity", "video", "lip_mask", "caption", "transcript")),
        *((name, pa.string()) for name in ("language", "voice", *ATTRIBUTES)),
        *((name, pa.int32()) for name in ("index", "frames", "height", "width")),
        ("fps", pa.float32()),
        ("phonemes", pa.list_(phoneme)),  # seconds from the first frame
        ("jaw_open", curve),  # [frames], weight of jawOpen
        ("visemes", curve),  # [n, 9] at 100 Hz, channels as visemes.VISEME_CHANNELS
        ("landmarks", curve),  # [frames, 68, 2] pixels
        ("lower_face_box", curve),  # [frames, 4] xyxy pixels
    ])  # fmt: skip


def _write_video(path: Path, clip: Clip) -> None:
    from skyreels_audio.media import VideoWriter

    frames, height, width = clip.rendered.lip_mask.shape
    with tempfile.NamedTemporaryFile(suffix=".wav") as sound:
        with wave.open(sound, "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes((np.clip(clip.speech.waveform, -1, 1) * 32767).astype(np.int16).tobytes())
        sound.flush()
        seconds = frames / FPS  # FLAC: what is heard is what the labels are of
        with VideoWriter(path, width, height, FPS, sound.name, duration=seconds, audio_codec="flac") as video:
            for frame in clip.rendered.frames:
                video.write(frame)


def _write_lip_mask(path: Path, mask_THW: np.ndarray) -> None:
    with path.with_suffix(".partial").open("wb") as file:
        np.savez_compressed(file, bits=np.packbits(mask_THW >= 128, axis=-1), width=mask_THW.shape[-1])
    path.with_suffix(".partial").rename(path)


def read_lip_mask(path: Path) -> np.ndarray:
    """The lip mask of a clip: bool [frames, height, width]."""
    with np.load(path) as data:
        return np.unpackbits(data["bits"], axis=-1, count=int(data["width"])).astype(bool)
