"""SkyReels-Audio for ComfyUI: a folder for ``custom_nodes`` where ``skyreels-audio`` is installed too."""

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
