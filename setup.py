"""Everything else is in pyproject.toml; here the wheel gets what the clone keeps outside of ``src``."""

from pathlib import Path
from shutil import copytree, ignore_patterns

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithBundle(build_py):
    """Copies the checkpoints that ship and the examples to where ``skyreels_audio.bundled`` looks for them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # it finds them in the clone
            return
        for folder in ("weights/tiny", "weights/sync-expert", "examples"):
            if Path(folder).is_dir():
                target = Path(self.build_lib, "skyreels_audio", "_bundled", folder)
                copytree(folder, target, dirs_exist_ok=True, ignore=ignore_patterns("*.partial"))


setup(cmdclass={"build_py": BuildWithBundle})
