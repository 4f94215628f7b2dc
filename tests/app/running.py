"""Servers for the tests: processes of their own on loopback, with the stub renderer and a free port."""

import os
import socket
import subprocess
import sys
import time
import wave
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np

from skyreels_audio.app.jobs import Jobs
from skyreels_audio.app.options import Options
from skyreels_audio.app.render import PRESETS
from skyreels_audio.app.worker import speed_key

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
STUB = "stub_renderer:StubRenderer"
PATIENCE = 300.0  # seconds; the machine may be slow and busy


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(holds: Any, seconds: float = PATIENCE, every: float = 0.05) -> Any:
    """What ``holds()`` returns as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(every)
    return value


class Running:
    """A server in a process of its own: ``with Running(folder) as server``."""

    def __init__(self, data: Path, **options: Any) -> None:
        given = {"model": "none", "data": str(data), "port": free_port(), "renderer": STUB, "page": False, **options}
        self.options = Options(**given)
        self.url = f"http://127.0.0.1:{self.options.port}"
        self.log = data.parent / f"{data.name}.log"
        self.made = data.parent / f"{data.name}.made"

    def start(self) -> Self:
        script = "import os, sys, threading; from skyreels_audio.app import options, server; "
        script += "threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start(); "  # with us
        script += "server.serve(options.Options.from_json(sys.argv[1]))"
        environment = os.environ | {"PYTHONPATH": f"{SOURCE}:{HERE}", "STUB_LOG": str(self.made)}
        with self.log.open("a") as log:
            command = [sys.executable, "-c", script, self.options.to_json()]
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log)
        try:
            wait_until(self.answers, every=0.3)
        except BaseException:
            self.kill()
            raise
        return self

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.url}/api/docs", timeout=5).status_code in (200, 401)
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def know_speeds(self) -> None:
        """Before it starts: so that no worker measures them, by videos that nobody asked for."""
        jobs = Jobs(self.options)
        for preset in PRESETS:
            jobs.write(speed_key(preset, "picture"), [1.0])

    def release(self, name: str) -> None:
        """Let the jobs "held ``name``" go on."""
        Path(f"{self.made}.{name}").touch()

    def client(self, **options: Any) -> httpx.Client:
        """A visitor of their own, who keeps cookies."""
        return httpx.Client(base_url=self.url, timeout=PATIENCE, **options)


def voice(path: Path, seconds: float = 0.4) -> Path:
    """A hum."""
    time_n = np.arange(round(16_000 * seconds)) / 16_000
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((8000 * np.sin(2 * np.pi * 150 * time_n)).astype("<i2").tobytes())
    return path


def picture(path: Path, side: int = 64) -> Path:
    """A gradient; the name's suffix picks the format."""
    from PIL import Image

    ramp = np.linspace(0, 255, side).astype(np.uint8)
    Image.fromarray(np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 90), -1).astype(np.uint8)).save(path)
    return path


def submit(client: httpx.Client, folder: Path, prompt: str = "a man", seconds: float = 0.4, **fields: Any) -> dict:
    """Submit words and a voice; the job."""
    files = {"voice": ("../../v.wav", voice(folder / "v.wav", seconds).read_bytes())}
    answer = client.post("/api/jobs", files=files, data={"prompt": prompt} | fields)
    assert answer.status_code == 202, answer.text
    return answer.json()


def ended(client: httpx.Client, id: str, seconds: float = PATIENCE) -> dict[str, Any]:
    """The status of a job once it has ended."""

    def status() -> dict[str, Any] | None:
        now = client.get(f"/api/jobs/{id}").json()
        return now if now["state"] in ("finished", "failed", "cancelled") else None

    return wait_until(status, seconds, every=0.1)
