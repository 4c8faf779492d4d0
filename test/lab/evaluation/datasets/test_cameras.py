# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.lab.evaluation.datasets.cameras import camera_of, own_camera, read_camera
from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Options
from binvpr_ros.local_features.camera import Camera, CameraError

# As camera_calibration of ROS writes it.
CALIBRATION = """image_width: 640
image_height: 480
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [517.3, 0.0, 318.6, 0.0, 516.5, 255.3, 0.0, 0.0, 1.0]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.2624, -0.9531, -0.0054, 0.0026, 1.1633]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
projection_matrix:
  rows: 3
  cols: 4
  data: [520.0, 0.0, 318.6, 0.0, 0.0, 520.0, 255.3, 0.0, 0.0, 0.0, 1.0, 0.0]
"""


def test_a_calibration_file_of_ros(tmp_path: Path) -> None:
    (tmp_path / "camera.yaml").write_text(CALIBRATION, encoding="utf-8")
    camera = read_camera(tmp_path / "camera.yaml")
    assert camera.size == (640, 480)
    assert camera.matrix.tolist() == [[517.3, 0, 318.6], [0, 516.5, 255.3], [0, 0, 1]]
    assert camera.coefficients.tolist() == [0.2624, -0.9531, -0.0054, 0.0026, 1.1633]
    assert not camera.fisheye


def test_a_fisheye_lens(tmp_path: Path) -> None:
    text = CALIBRATION.replace("plumb_bob", "equidistant").replace(", 1.1633", "")
    (tmp_path / "camera.yaml").write_text(text, encoding="utf-8")
    camera = read_camera(tmp_path / "camera.yaml")
    assert camera.fisheye
    assert np.isfinite(camera.rays(np.array([[320, 240]], np.float32))).all()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no camera_matrix of nine numbers|is not a calibration file"),
        ("rubbish: [", "is not a calibration file"),
        (CALIBRATION.replace("517.3", "0.0"), r"camera.yaml: it holds no calibration"),
        (CALIBRATION.replace("517.3", ".Nan"), r"camera.yaml: it holds no calibration"),
        (CALIBRATION.replace("image_width: 640", "image_width: 0"), r"camera.yaml: it holds no calibration"),
        (CALIBRATION.replace("image_width: 640", "image_width: 300"), "it does not fit images of 300x480 pixels"),
        (CALIBRATION.replace("plumb_bob", "mirror"), "its 5 coefficients of the distortion model 'mirror' are not"),
        (CALIBRATION.replace(", 0.0026, 1.1633", ""), "its 3 coefficients of the distortion model 'plumb_bob' are not"),
    ],
)
def test_what_is_no_calibration_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "camera.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=sentence):
        read_camera(tmp_path / "camera.yaml")


def test_a_calibration_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"there is no calibration file .*none\.yaml"):
        read_camera(tmp_path / "none.yaml")


def test_numbers_of_no_camera_are_refused() -> None:
    with pytest.raises(CameraError, match="it holds no calibration"):
        camera_of((640, 480), [float("nan"), 500, 320, 240], "plumb_bob", [])
    with pytest.raises(CameraError, match=r"it does not fit images of 640x480 pixels .*centre 640, 480"):
        camera_of((640, 480), [1000, 1000, 640, 480], "plumb_bob", [])


def test_a_calibration_that_cannot_be_used_is_ignored_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> Camera:
        return camera_of((640, 480), [0, 0, 320, 240], "plumb_bob", [])

    def damaged() -> Camera:
        raise DatasetError("calib.txt, line 3: 'x' is not a number; correct the line")

    assert own_camera(Options(), Path("calib.txt"), broken) is None
    assert capsys.readouterr().err == (
        "calibration ignored (without a camera, closures of near images stay near): calib.txt: it holds no "
        "calibration; calibrate the camera, or go on without\n"
    )
    assert own_camera(Options(), Path("calib.txt"), damaged) is None
    assert capsys.readouterr().err.endswith("stay near): calib.txt, line 3: 'x' is not a number; correct the line\n")
    assert own_camera(Options(camera=Path("camera.yaml")), Path("calib.txt"), damaged) is None
    assert capsys.readouterr().err == ""


def test_a_comment_in_another_encoding_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "camera.yaml").write_bytes(b"# f\xfcr M\xfcnchen\n" + CALIBRATION.encode())
    assert read_camera(tmp_path / "camera.yaml").size == (640, 480)
    (tmp_path / "camera.yaml").write_text(CALIBRATION, "utf-16")
    with pytest.raises(DatasetError, match=r"camera.yaml (is not a calibration file|has no camera_matrix)"):
        read_camera(tmp_path / "camera.yaml")
