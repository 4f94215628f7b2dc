"""Models by name: folders, or repositories of the Hugging Face hub at one revision."""

import re
from collections.abc import Sequence
from pathlib import Path

from skyreels_audio.media import InputError

MODEL_FILES = ("*.json", "*.safetensors", "*.pth", "*.model", "*.txt", "google/umt5-xxl/*")
"""What a model needs of its repository; pictures, demos and duplicates stay there."""


def local_folder(source: str | Path, files: Sequence[str] = MODEL_FILES) -> Path:
    """The folder ``source``, or the repository `owner/name` or `owner/name@revision`, downloaded into the hub's cache.

    A download that was interrupted goes on with the files it lacks; one that is complete needs no network. Without
    revision the newest one is taken; its commit is the folder's name, so a conversion can record what it was made of.

    Raises:
        InputError: there is no such folder or repository, or no network and not all files are here.
    """
    if Path(source).exists():
        return Path(source)
    match = re.fullmatch(r"([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?", str(source))
    if match is None:
        raise InputError(f"{source} is no folder, and no repository of the Hugging Face hub (owner/name).")
    repository, revision = match.groups()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files)))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise InputError(
            f"There is no folder {source} here, and the Hugging Face hub has none of that name that you may read "
            f"(hf auth login): {_first_line(error)}"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        at = f" --revision {revision}" if revision else ""
        raise InputError(
            f"There is no folder {source} here, and it could not be downloaded from the Hugging Face hub "
            f"({_first_line(error)}). Run the same command again to go on; or, on a machine with network, run "
            f"`hf download {repository}{at} --local-dir {repository.split('/')[1]}`, copy that folder here (with all "
            f"of {', '.join(files)}), and give its path instead of the name."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
