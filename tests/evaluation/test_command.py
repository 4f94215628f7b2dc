import pytest
from typer.testing import CliRunner

from skyreels_audio.cli import app
from skyreels_audio.media import InputError


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("", "Give --generated and --reference"),
        ("--protocol hdtf", "There is no protocol hdtf: give a YAML file, or one of hdtf-100"),
        ("--prepare", "--prepare and --videos go together"),
        ("--generated x --reference y --qalign z", "--qalign and --qalign-python go together"),
        ("--generated x --reference y", "y is not a folder"),
        ("--tally --out x", "x holds no study"),
        ("--study x --out y", "y holds no study; give the folders of two systems"),
    ],
)
def test_mistakes_are_told_in_a_sentence(options, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["evaluate", *options.split()])
    assert isinstance(result.exception, InputError) and sentence in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_a_suite_or_a_shard_that_is_not_there_is_told(tmp_path):
    for option, sentence in (("--suite mine", "There is no suite mine"), ("--shard 5/4", "--shard is a part")):
        options = ["benchmark", "--suite", "talking-50x30x20", "--out", str(tmp_path / "out"), *option.split()]
        result = CliRunner().invoke(app, options)
        assert isinstance(result.exception, InputError) and sentence in str(result.exception)
    assert not list(tmp_path.iterdir())
