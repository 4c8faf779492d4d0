# SPDX-License-Identifier: Apache-2.0
"""The launch file, wherever launch_ros is (ROS from apt); the wheels of the registries do not have it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from binvpr_ros.config import share_directory

LAUNCH_FILE = Path(__file__).resolve().parents[1] / "launch" / "binvpr.launch.py"


def test_it_names_the_arguments_of_the_contract() -> None:
    text = LAUNCH_FILE.read_text(encoding="utf-8")
    for name in ("image_topic", "compressed", "namespace", "params_file", "model", "database", "log_level",
                 "use_sim_time", "fastdds_profile"):  # fmt: skip
        assert f'    "{name}": (' in text


@pytest.fixture
def launch_file(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("launch_ros.actions", reason="launch_ros is not installed (it comes with ROS from apt)")
    spec = importlib.util.spec_from_file_location("binvpr_launch", LAUNCH_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "get_package_share_directory", lambda _: str(share_directory()))
    return module


def started(launch_file: Any, **arguments: str) -> dict[str, Any]:
    """Return what the launch file would start: the node's command and environment."""
    launch: Any = pytest.importorskip("launch.actions")

    context = pytest.importorskip("launch").LaunchContext()
    for entity in launch_file.generate_launch_description().entities:
        if isinstance(entity, launch.DeclareLaunchArgument):
            if entity.name in arguments:
                context.launch_configurations[entity.name] = arguments[entity.name]
            entity.execute(context)
    *environment, node = launch_file.start_node(context)
    for action in environment:
        action.execute(context)
    node._perform_substitutions(context)
    command = [part.perform(context) if hasattr(part, "perform") else str(part) for item in node.cmd for part in item]
    return {"command": command, "environment": context.environment, "node": node}


def test_by_default_it_reads_the_camera_and_the_packages_parameters(launch_file: Any) -> None:
    command = " ".join(started(launch_file)["command"])
    assert "image:=/camera/image_raw" in command
    assert "__ns:=/binvpr" in command
    assert "__node:=binvpr" in command
    assert str(share_directory() / "config" / "binvpr.yaml") in command


def test_compressed_images_are_read_from_the_sibling_topic(launch_file: Any) -> None:
    command = " ".join(started(launch_file, compressed="true", image_topic="/front/image_raw")["command"])
    assert "image:=/front/image_raw/compressed" in command


def test_a_params_file_that_is_not_there(launch_file: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"params_file /nowhere\.yaml does not exist"):
        started(launch_file, params_file="/nowhere.yaml")


def test_a_truth_value_that_is_none(launch_file: Any) -> None:
    with pytest.raises(ValueError, match="compressed must be true or false, not 'maybe'"):
        started(launch_file, compressed="maybe")


def test_the_profile_does_not_replace_the_users(launch_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "mine.xml")
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE", raising=False)
    environment = started(launch_file, fastdds_profile="ours.xml")["environment"]
    assert environment["FASTRTPS_DEFAULT_PROFILES_FILE"] == "mine.xml"
    assert environment["FASTDDS_DEFAULT_PROFILES_FILE"] == "ours.xml"
