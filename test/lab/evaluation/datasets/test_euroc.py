# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Options
from binvpr_ros.lab.evaluation.datasets.euroc import EurocFolder

from .conftest import WriteImages, same_images

START = 1403636579763555584


@pytest.mark.parametrize("part", [".", "mav0"])
def test_a_euroc_folder(tmp_path: Path, write_images: WriteImages, part: str) -> None:
    folder = tmp_path / "MH_01"
    cam0, track = folder / "mav0/cam0", folder / "mav0/state_groundtruth_estimate0"
    stamps = [START, START + 20 * 10**9, START + 40 * 10**9]
    pictures = write_images(cam0 / "data", [f"{stamp}.png" for stamp in stamps])
    (cam0 / "data.csv").write_text(
        "#timestamp [ns],filename\r\n" + "".join(f"{stamp},{stamp}.png\r\n" for stamp in stamps)
    )
    assert not EurocFolder.fits(folder / part)
    track.mkdir()
    rest = ",0" * 9
    (track / "data.csv").write_text(
        "#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z []\n"
        f"{stamps[1] + 5_000_000},1,2,3,1,0,0,0{rest}\n"
        f"{stamps[2] - 5_000_000},1,2,3.5,0.9848078,0.1736482,0,0{rest}\n"  # half a metre up, turned by 20 degrees
    )
    assert EurocFolder.fits(folder / part)
    drive = EurocFolder.read(folder / part, Options())
    assert drive.name == "MH_01"
    assert same_images(drive.queries, pictures[1:])
    assert drive.stamps.tolist() == stamps[1:]
    assert drive.positions.tolist() == [[1, 2, 3], [1, 2, 3.5]]
    assert drive.truth.dense().tolist() == [[False, False], [True, False]]
    assert not EurocFolder.read(folder / part, Options(angle=19)).truth.answerable.any()
    assert (drive.optical, drive.camera, drive.left_out) == (False, None, {"without a pose": 1})
    (track / "data.csv").write_text("1,2,3\n")
    with pytest.raises(DatasetError, match=r"data.csv, line 1: it has 3 fields, not 4 or more"):
        EurocFolder.read(folder / part, Options())


# Mounted as on a robot: the body's x is the camera's z, its y the camera's -x; 10 cm ahead of it.
CAMERA_YAML = """%YAML:1.0
#Camera cam0: [the left one]
sensor_type: camera
T_BS:
  cols: 4
  rows: 4
  data: [0.0, 0.0, 1.0, 0.1,
         -1.0, 0.0, 0.0, 0.0,
         0.0, -1.0, 0.0, 0.0,
         0.0, 0.0, 0.0, 1.0]
rate_hz: 20
resolution: [752, 480]
camera_model: pinhole
intrinsics: [458.654, 457.296, 367.215, 248.375] #fu, fv, cu, cv
distortion_model: radial-tangential
distortion_coefficients: [-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05]
"""
# A marker one metre above the body.
TRACK_YAML = "T_BS:\n  cols: 4\n  rows: 4\n  data: [1, 0, 0, 0,  0, 1, 0, 0,  0, 0, 1, 1,  0, 0, 0, 1]\n"


def write_rig(folder: Path, write_images: WriteImages, track: str) -> None:
    write_images(folder / "cam0/data", ["0.png", "1.png"])
    (folder / "cam0/data.csv").write_text("0,0.png\n20000000000,1.png\n")
    (folder / track).mkdir(parents=True)
    # The second pose is turned to the left by 90 degrees.
    (folder / track / "data.csv").write_text("0,0,0,2,1,0,0,0\n20000000000,0,0,2,0.70710678,0,0,0.70710678\n")


@pytest.mark.parametrize("track", ["state_groundtruth_estimate0", "vicon0", "mocap0"])
def test_poses_become_those_of_the_camera(tmp_path: Path, write_images: WriteImages, track: str) -> None:
    write_rig(tmp_path, write_images, track)
    assert EurocFolder.fits(tmp_path)
    assert not EurocFolder.read(tmp_path, Options()).optical
    (tmp_path / "cam0/sensor.yaml").write_text(CAMERA_YAML)
    drive = EurocFolder.read(tmp_path, Options())
    assert drive.optical
    np.testing.assert_allclose(drive.positions, [(0.1, 0, 2), (0, 0.1, 2)], atol=1e-7)
    np.testing.assert_allclose(drive.rotations[:, :, 2], [(1, 0, 0), (0, 1, 0)], atol=1e-7)  # ahead
    np.testing.assert_allclose(drive.rotations[:, :, 1], [(0, 0, -1)] * 2, atol=1e-7)  # down
    assert drive.camera is not None
    assert (drive.camera.size, drive.camera.fisheye) == ((752, 480), False)
    assert drive.camera.matrix.tolist() == [[458.654, 0, 367.215], [0, 457.296, 248.375], [0, 0, 1]]
    assert drive.camera.coefficients.tolist() == [-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05]
    (tmp_path / track / "sensor.yaml").write_text(TRACK_YAML)
    np.testing.assert_allclose(EurocFolder.read(tmp_path, Options()).positions, [(0.1, 0, 1), (0, 0.1, 1)], atol=1e-7)


def test_a_fisheye_and_a_lens_that_is_not_known(tmp_path: Path, write_images: WriteImages) -> None:
    write_rig(tmp_path, write_images, "mocap0")
    yaml = tmp_path / "cam0/sensor.yaml"
    yaml.write_text(CAMERA_YAML.replace("radial-tangential", "equidistant").replace("[752, 480]", "[512, 512]"))
    camera = EurocFolder.read(tmp_path, Options()).camera
    assert camera is not None
    assert (camera.size, camera.fisheye) == ((512, 512), True)
    yaml.write_text(CAMERA_YAML.replace("radial-tangential", "double-sphere"))
    drive = EurocFolder.read(tmp_path, Options())
    assert (drive.camera, drive.optical) == (None, True)


@pytest.mark.parametrize(
    ("yaml", "sentence"),
    [
        (re.sub("T_BS", "T_SB", CAMERA_YAML), "it has no T_BS"),
        (CAMERA_YAML.replace("0.0, 0.0, 1.0, 0.1", "0.0, 0.0, 1.0"), "its data must be a list of 16 numbers"),
        (CAMERA_YAML.replace("-1.0", "-2.0"), "its T_BS has no rotation"),
        (CAMERA_YAML.replace("-1.0", "nan"), "its data must be a list of 16 numbers"),
        (CAMERA_YAML.replace("-1.0", "one"), "its data must be a list of 16 numbers"),
    ],
)
@pytest.mark.parametrize("part", ["cam0", "vicon0"])
def test_without_its_mounting_the_poses_are_those_of_the_body(
    tmp_path: Path, write_images: WriteImages, capsys: pytest.CaptureFixture[str], part: str, yaml: str, sentence: str
) -> None:
    write_rig(tmp_path, write_images, "vicon0")
    (tmp_path / "cam0/sensor.yaml").write_text(CAMERA_YAML)
    (tmp_path / part / "sensor.yaml").write_text(yaml)
    drive = EurocFolder.read(tmp_path, Options())
    assert not drive.optical
    assert drive.positions.tolist() == [[0, 0, 2], [0, 0, 2]]
    assert drive.camera is not None
    assert capsys.readouterr().err == (
        "calibration ignored (the poses stay those of the body, whose roll counts too): "
        f"{tmp_path}/{part}/sensor.yaml: {sentence}; restore the file\n"
    )


@pytest.mark.parametrize(
    ("yaml", "sentence"),
    [
        (
            re.sub(r"(_coefficients: \[.*?, .*?), .*\]", r"\1]", CAMERA_YAML),
            "its 2 coefficients of the distortion model 'plumb_bob' are not known here",
        ),
        (CAMERA_YAML.replace("radial-tangential", "mirror"), "of the distortion model 'mirror' are not known here"),
        (CAMERA_YAML.replace("458.654", "0"), "it holds no calibration"),
        (CAMERA_YAML.replace("458.654", "nan"), "its intrinsics must be a list of 4 numbers"),
        (CAMERA_YAML.replace("752, 480", "752"), "its resolution must be a list of 2 numbers"),
        (CAMERA_YAML.replace("752, 480", "inf, 480"), "its resolution must be a list of 2 numbers"),
    ],
)
def test_a_camera_that_cannot_be_used_costs_only_itself(
    tmp_path: Path, write_images: WriteImages, capsys: pytest.CaptureFixture[str], yaml: str, sentence: str
) -> None:
    write_rig(tmp_path, write_images, "vicon0")
    (tmp_path / "cam0/sensor.yaml").write_text(yaml)
    drive = EurocFolder.read(tmp_path, Options())
    assert (drive.camera, drive.optical) == (None, True)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "(without a camera, closures of near images stay near)" in said
    assert f"{tmp_path}/cam0/sensor.yaml: " in said
    assert sentence in said


def test_a_download_that_was_cut_costs_only_what_is_missing(tmp_path: Path, write_images: WriteImages) -> None:
    write_rig(tmp_path, write_images, "vicon0")
    with (tmp_path / "cam0/data.csv").open("a") as table:
        table.write("40000000000,2.png\n600000")
    drive = EurocFolder.read(tmp_path, Options())
    assert len(drive.queries) == 2
    assert drive.left_out == {"with a line that cannot be read": 1, "without a file": 1}


def test_files_of_windows(tmp_path: Path, write_images: WriteImages) -> None:
    pictures = write_images(tmp_path / "cam0/data/left", ["0.png", "1.png"])
    write_rig(tmp_path, write_images, "mocap0")
    (tmp_path / "cam0/data.csv").write_bytes(b"# \xfc\n0,left\\0.png\n20000000000,left\\1.png\n")
    (tmp_path / "cam0/sensor.yaml").write_bytes(b"# f\xfcr M\xfcnchen\n" + CAMERA_YAML.encode())
    drive = EurocFolder.read(tmp_path, Options())
    assert same_images(drive.queries, pictures)
    assert drive.camera is not None
    assert drive.optical
