"""How the server is set up: one frozen value that the server hands to its workers as JSON."""

import ipaddress
import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from skyreels_audio.media import InputError


@dataclass(frozen=True)
class Options:
    """How the server is set up.

    Attributes:
        model: checkpoint folder.
        data: folder for the queue, uploads and results.
        results: fsspec URL for results, e.g. ``s3://bucket/talking``; None: in ``data``.
        redis: URL of a Redis for the queue, shared by several machines; None: SQLite in ``data``.
        host, port: where it listens.
        token: what a visitor must show; required beyond loopback.
        workers: processes of this machine that make videos, one job each at a time; 0: only other machines'.
        device: for the workers: "auto", "cpu", "cuda", "cuda:1", ….
        keep_gb: results beyond this are deleted, oldest first.
        upload_mb, voice_seconds: the most that is taken.
        waiting_jobs: the most that one session may have unfinished.
        requests_per_minute: submissions and uploads from one address.
        page: serve the page besides the API.
        live_sessions: how many may talk at once; each has a process of its own.
        speaker: ``module:class`` of what makes the frames of a live session; see ``live.Speaker``.
        renderer: ``module:class`` of what makes the videos; see ``render.Renderer``.
    """

    model: str
    data: str
    results: str | None = None
    redis: str | None = None
    host: str = "127.0.0.1"
    port: int = 7860
    token: str | None = None
    workers: int = 1
    device: str = "auto"
    keep_gb: float = 5.0
    upload_mb: int = 200
    voice_seconds: float = 300.0
    waiting_jobs: int = 10
    requests_per_minute: int = 60
    page: bool = True
    live_sessions: int = 1
    speaker: str = "skyreels_audio.app.live_speaker:PipelineSpeaker"
    renderer: str = "skyreels_audio.app.render:Renderer"

    def __post_init__(self) -> None:
        if not self.loopback and not self.token:
            raise InputError(f"--host {self.host} is open to other machines; give a --token that they must show.")
        if self.token is not None and len(self.token) < 16:
            raise InputError("--token is too short to be safe: at least 16 characters.")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def folder(self) -> Path:
        return Path(self.data)

    @property
    def results_url(self) -> str:
        return self.results or str(self.folder.resolve() / "results")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Options":
        return cls(**json.loads(text))


def machine() -> str:
    """Which machine this is, as claims of jobs name it."""
    return socket.gethostname()
