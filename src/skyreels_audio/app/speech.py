"""Text spoken by a synthesizer that is installed, so that a person without a microphone has a voice."""

import shutil
import subprocess
from functools import cache
from pathlib import Path

from skyreels_audio.app.sandbox import Refused

MOST_CHARACTERS = 1000
SECONDS = 30  # of speaking it may take
_ESPEAK = {
    "English, American": "en-us",
    "English, British": "en-gb",
    "German": "de",
    "French": "fr",
    "Spanish": "es",
    "Italian": "it",
    "Portuguese": "pt",
    "Polish": "pl",
    "Turkish": "tr",
    "Hindi": "hi",
    "Japanese": "ja",
    "Mandarin": "cmn",
}
_FLITE = {"English, flite (woman)": "slt", "English, flite (man)": "rms"}


@cache
def speakers() -> tuple[str, ...]:
    """The names of voices that can speak here; none where no synthesizer is installed."""
    flite = _FLITE if shutil.which("flite") else {}
    return (*flite, *(_ESPEAK if shutil.which("espeak-ng") else {}))


def speak(text: str, speaker: str, target: Path) -> None:
    """Write ``text`` as a WAV file. Raises Refused."""
    text = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    if not text:
        raise Refused("There is no text to speak.")
    if len(text) > MOST_CHARACTERS:
        raise Refused(f"This text has {len(text)} characters; at most {MOST_CHARACTERS} are spoken.")
    if speaker not in speakers():
        known = ", ".join(speakers()) or "none is installed here"
        raise Refused(f"There is no voice {speaker!r}; there are: {known}.")
    script = target.with_suffix(".txt")  # never an argument: text may look like an option
    script.write_text(text)
    if speaker in _FLITE:
        command = ["flite", "-voice", _FLITE[speaker], "-f", str(script), "-o", str(target)]
    else:
        command = ["espeak-ng", "-v", _ESPEAK[speaker], "-f", str(script), "-w", str(target)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    except (subprocess.SubprocessError, OSError):
        raise Refused("This text could not be spoken.") from None
    finally:
        script.unlink(missing_ok=True)
