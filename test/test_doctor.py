# SPDX-License-Identifier: Apache-2.0
"""The doctor on this machine, on one that has nothing but Python, and on ones where something is broken."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from binvpr_ros import config, doctor
from binvpr_ros.config import share_directory
from binvpr_ros.doctor import (
    CHECKS,
    FAILS,
    NOT_TRIED,
    OK,
    WARNING,
    Finding,
    check_disk,
    check_fleet,
    check_gtsam,
    check_models,
    room_for_images,
)

ROOT = Path(__file__).resolve().parents[1]
PYTHON = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")


def run(*arguments: str, python: Path | str = sys.executable, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(python), *arguments]
    wide = {**os.environ, "COLUMNS": "300", **environment}
    return subprocess.run(command, cwd=ROOT, env=wide, capture_output=True, text=True, timeout=240, check=False)


def row(output: str, name: str) -> str:
    """Return the line of a check, without the lines of the table."""
    lines = (" ".join(line.replace("│", " ").split()) for line in output.splitlines())
    return next(line for line in lines if line.startswith(f"{name} "))


def test_with_nothing_but_python_it_says_what_is_missing() -> None:
    shown = run("-S", "-m", "binvpr_ros.doctor", python=PYTHON, PYTHONPATH="")
    assert shown.returncode == 1
    assert shown.stderr == ""
    assert row(shown.stdout, "Python").startswith("Python ok 3.")
    assert row(shown.stdout, "models").startswith("models ok binvpr20, binvpr20r, binvpr_local as their cards say")
    assert row(shown.stdout, "NumPy") == "NumPy fails not installed"
    assert row(shown.stdout, "OpenCV") == "OpenCV not tried it needs NumPy"
    assert row(shown.stdout, "network") == "network not tried it needs OpenCV and TFLite runtime and delegate"
    assert "\n1. NumPy: run: sudo apt install python3-numpy\n" in shown.stdout
    assert shown.stdout.endswith("The node does not work here: NumPy.\n")


@pytest.mark.usefixtures("ros")
def test_a_machine_on_which_the_node_works_and_a_camera_publishes() -> None:
    import rclpy
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image

    camera = rclpy.create_node("camera")
    camera.create_publisher(Image, "/front/image_raw", 1)
    camera.create_publisher(CameraInfo, "/front/camera_info", 1)
    camera.create_publisher(Image, "/front/binvpr/match_image", 1)
    camera.create_publisher(CompressedImage, "/rear/image_raw/compressed", 1)
    try:
        shown = run("-m", "binvpr_ros.doctor", "--seconds", "8")  # discovery may take 3 s, and longer on a busy machine
    finally:
        camera.destroy_node()
    assert shown.returncode == 0, shown.stdout
    results = {check.name: row(shown.stdout, check.name).removeprefix(f"{check.name} ") for check in CHECKS}
    for name in ("Python", "NumPy", "OpenCV", "TFLite runtime", "delegate", "models", "network", "ROS 2", "middleware"):
        assert results[name].startswith("ok "), results[name]
    assert results["network"] == "ok binvpr20r on delegate describes an image in 2,048 bits"
    assert results["cameras"] == (
        "ok /front/image_raw, with camera_info; /rear/image_raw/compressed (compressed), without camera_info"
    )


@pytest.mark.parametrize(
    ("package", "text", "name", "found"),
    [
        ("numpy", "import os; os.abort()", "NumPy", "NumPy fails the check died of SIGABRT"),
        ("numpy", "raise ValueError('odd')", "NumPy", "NumPy fails cannot be imported: ValueError: odd"),
        (
            "numpy",
            "try:\n    import _no_such_core\nexcept ImportError as e:\n    raise ImportError('\\nREAD THIS') from e",
            "NumPy",
            "NumPy fails cannot be imported: ModuleNotFoundError: No module named '_no_such_core'",
        ),
        ("cv2", "raise OSError('cut off')", "OpenCV", "OpenCV fails cannot be imported: OSError: cut off"),
        ("cv2", "", "OpenCV", "OpenCV fails cannot be imported: AttributeError: module 'cv2' has no attribute"),
        ("ai_edge_litert", "", "TFLite runtime", "TFLite runtime fails ai_edge_litert cannot be imported: Attribute"),
        (
            "ai_edge_litert",
            "raise OSError('invalid ELF header')",
            "TFLite runtime",
            "TFLite runtime fails ai_edge_litert cannot be imported: OSError: invalid ELF header",
        ),
        ("rclpy", "raise RuntimeError('odd')", "ROS 2", "ROS 2 fails cannot be imported: RuntimeError: odd"),
        ("numpy", "__version__ = '1.19.5'", "NumPy", "NumPy fails 1.19.5"),
        (
            "cv2",
            "raise ImportError('numpy.core.multiarray failed to import')",
            "OpenCV",
            "OpenCV fails cannot be used with NumPy ",
        ),
        ("ai_edge_litert", "__version__ = '99.0.0'", "TFLite runtime", "TFLite runtime fails ai_edge_litert 99.0.0"),
        (
            "rclpy",
            "raise ModuleNotFoundError(name='rclpy._rclpy_pybind11')",
            "ROS 2",
            "ROS 2 fails no rclpy._rclpy_pyb",
        ),
    ],
)
def test_what_is_broken_is_named_and_the_rest_is_checked(
    tmp_path: Path, package: str, text: str, name: str, found: str
) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(f"{text}\n")
    (tmp_path / package / "interpreter.py").touch()
    shown = run("-m", "binvpr_ros.doctor", "--seconds", "0", PYTHONPATH=str(tmp_path))
    assert shown.returncode == 1
    assert row(shown.stdout, name).startswith(found)
    assert any(line.partition(" ")[2].startswith(f"{name}: ") for line in shown.stdout.splitlines())
    assert "please report it" not in shown.stdout or "SIGABRT" in found
    assert row(shown.stdout, "models").startswith("models ok ")
    assert row(shown.stdout, "disk").startswith("disk ")


@pytest.mark.parametrize(
    ("damage", "found"),
    [("cut", "is not the file of its card (checksums differ)"), ("no card", "or its card cannot be read"),
     ("missing", "lacks binvpr20r.tflite")],
)  # fmt: skip
def test_a_packaged_model_that_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, found: str
) -> None:
    shutil.copytree(share_directory() / "models", tmp_path / "models")
    model = tmp_path / "models" / "binvpr20r.tflite"
    if damage == "cut":
        model.write_bytes(model.read_bytes()[:-100])
    else:
        (model if damage == "missing" else model.with_suffix(".json")).unlink()
    monkeypatch.setattr(config, "share_directory", lambda: tmp_path)
    finding = check_models(argparse.Namespace())
    assert finding.result == FAILS
    assert found in finding.found
    assert "install the package again" in finding.advice


def test_the_disk_of_the_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = check_disk(argparse.Namespace(database=str(tmp_path / "office.db")))
    assert named.result == OK
    assert named.found.endswith(f"hours of keyframes, free for {tmp_path / 'office.db'}")
    monkeypatch.chdir(tmp_path)
    anywhere = check_disk(argparse.Namespace(database=""))
    assert anywhere.result == OK
    assert anywhere.found.endswith(f", free in {tmp_path}; name the map to check its disk: --database FILE")
    nowhere = check_disk(argparse.Namespace(database=str(tmp_path / "maps" / "office.db")))
    assert (nowhere.result, nowhere.advice) == (FAILS, f"run: mkdir -p {tmp_path / 'maps'}")
    for strange, found in ((tmp_path, f"{tmp_path} is a folder"), (Path("/dev/full"), "/dev/full is a device")):
        finding = check_disk(argparse.Namespace(database=str(strange)))
        assert finding == (FAILS, f"{found}, and a map is a file", "name a file: --database FILE")
    monkeypatch.setattr(doctor, "NEARLY_FULL", 1 << 62)
    full = check_disk(argparse.Namespace(database=str(tmp_path / "office.db")))
    assert full.result == WARNING
    assert full.found.endswith(": nearly full")


def test_the_room_for_large_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    ours = share_directory() / "config" / "fastdds_large_images.xml"
    small = tmp_path / "small.xml"
    small.write_text(ours.read_text().replace("33554432", "524288"))
    export = f"run in the shell that starts the camera driver: export FASTRTPS_DEFAULT_PROFILES_FILE={ours}"
    for profile, found in (
        ("", "half of a camera's colour images get lost"),
        (str(small), f"{small} gives shared memory 0.5 MiB, too few"),
        (str(tmp_path / "none.xml"), f"the profile {tmp_path / 'none.xml'} cannot be read"),
    ):
        monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", profile)
        finding = room_for_images("rmw_fastrtps_cpp")
        assert (finding.result, finding.advice) == (WARNING, export)
        assert found in finding.found
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", str(ours))
    assert "MiB" in room_for_images("rmw_fastrtps_cpp").found
    assert room_for_images("rmw_cyclonedds_cpp").result == NOT_TRIED


def test_pose_graph_needs_gtsam_and_the_node_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gtsam", None)  # as if it were not installed
    result, found, _ = check_gtsam(argparse.Namespace())
    assert result == OK
    assert found.startswith("GTSAM is not installed, which only pose_graph needs; for that, run: ")
    assert "install --no-deps gtsam" in found
    monkeypatch.delitem(sys.modules, "gtsam")
    (tmp_path / "gtsam.py").write_text("raise ImportError('made for another NumPy')")
    monkeypatch.syspath_prepend(str(tmp_path))
    result, found, advice = check_gtsam(argparse.Namespace())
    assert (result, found) == (WARNING, "GTSAM cannot be used: ImportError: made for another NumPy")
    assert "gtsam" in advice


def test_what_others_print_into_a_check_is_no_finding(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit\nprint('welcome', end='')\natexit.register(print, 'good bye')\n"
    )
    shown = run("-m", "binvpr_ros.doctor", "--seconds", "0", PYTHONPATH=str(tmp_path))
    assert shown.stderr == ""
    assert row(shown.stdout, "NumPy").startswith("NumPy ok ")
    assert row(shown.stdout, "disk").startswith("disk ok ")


@pytest.mark.parametrize("colour", [{}, {"FORCE_COLOR": "1"}])
def test_a_reader_that_leaves_early_changes_nothing(colour: dict[str, str]) -> None:
    code = "import os; from binvpr_ros import doctor; finding = doctor.Finding(doctor.OK, 'all is well' * 9); "
    code += "doctor.diagnose = lambda _: {'disk': finding}; raise SystemExit(doctor.main())"
    read, write = os.pipe()
    os.close(read)
    left = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **colour}, stdout=write, stderr=subprocess.PIPE,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(write)
    assert (left.returncode, left.stderr) == (0, "")


def test_ctrl_c_is_said_in_a_sentence() -> None:
    doctor_ = subprocess.Popen([sys.executable, "-m", "binvpr_ros.doctor"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    time.sleep(1)  # until it checks
    doctor_.send_signal(signal.SIGINT)
    _, errors = doctor_.communicate(timeout=60)
    assert (doctor_.returncode, errors) == (1, "doctor: interrupted\n")


def test_no_import_outside_the_standard_library() -> None:
    code = "import sys; before = set(sys.modules); import binvpr_ros.doctor; "
    code += "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    shown = run("-c", code)
    assert set(shown.stdout.split()) - sys.stdlib_module_names == {"binvpr_ros"}


def test_a_server_of_a_fleet_is_asked_where_it_is_named(request: pytest.FixtureRequest) -> None:
    assert check_fleet(argparse.Namespace(fleet=""))[:2] == (
        OK,
        "not used; --fleet URL checks the map that robots share",
    )
    pytest.importorskip("asyncpg", reason="the extra `fleet` is not installed")
    server = request.getfixturevalue("fleet_server")
    assert check_fleet(argparse.Namespace(fleet=server.url("alice"))) == Finding(
        OK, "version 1 of its tables, with an index"
    )
    for url, found, advice in (
        (server.url("alice", "template1"), "this database holds no map of a fleet", "run: binvpr fleet init"),
        ("postgresql://alice@/fleet?host=/nowhere", "/nowhere/fleet cannot be reached", "check the server"),
        ("postgresql://a:secret@db/fleet", "fleet must hold no password", "put it into PGPASSWORD"),
    ):
        finding = check_fleet(argparse.Namespace(fleet=url))
        assert finding.result == FAILS
        assert finding.found.startswith(found)
        assert finding.advice.startswith(advice)
