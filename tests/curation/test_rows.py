"""Rows, recipes, selection: what decides, without a video."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from skyreels_audio.curation.fingerprint import near_duplicates
from skyreels_audio.curation.recipe import Limit, Recipe, read_recipe
from skyreels_audio.curation.schema import COLUMNS, Clip, from_table, to_table
from skyreels_audio.curation.select import DUPLICATE, LIGHT, UNSCORED, funnel, read_rows, select
from skyreels_audio.curation.storage import Folder
from skyreels_audio.media import InputError

ROOT = Path(__file__).parents[2]
ALL = {stage.name: stage.version for stage in Recipe().stages.active()}


def test_of_a_file_that_changed_only_the_new_rows_count(tmp_path: Path) -> None:
    out = Folder(tmp_path)
    for source_id, finished in (("old", 1.0), ("new", 2.0)):
        clips = [Clip(f"{source_id}-{k:04d}", "v.mp4", float(k), k + 1.0, finished=finished) for k in range(2)]
        out.write_table(f"rows/{source_id}.parquet", to_table(clips))
    out.write_table("rows/other.parquet", to_table([Clip("other-0000", "w.mp4", finished=0.5)]))
    assert [clip.id for clip in read_rows(out, LIGHT)] == ["new-0000", "new-0001", "other-0000"]


def scored(name: str, **columns) -> Clip:
    return Clip(name, f"{name}.mp4", end=4.0, stages=ALL, **{"seconds": 4.0, **columns})


def test_rows_survive_parquet() -> None:
    clip = scored(
        "a",
        timings={"probe": 0.5},
        landmarks=np.arange(272, dtype=np.float32),
        has_audio=False,
        video_hash=[-(1 << 63), 5],
        text=0.25,
    )
    (again,) = from_table(to_table([clip]))
    for name in COLUMNS:
        before, after = getattr(clip, name), getattr(again, name)
        assert np.array_equal(before, after) if isinstance(before, np.ndarray) else before == after, name


def test_rows_of_another_version_are_read() -> None:
    table = to_table([scored("a", text=0.5)]).drop_columns(["music"]).append_column("forgotten", [[1]])
    (clip,) = from_table(table)
    assert clip.text == 0.5 and clip.music is None


@pytest.mark.parametrize(
    ("limit", "allowed", "refused"),
    [
        (Limit(min=1), [1, 2.5], [0.9, None]),
        (Limit(max=1), [1, -3], [1.1, None]),
        (Limit(min=0, max=1), [0, 0.5, 1], [-0.1, 2]),
        (Limit(among=["en", "de"]), ["en"], ["fr", None]),
        (Limit(max=1, unknown=True), [0.5, None], [2]),
    ],
)
def test_a_limit(limit: Limit, allowed: list, refused: list) -> None:
    assert all(map(limit.allows, allowed)) and not any(map(limit.allows, refused))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("limits: {audio: {loudnes: {min: 3}}}", "no column 'loudnes'"),
        ("limits: {sound: {loudness: {min: 3}}}", "no stage 'sound'"),
        ("limits: {audio: {loudness: {}}}", "min, max or among"),
        ("stages: {split: {treshold: 3}}", "treshold"),
        ("workers: 0", "workers"),
        ("limits: [", "not a YAML file"),
    ],
)
def test_a_recipe_says_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=says) as error:
        read_recipe(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("curate*.yaml")), ids=lambda path: path.name)
def test_recipes_that_ship_are_valid(path: Path) -> None:
    assert read_recipe(path).limits


def test_a_missing_model_is_told_before_a_run(tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"stages": {"audio": {"whisper": str(tmp_path)}}})
    with pytest.raises(InputError, match="audio.*Whisper"):
        for stage in recipe.stages.active():
            stage.check()


def test_the_first_failing_stage_is_the_reason_and_none_is_lost() -> None:
    recipe = Recipe.model_validate(
        {"limits": {"synchrony": {"sync_wander": {"max": 3}}, "audio": {"snr": {"min": 10}, "music": {"max": 0.5}}}}
    )
    rows = [
        scored("a", snr=20.0, music=0.1, sync_wander=0.0),
        scored("b", snr=5.0, music=0.9, sync_wander=9.0),
        Clip("c", "c.mp4", error="probe: it is empty."),
        replace(scored("d"), stages={"probe": 1}),
    ]
    verdicts = select(rows, recipe)
    assert [each.reason for each in verdicts] == [None, "audio.snr", "probe.error", UNSCORED]
    assert verdicts[1].reasons == ("audio.snr", "audio.music", "synchrony.sync_wander")


def test_hours_of_the_funnel_add_up() -> None:
    recipe = Recipe.model_validate({"limits": {"audio": {"snr": {"min": 10}}, "content": {"text": {"max": 0.1}}}})
    rng = np.random.default_rng(0)
    rows = [
        scored(
            f"{k}", snr=float(rng.uniform(0, 20)), text=float(rng.uniform(0, 0.2)), seconds=float(rng.uniform(2, 15))
        )
        for k in range(60)
    ]
    table = funnel(select(rows, recipe))
    total = sum(clip.seconds or 0 for clip in rows) / 3600
    assert table["probe"][0] == pytest.approx(total)
    rejected = sum(sum(reasons.values()) for _, reasons in table.values())
    assert 0 < table["kept"][0] == pytest.approx(total - rejected)
    assert set(table["audio"][1]) == {"audio.snr"}


def test_near_duplicates_need_the_same_sound_and_pictures() -> None:
    rng = np.random.default_rng(1)

    def pictures() -> list[int]:
        return [int(word) for word in rng.integers(-(1 << 63), 1 << 63, 20)]

    def sounds() -> list[int]:
        return [int(word) for word in rng.integers(0, 1 << 16, 36)]

    def flipped(hashes: list[int], bits: int, every: int = 1) -> list[int]:
        return [
            word ^ (at % every == 0) * sum(1 << int(bit) for bit in rng.choice(16, bits, replace=False))
            for at, word in enumerate(hashes)
        ]

    wall, voice, other = pictures(), sounds(), sounds()
    clips = [
        scored("a", video_hash=wall, audio_hash=voice),
        scored("b", video_hash=flipped(wall, 4), audio_hash=flipped(voice, 3, every=2)),  # compressed again
        scored("c", video_hash=wall, audio_hash=other),  # the same person before the same wall
        scored("d", video_hash=pictures(), audio_hash=voice),  # the same voice over other pictures
        scored("e", video_hash=wall[:10], audio_hash=voice[:16], seconds=2.0),  # half of it
    ]
    assert near_duplicates(clips, 14, 12) == {"b": "a"}
    verdicts = select(clips, Recipe())
    assert [each.reason for each in verdicts] == [None, DUPLICATE, None, None, None]
    assert verdicts[1].duplicate_of == "a"
