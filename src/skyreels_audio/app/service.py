"""What page and API do alike: submissions, looks, results; and the housekeeping of a server."""

import logging
import shutil
import threading
import time
import traceback
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skyreels_audio.app import sandbox
from skyreels_audio.app.jobs import Job, Jobs, new_id
from skyreels_audio.app.options import Options
from skyreels_audio.app.render import Request
from skyreels_audio.app.sandbox import Refused
from skyreels_audio.app.speech import speak
from skyreels_audio.app.uploads import Upload, Uploads
from skyreels_audio.app.worker import Watch, estimate, kind_of

log = logging.getLogger(__name__)

TIDY_EVERY = 2.0  # seconds
MOST_WAITING = 500  # jobs in the queue, whoever submitted them


class Service:
    """One server's view of jobs and uploads."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.jobs, self.uploads = Jobs(options), Uploads(options)
        self.watch = Watch(options, self.jobs)
        self.closing = threading.Event()
        self.tidying = threading.Thread(target=self._tidy, daemon=True)

    def start(self) -> None:
        self.watch.start()
        sandbox.SANDBOX.start()
        self.tidying.start()

    def close(self) -> None:
        self.closing.set()
        self.watch.close()

    def submit(self, owner: str, request: Request, files: Sequence[Path], consent: bool) -> Job:
        """Queue a job of a session's checked files. Raises Refused."""
        names = {file.stem: file for file in files}
        self._check(owner, request, names, consent)
        id = new_id()
        size = sum(self.jobs.files.put(file, id, file.name) for file in files)
        seconds = estimate(self.jobs, request.preset, kind_of(list(names)), voice_seconds(names["voice"]))
        job = Job(id, owner, request.model_dump(), [file.name for file in files], time.time(), size, seconds)
        self.jobs.submit(job)
        return job

    def _check(self, owner: str, request: Request, names: dict[str, Path], consent: bool) -> None:
        if "voice" not in names:
            raise Refused("A voice is missing: send a sound file, record one, or give a text to speak.")
        if "picture" in names and "video" in names:
            raise Refused("Give a picture or a video, not both.")
        if not names.keys() & {"picture", "video"} and not request.prompt.strip():
            raise Refused("Give a picture, a video, or words that say who shall speak.")
        if names.keys() & {"picture", "video"} and not consent:
            raise Refused("Say that the people shown and heard agree to this, or that they do not exist.")
        unfinished = [job for job in self.jobs.owned(owner) if self.jobs.status(job).state in ("waiting", "running")]
        if len(unfinished) >= self.options.waiting_jobs:
            raise Refused(f"{len(unfinished)} of your videos are not finished yet; wait for one of them or cancel it.")
        if len(self.jobs.queued()) >= MOST_WAITING:
            raise Refused("Too many videos are waiting here; try again later.")

    def speech(self, owner: str, text: str, speaker: str) -> Upload:
        """A text spoken, as an upload of the session. Raises Refused."""
        folder = self.uploads.root / owner / new_id()
        folder.mkdir(parents=True)
        try:
            speak(text, speaker, folder / "raw")
            return self.uploads.check(folder / "raw", ("voice",))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def example(self, owner: str, file: Path) -> Path:
        """A file that ships with the package, as an upload of the session."""
        folder = self.uploads.root / owner / new_id()
        folder.mkdir(parents=True)
        shutil.copyfile(file, folder / "raw")
        return self.uploads.check(folder / "raw", ("picture", "voice")).path

    def look(self, path: Path, seconds: float, face: str) -> dict[str, Any]:
        """Which face and region of a checked picture or video would move; see ``render``. Raises Refused."""
        if path.stem == "picture":
            return sandbox.run("faces_of_picture", path)
        return sandbox.run("faces_of_video", path, seconds=seconds, face=face, target=str(path.with_name("frame.png")))

    def _tidy(self) -> None:
        """What dead workers and servers left, disk use, old uploads."""
        forgot = 0.0
        while not self.closing.wait(TIDY_EVERY):
            try:
                self.jobs.recover()
                self.jobs.trim(self.options.keep_gb * 1e9)
                if time.monotonic() - forgot > 60:
                    forgot = time.monotonic()
                    self.uploads.forget_old(self.options.keep_gb * 1e9)
            except Exception:
                log.error("tidying failed:\n%s", traceback.format_exc())


def voice_seconds(path: Path) -> float:
    """How long a checked voice lasts."""
    with wave.open(str(path)) as file:
        return file.getnframes() / file.getframerate()
