"""Audio-conditioned talking portraits in video diffusion transformers (SkyReels-Audio)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
    from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel

__version__ = "0.1.0"
__all__ = ["SkyReelsAudioPipeline", "SkyReelsAudioTransformer3DModel"]

_HOMES = {
    "SkyReelsAudioPipeline": "skyreels_audio.generation.pipeline",
    "SkyReelsAudioTransformer3DModel": "skyreels_audio.models.transformer",
}


def __getattr__(name: str) -> Any:
    """Import the public classes on first use, so that ``import skyreels_audio`` stays cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
