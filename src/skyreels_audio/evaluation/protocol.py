"""What is compared with what, and how: an evaluation protocol, as YAML, so that figures can be made again."""

from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skyreels_audio.media import InputError

Network = Literal["inception", "i3d", "syncnet"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Weights(_Strict):
    """A public weight file, by name and by the beginning of its SHA-256 (empty: any, its hash is only reported)."""

    file: str
    sha256: str = ""


class Protocol(_Strict):
    name: str
    table: str = Field(default="", description="of the paper that it follows")
    task: Literal["animate", "edit"] = "animate"
    clips: int = Field(default=100, ge=1, description="how many are drawn from a data set")
    seed: int = Field(default=0, description="of that drawing, and of the intervals")
    fps: float = Field(default=25.0, gt=0)
    width: int = Field(default=512, ge=64)
    height: int = Field(default=512, ge=64)
    frames: int = Field(default=250, ge=16, description="of each clip that count, from its first on")
    crop: Literal["face", "none"] = Field(default="face", description="how clips are cut out of a data set's videos")
    weights: dict[Network, Weights] = {}
    resamples: int = Field(default=20, ge=0, description="of the intervals of set distances; 0: none")


def load_protocol(name: str | Path) -> Protocol:
    """One of :func:`protocol_names`, or a YAML file. Raises InputError, which says what is wrong with it."""
    path = files("skyreels_audio.evaluation") / "assets" / "protocols" / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
        if not path.is_file():
            known = ", ".join(protocol_names())
            raise InputError(f"There is no protocol {name}: give a YAML file, or one of {known}.")
    try:
        return Protocol.model_validate(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, ValidationError) as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise InputError(f"{name} is not a protocol ({reason}).") from None


def protocol_names() -> list[str]:
    """The protocols that come with the package."""
    folder = files("skyreels_audio.evaluation") / "assets" / "protocols"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
