# SPDX-License-Identifier: Apache-2.0
"""Every parameter once: name, default, range, unit and one sentence.

The ROS node declares its parameters from here; config/binvpr.yaml and docs/parameters.md are made from it by
`make parameters`, and a test keeps them equal.
"""

from __future__ import annotations

import dataclasses
import math
import os
import site
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import parse_qs, urlsplit

PACKAGE = "binvpr_ros"
DEFAULT_MODEL = "binvpr20r.tflite"
LOCAL_MODEL = "binvpr_local.tflite"
"""The packaged network for local features."""
KEYFRAME_SOURCES = ("images", "topic")
BACKENDS = ("auto", "delegate", "litert")


ParametersKind = TypeVar("ParametersKind", bound="Parameters")


class ConfigError(ValueError):
    """A parameter has a value that it cannot take; the message names it, its range and the value."""


def _parameter(
    default: Any,
    sentence: str,
    *,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    choices: tuple[str, ...] = (),
    live: bool = False,
    basic: bool = False,
) -> Any:
    """Describe one parameter; `live` ones can be changed while the node runs, `basic` ones are for everybody."""
    facts = {"low": low, "high": high, "unit": unit, "choices": choices, "live": live, "basic": basic}
    return field(default=default, metadata={"sentence": sentence, **facts})


@dataclass(frozen=True)
class Parameters:
    """The parameters of a node; raises ConfigError when one is out of its range."""

    PATHS: ClassVar[tuple[str, ...]] = ()
    """Those that name a file, whose ~ is filled in."""

    def __post_init__(self) -> None:
        for parameter in self.parameters():
            value = getattr(self, parameter.name)
            if isinstance(parameter.default, tuple) and isinstance(value, list | str | None):
                # As ROS and YAML give several; of an empty list rcl says that it is not set.
                several = texts_of(value) if isinstance(value, str) else tuple(value or ("",))
                object.__setattr__(self, parameter.name, several)
            _check(parameter, getattr(self, parameter.name))
        for name in self.PATHS:
            object.__setattr__(self, name, with_home(getattr(self, name)))

    @classmethod
    def parameters(cls) -> tuple[dataclasses.Field[Any], ...]:
        """Return the parameters as dataclass fields; `metadata` holds sentence, low, high, unit, choices and live."""
        return dataclasses.fields(cls)

    @classmethod
    def value_of(cls, name: str, text: str) -> Any:
        """Return the value of a parameter that is written as text, as on a command line; raises ConfigError."""
        default: Any = cls.__dataclass_fields__[name].default
        kind = type(default)
        if kind is bool:
            return truth_value(name, text)
        if kind is tuple:
            return texts_of(text)
        try:
            return kind(text)
        except ValueError:
            raise ConfigError(f"{name} must be of type {kind.__name__}, not {text!r}") from None

    @classmethod
    def bounds(cls, name: str) -> tuple[float, float]:
        """Return the least and the largest value of a parameter that is a number."""
        metadata = cls.__dataclass_fields__[name].metadata
        return metadata["low"], metadata["high"]

    def replace(self: ParametersKind, **changes: Any) -> ParametersKind:
        """Return a copy with `changes`; raises ConfigError where one is out of range."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Config(Parameters):
    """The parameters of the recognizer and its node; raises ConfigError when one is out of its range."""

    PATHS = ("model", "database", "local_features", "mask")

    model: str = _parameter("", "Model file (.tflite, with its .json next to it); empty: the packaged one.", basic=True)
    database: str = _parameter("", "SQLite file for the keyframes; empty: memory only.", basic=True)
    maps: tuple[str, ...] = _parameter(
        ("",), "Map files of earlier drives to match against, opened read-only.", basic=True
    )
    fleet: str = _parameter(
        "",
        "PostgreSQL URL of the map that robots share, without a password (PGPASSWORD, ~/.pgpass); needs database.",
        basic=True,
    )
    fleet_site: str = _parameter("default", "Site of the fleet's map that this robot drives in.", basic=True)
    max_keyframes: int = _parameter(
        0,
        "Maximum number of keyframes; a full map replaces redundant ones, never a place's only view; 0: no limit.",
        low=0,
        high=1_000_000_000,
        live=True,
        basic=True,
    )
    thumbnails: bool = _parameter(
        False, "Keep a small picture of each keyframe in the map, for people to look at.", live=True
    )
    backend: str = _parameter("auto", "Runtime for the model.", choices=BACKENDS)
    untried_runtime: bool = _parameter(
        False, "Run, at your own risk, with a TensorFlow Lite version that the delegate was never tested with."
    )
    threads: int = _parameter(1, "Threads for inference.", low=1, high=64)
    compressed: bool = _parameter(False, "Subscribe to sensor_msgs/CompressedImage instead of Image.", basic=True)
    stretch_16_bit: bool = _parameter(
        False, "Stretch 16-bit grey and Bayer images to their own range, for cameras with 10 to 14 bits."
    )

    keyframe_source: str = _parameter(
        "images",
        "What becomes a keyframe: images that differ, or those whose stamps a back end sends on keyframe_stamps.",
        choices=KEYFRAME_SOURCES,
        basic=True,
    )
    recent_images: int = _parameter(
        60, "Number of latest images kept until keyframe_stamps names them, within 64 MiB.", low=1, high=10_000
    )
    keyframe_distance: float = _parameter(
        -1.0, "Share of descriptor bits that must change for a new keyframe; -1: more than the model's own noise.",
        low=-1.0, high=1.0, live=True,
    )  # fmt: skip
    keyframe_min_interval: float = _parameter(
        0.5, "Minimum time between two keyframes; a quarter of it while the view changes fast.", low=0.0, high=3600.0,
        unit="s", live=True,
    )  # fmt: skip
    min_contrast: float = _parameter(
        6.0, "Minimum standard deviation of the grey values (0 to 255); below it, an image shows nothing to recognise.",
        low=0.0, high=127.0, live=True,
    )  # fmt: skip

    exclusion_time: float = _parameter(
        10.0, "Keyframes younger than this are not matched.", low=0.0, high=86400.0, unit="s", live=True, basic=True
    )
    exclusion_keyframes: int = _parameter(
        10, "Number of latest keyframes of the session that are not matched.", low=0, high=1_000_000, live=True
    )
    min_score: float = _parameter(
        0.0,
        "Minimum score of a loop closure; 0 is the map's median similarity, 1 that of neighbouring keyframes.",
        low=0.0,
        high=1.0,
        live=True,
    )
    shift_cells: int = _parameter(
        1,
        "Descriptor cells (with binvpr20r an eighth of the image) by which a view may be shifted each way; 0: none.",
        low=0,
        high=2,
        live=True,
    )
    sequence_keyframes: int = _parameter(
        1, "Number of latest keyframes matched together, at any speed along the map; 1: each by itself.",
        low=1, high=100, live=True,
    )  # fmt: skip
    confirmations: int = _parameter(
        2,
        "Without verify: number of preceding keyframes that must have matched near the same place.",
        low=0,
        high=100,
        live=True,
    )
    confirmation_window: float = _parameter(
        2.5, "Keyframes of a session at most this far apart in time count as views of one place.", low=0.0, high=60.0,
        unit="s", live=True,
    )  # fmt: skip
    verify: bool = _parameter(True, "Publish only closures that the geometry of local features verifies.", live=True)
    local_features: str = _parameter(
        "learned",
        "Features for verification: learned (the packaged 1-bit network), orb, or a model file of your own.",
    )
    mask: str = _parameter(
        "",
        "The robot itself in the image: an image file that is black there, or 'left top right bottom' in shares.",
    )
    min_inliers: int = _parameter(
        15,
        "Minimum number of matches that agree on one geometry, times the share of the common view that they cover.",
        low=8,
        high=500,
        live=True,
        basic=True,
    )
    verifications: int = _parameter(
        8, "Verification budget per keyframe and map; candidates not reached are refused.", low=1, high=100, live=True
    )
    verification_time: float = _parameter(
        0.2,
        "Time after which no more verifications of a keyframe start, as a last resort.",
        low=0.0,
        high=60.0,
        unit="s",
        live=True,
    )
    odometry_drift: float = _parameter(
        0.1,
        "Odometry error, as a share of the distance travelled; matches farther away are refused; 0: ignore odometry.",
        low=0.0,
        high=10.0,
        live=True,
    )
    max_candidates: int = _parameter(3, "Maximum number of candidates per keyframe.", low=1, high=100, live=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "maps", tuple(map(with_home, self.maps)))
        files = [os.path.realpath(name) for name in (*self.maps, self.database) if name]
        if twice := [file for file in files if files.count(file) > 1]:
            raise ConfigError(f"{twice[0]} is named twice among maps and database; name it once")
        if self.fleet:
            check_fleet_url(self.fleet)
            if not self.database:
                raise ConfigError("fleet needs database, the file from which this robot's keyframes are sent; name one")
            if not self.fleet_site:
                raise ConfigError("fleet_site must not be empty; name the site, such as hall")


FARTHEST_CAMERA = 1e3
"""Metres from the origin of the robot's frame."""


@dataclass(frozen=True)
class PoseGraphConfig(Parameters):
    """The parameters of the node pose_graph; raises ConfigError when one is out of its range."""

    PATHS = ("graph", "trajectory")

    graph: str = _parameter(
        "", "SQLite file for the keyframes' odometry and the loop constraints; empty: memory only.", basic=True
    )
    trajectory: str = _parameter("pose_graph", "Path that ~/save writes to, with .tum and .g2o appended.", basic=True)
    camera_pose: str = _parameter(
        "",
        "Camera's optical frame in the robot's, 'x y z qx qy qz qw'; empty: from /tf_static, else the origin.",
        basic=True,
    )
    map_frame: str = _parameter("map", "Frame of the corrected poses.")
    publish_tf: bool = _parameter(True, "Also publish map -> odom on /tf; set to false if another node does.")
    odometry_drift: float = _parameter(
        0.05,
        "Odometry error (two standard deviations), as a share of the distance and of the turn.",
        low=0.001,
        high=1.0,
        basic=True,
    )
    odometry_turn: float = _parameter(
        1.0,
        "Rotation error of odometry per metre travelled (two standard deviations).",
        low=0.01,
        high=45.0,
        unit="deg/m",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.camera_pose and self.mounting is None:
            raise ConfigError(
                f"camera_pose must be 'x y z qx qy qz qw', such as '0.1 0 0.3 -0.5 0.5 -0.5 0.5', "
                f"not {self.camera_pose!r}"
            )
        if self.mounting is not None and math.hypot(*self.mounting[:3]) > FARTHEST_CAMERA:
            raise ConfigError(
                f"camera_pose must be within {FARTHEST_CAMERA:.0f} m of the robot's origin, not {self.camera_pose!r}"
            )
        if not self.map_frame:
            raise ConfigError("map_frame must not be empty; name a frame, such as map")

    @property
    def mounting(self) -> tuple[float, ...] | None:
        """Position and quaternion [7] of the camera in the robot's frame; None where `camera_pose` does not tell."""
        try:
            numbers = tuple(map(float, self.camera_pose.split()))
        except ValueError:
            return None
        unit = len(numbers) == 7 and abs(math.hypot(*numbers[3:]) - 1) < 0.01 and all(map(math.isfinite, numbers))
        return numbers if unit else None


def check_fleet_url(url: str) -> None:
    """Raise ConfigError where a URL is not one of PostgreSQL, or holds a password, which parameters show to all."""
    try:
        parts = urlsplit(url)
        secret, _ = parts.password or "password" in parse_qs(parts.query.lower()), parts.port
    except ValueError:  # whose text may quote a password
        raise ConfigError("fleet is no URL; write it as postgresql://robot@server/fleet") from None
    if any("@" in part for part in (parts.path, parts.query, parts.fragment)):
        raise ConfigError("fleet has an @ after the server's name, as of a password; write %40 where there must be one")
    if parts.scheme not in ("postgresql", "postgres"):
        raise ConfigError("fleet must be a URL such as postgresql://robot@server/fleet")
    if secret:
        raise ConfigError(
            "fleet must hold no password; put it into PGPASSWORD, or ~/.pgpass, and take it out of the URL"
        )


def _check(parameter: dataclasses.Field[Any], value: Any) -> None:
    kind = type(parameter.default)
    if kind is float and type(value) is int:
        kind = int
    if kind is tuple and not (type(value) is tuple and all(type(one) is str for one in value)):
        raise ConfigError(
            f"{parameter.name} must be a list of texts, such as [monday.db, tuesday.db] or monday.db,tuesday.db, "
            f"not {value!r}"
        )
    if type(value) is not kind:
        raise ConfigError(f"{parameter.name} must be of type {type(parameter.default).__name__}, not {value!r}")
    texts = value if isinstance(value, tuple) else (value,)
    if not all(_can_be_path(text) for text in texts if isinstance(text, str)):
        raise ConfigError(f"{parameter.name} has characters that are not allowed in file names ({value!r}); use others")
    low, high, choices = (parameter.metadata[key] for key in ("low", "high", "choices"))
    if low is not None and not low <= value <= high:
        raise ConfigError(f"{parameter.name} must be between {low} and {high}, not {value}")
    if choices and value not in choices:
        raise ConfigError(f"{parameter.name} must be one of {', '.join(choices)}, not {value!r}")


def truth_value(name: str, text: str) -> bool:
    """Return what is written as true or false; raises ConfigError."""
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise ConfigError(f"{name} must be true or false, not {text!r}") from None


def texts_of(text: str) -> tuple[str, ...]:
    """Return what is written with commas between, in brackets and quotes or without them."""
    return tuple(one.strip(" '\"") for one in text.strip("[] ").split(","))


def _can_be_path(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def with_home(path: str) -> str:
    """Return a path with its ~ filled in, which no shell has done in `database:=~/office.db`; nothing stays nothing."""
    return os.path.expanduser(path)  # noqa: PTH111 - of nothing Path makes the present folder


def share_directory() -> Path:
    """Return the folder that holds config/ and models/: a checkout's root, or share/binvpr_ros of an installation."""
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    checkout = Path(__file__).resolve().parents[1]
    prefixes += [Path(sys.prefix), Path(site.getuserbase())]  # of pip, and of pip outside a virtual environment
    for place in (checkout, *(prefix / "share" / PACKAGE for prefix in prefixes)):
        if (place / "models" / DEFAULT_MODEL).is_file():
            return place
    raise ConfigError(f"{DEFAULT_MODEL} of {PACKAGE} was not found; install the package, or source its workspace")


def model_path(config: Config) -> Path:
    """Return the model file that `config` names, or the packaged one."""
    return Path(config.model) if config.model else share_directory() / "models" / DEFAULT_MODEL
