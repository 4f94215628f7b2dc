"""Ctrl-C and SIGTERM: a run ends soon whatever it computes, with one sentence, and leaves only what goes on."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

# A run that writes, and is in one long operation (about ten minutes in C) or in many short ones.
RUN = """
import hashlib, signal, sys
from pathlib import Path
from skyreels_audio.cli.interruption import ending_promptly
from skyreels_audio.media.files import replacing

signal.signal(signal.SIGTERM, signal.default_int_handler)
signal.signal(signal.SIGINT, signal.default_int_handler)
video = Path(sys.argv[1])
with ending_promptly(video.with_suffix(".state")), replacing(video) as partial:
    partial.write_bytes(b"half")
    print("writing", flush=True)
    while True:
        hashlib.pbkdf2_hmac("sha256", b"", b"", int(sys.argv[2]))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("operations", [1, 10**9])
@pytest.mark.parametrize("state", [False, True])
def test_a_run_ends_soon_whatever_it_computes(
    tmp_path: Path, how: signal.Signals, operations: int, state: bool
) -> None:
    if state:
        (tmp_path / "talk.state").touch()
    command = [sys.executable, "-c", RUN, str(tmp_path / "talk.mp4"), str(operations)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(how)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said == ("Interrupted; the same command with --resume goes on.\n" if state else "Interrupted.\n")
    assert [path.name for path in tmp_path.iterdir()] == (["talk.state"] if state else [])
