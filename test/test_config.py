# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from binvpr_ros.config import Config, ConfigError, PoseGraphConfig, model_path, share_directory

GENERATOR = Path(__file__).resolve().parents[1] / ".ci" / "parameters.py"
YAML = share_directory() / "config" / "binvpr.yaml"


def test_yaml_lists_every_parameter_with_its_default() -> None:
    listed = yaml.safe_load(YAML.read_text(encoding="utf-8"))
    defaults = {p.name: list(p.default) if isinstance(p.default, tuple) else p.default for p in Config.parameters()}
    assert listed == {"/**": {"ros__parameters": defaults}}


def test_the_params_file_and_the_page_are_made_from_the_parameters() -> None:
    made = runpy.run_path(str(GENERATOR))
    described = {
        "binvpr.yaml": Config.parameters(),
        "pose_graph.yaml": PoseGraphConfig.parameters(),
        "parameters.md": Config.parameters() + PoseGraphConfig.parameters(),
    }
    assert {file.name for file in made["FILES"]} == described.keys()
    for file, text in made["FILES"].items():
        assert file.read_text(encoding="utf-8") == text(), "run: make parameters"
        for parameter in described[file.name]:
            assert parameter.metadata["sentence"] in text()


def test_few_parameters_are_basic() -> None:
    assert 6 <= sum(parameter.metadata["basic"] for parameter in Config.parameters()) <= 10


def test_every_sentence_ends_and_every_range_is_a_range() -> None:
    for parameter in Config.parameters() + PoseGraphConfig.parameters():
        facts = parameter.metadata
        assert re.fullmatch(r"[A-Z].*\.", facts["sentence"])
        assert (facts["low"] is None) == (facts["high"] is None)
        if facts["low"] is not None:
            assert facts["low"] <= parameter.default <= facts["high"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"min_score": 1.5}, "min_score must be between 0.0 and 1.0, not 1.5"),
        ({"max_candidates": 0}, "max_candidates must be between 1 and 100, not 0"),
        ({"exclusion_time": float("nan")}, "exclusion_time must be between"),
        ({"backend": "tpu"}, "backend must be one of auto, delegate, litert, not 'tpu'"),
        ({"threads": 1.0}, "threads must be of type int"),
        ({"compressed": 1}, "compressed must be of type bool"),
        ({"database": 3}, "database must be of type str"),
        ({"maps": 3}, "maps must be a list of texts, such as [monday.db, tuesday.db] or monday.db,tuesday.db, not 3"),
        ({"maps": ["a.db", 3]}, "monday.db,tuesday.db, not ('a.db', 3)"),
        ({"model": "a\0b"}, r"model has characters that are not allowed in file names ('a\x00b'); use others"),
        ({"maps": ["a.db", "\ud800"]}, r"maps has characters that are not allowed in file names (('a.db', '\ud800'"),
        ({"maps": ["/a.db"], "database": "//a.db"}, "/a.db is named twice among maps and database; name it once"),
        ({"keyframe_min_interval": -0.1}, "keyframe_min_interval must be between 0.0 and 3600.0, not -0.1"),
        ({"confirmation_window": True}, "confirmation_window must be of type float, not True"),
        ({"min_inliers": 7}, "min_inliers must be between 8 and 500, not 7"),
        ({"verifications": 0}, "verifications must be between 1 and 100, not 0"),
    ],
)
def test_a_value_outside_its_range_is_refused_in_one_sentence(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)) as refused:
        Config(**change)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["a.db,b.db", "a.db, b.db", "[a.db, b.db]", "['a.db', \"b.db\"]"])
def test_several_maps_as_one_text(text: str) -> None:
    """As `-p maps:=a.db,b.db` gives them, and a launch argument."""
    assert Config(maps=text).maps == Config.value_of("maps", text) == ("a.db", "b.db")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("database", "2024", "2024"), ("min_score", "1e-1", 0.1), ("max_candidates", "7", 7), ("verify", "False", False)],
)
def test_a_value_that_is_written_as_text(name: str, text: str, value: object) -> None:
    assert Config.value_of(name, text) == value
    assert type(Config.value_of(name, text)) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [("max_candidates", "a few", "max_candidates must be of type int, not 'a few'"),
     ("verify", "maybe", "verify must be true or false, not 'maybe'")],
)  # fmt: skip
def test_a_text_that_is_no_value(name: str, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Config.value_of(name, text)


@pytest.mark.parametrize("none", [None, [], "", [""], ("",)])  # as rcl gives an empty list, and as YAML does
def test_no_earlier_maps(none: Any) -> None:
    assert Config(maps=none) == Config()


def test_a_whole_number_is_good_for_a_real_parameter() -> None:
    assert Config().replace(exclusion_time=20).exclusion_time == 20


def test_replace_leaves_the_original_alone() -> None:
    config = Config()
    assert config.replace(min_score=0.9).min_score == 0.9
    assert config == Config()


def test_model_path_is_the_packaged_one_unless_named() -> None:
    assert model_path(Config()).is_file()
    assert str(model_path(Config(model="/maps/mine.tflite"))) == "/maps/mine.tflite"


def test_the_home_folder_may_be_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/robot")
    config = Config(database="~/office.db", maps=("~/lab.db", "hall.db"))
    assert config.database == "/home/robot/office.db"
    assert config.maps == ("/home/robot/lab.db", "hall.db")
    assert config.model == ""


@pytest.mark.parametrize("text", ["1 2 3", "a b c d e f g", "0 0 0 0 0 0 0", "nan 0 0 0 0 0 1", "0 0 0 0 0 0 2"])
def test_a_camera_pose_is_seven_numbers_with_a_quaternion_of_length_one(text: str) -> None:
    with pytest.raises(ConfigError, match="camera_pose must be 'x y z qx qy qz qw'"):
        PoseGraphConfig(camera_pose=text)
    assert PoseGraphConfig(camera_pose="0.1 0 0.3 0 0 0 1").mounting == (0.1, 0, 0.3, 0, 0, 0, 1)
    assert PoseGraphConfig().mounting is None


def test_a_camera_beside_no_robot_and_a_frame_without_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="camera_pose must be within 1000 m of the robot's origin"):
        PoseGraphConfig(camera_pose="2000 0 0 0 0 0 1")
    with pytest.raises(ConfigError, match="map_frame must not be empty"):
        PoseGraphConfig(map_frame="")
