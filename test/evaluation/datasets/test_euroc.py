# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from binvpr_ros.evaluation.datasets.dataset import DatasetError, Options
from binvpr_ros.evaluation.datasets.euroc import EurocFolder

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
    assert drive.truth.tolist() == [[False, False], [True, False]]
    assert not EurocFolder.read(folder / part, Options(angle=19)).truth.any()
    (track / "data.csv").write_text("1,2,3\n")
    with pytest.raises(DatasetError, match=r"data.csv, line 1: it has 3 fields, not 4 or more"):
        EurocFolder.read(folder / part, Options())
