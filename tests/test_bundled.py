"""The default checkpoint and the examples are found from a clone and from a wheel."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from skyreels_audio.bundled import bundled

ROOT = Path(__file__).parents[1]


def files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def test_a_clone_is_its_own_bundle() -> None:
    assert bundled("pyproject.toml") == ROOT / "pyproject.toml"


def test_a_wheel_carries_what_the_clone_keeps_beside_the_package(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", tmp_path, "build_py", "--build-lib"]
    subprocess.run([*command, tmp_path / "lib"], cwd=ROOT, check=True, capture_output=True)
    script = (
        "from skyreels_audio.bundled import bundled; print(bundled('examples'), bundled('weights/tiny'), sep='\\n')"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "lib", capture_output=True, text=True, check=True
    )
    for found, source in zip(run.stdout.splitlines(), (ROOT / "examples", ROOT / "weights" / "tiny"), strict=True):
        assert found.startswith(str(tmp_path)) or not source.exists()
        assert files(Path(found)) == files(source)
    package = Path("src", "skyreels_audio")
    assert files(ROOT / package / "faces" / "assets") == files(tmp_path / "lib" / "skyreels_audio" / "faces" / "assets")


def test_shipped_weights_do_not_say_where_they_were_trained() -> None:
    """diffusers keeps the folder that a model came from in its configuration."""
    for path in (ROOT / "weights").rglob("*.json"):
        assert not Path(json.loads(path.read_text()).get("_name_or_path", "")).is_absolute(), path
