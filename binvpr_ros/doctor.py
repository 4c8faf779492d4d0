# SPDX-License-Identifier: Apache-2.0
"""`binvpr doctor`: check whether this machine can run the node, and say what to do where it cannot.

It needs nothing but Python. Each check runs in a process of its own, since what does not fit together may crash.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from binvpr_ros.installation import OF_APT, how_to_install, in_venv, numbers_of

OK, WARNING, FAILS, NOT_TRIED = "ok", "warning", "fails", "not tried"
STYLES = {OK: "green", WARNING: "yellow", FAILS: "bold red", NOT_TRIED: "dim"}

MACHINES = ("x86_64", "aarch64")
LEAST_PYTHON, LEAST_NUMPY, LEAST_OPENCV = (3, 10), (1, 21), (4, 5)
DISTRIBUTIONS = ("humble", "jazzy", "kilted")
PROFILE = "fastdds_large_images.xml"
LARGE_IMAGE = 1920 * 1080 * 3
"""Bytes of a colour image that a shared-memory segment should hold."""
NEARLY_FULL = 256 << 20
"""Bytes on the disk of the map, below which the node warns too."""
BYTES_AN_HOUR = 150e6
"""Of a map, at two keyframes a second."""
LONGEST_CHECK = 60
"""Seconds."""
MARK = "binvpr doctor found "
"""Before the JSON of a finding: what a check imports may print too."""


class Finding(NamedTuple):
    """What a check has found."""

    result: str
    found: str
    advice: str = ""


class Check(NamedTuple):
    """A line of the table."""

    name: str
    run: Callable[[argparse.Namespace], Finding]
    needs: tuple[str, ...] = ()
    """Checks without which this one cannot be tried."""


def check_python(_: argparse.Namespace) -> Finding:
    """Check Python, and the processor that it was compiled for."""
    machine = platform.machine()
    found = f"{platform.python_version()} ({sys.executable}), {machine}"
    if sys.version_info < LEAST_PYTHON:
        return Finding(FAILS, found, "use Python 3.10 or later: ROS 2 Humble, Jazzy and Kilted bring one")
    if struct.calcsize("P") != 8:
        return Finding(FAILS, f"{found}, 32 bits", "install the 64-bit version of your system")
    if machine not in MACHINES:
        return Finding(WARNING, f"{found}, which was never tried", f"use {' or '.join(MACHINES)} where it fails")
    return Finding(OK, found)


def check_numpy(_: argparse.Namespace) -> Finding:
    """Check NumPy."""
    try:
        import numpy as np

        found = f"{np.__version__} ({_folder_of(np.__file__)})"
    except Exception as error:  # noqa: BLE001 - what is damaged raises anything
        if isinstance(error, ModuleNotFoundError) and error.name == "numpy":
            return Finding(FAILS, "not installed", how_to_install("numpy"))
        return Finding(FAILS, f"cannot be imported: {_cause(error)}", _install_again("numpy", "numpy"))
    if numbers_of(np.__version__) < LEAST_NUMPY:
        return Finding(FAILS, found, f"install NumPy {'.'.join(map(str, LEAST_NUMPY))} or later")
    return Finding(OK, found)


def check_opencv(_: argparse.Namespace) -> Finding:
    """Check OpenCV together with this NumPy: find local features in an image, and what verifies them."""
    import numpy as np

    try:
        import cv2

        found = f"{cv2.__version__} ({_folder_of(cv2.__file__)})"
    except Exception as error:  # noqa: BLE001 - what is damaged raises anything
        return _without_opencv(error)
    if numbers_of(cv2.__version__) < LEAST_OPENCV or not hasattr(cv2, "USAC_MAGSAC"):
        return Finding(FAILS, found, f"install OpenCV {'.'.join(map(str, LEAST_OPENCV))} or later")
    image = np.random.default_rng(0).integers(0, 255, (120, 160), np.uint8)
    try:
        points, _ = cv2.ORB_create(100).detectAndCompute(image, None)  # type: ignore[attr-defined]
    except (cv2.error, TypeError, SystemError) as error:
        return _mismatch(error)
    return Finding(OK, f"{found}, works with NumPy {np.__version__} ({len(points)} ORB features found)")


def _without_opencv(error: Exception) -> Finding:
    """Return what it is about an OpenCV that cannot be imported, or is there only in part."""
    if isinstance(error, ModuleNotFoundError) and error.name == "cv2":
        return Finding(FAILS, "not installed", _how_to_install_opencv())
    imported = "cv2" in sys.modules  # an empty folder, say, which has no version
    if isinstance(error, ImportError | AttributeError) and not imported:  # made for another NumPy, or lacks a library
        return _mismatch(error)
    again = _install_again("opencv-python" if in_venv() else "cv2", "cv2")
    return Finding(FAILS, f"cannot be imported: {_cause(error)}", again)


def _mismatch(error: BaseException) -> Finding:
    """Return what it is about an OpenCV that is there and cannot be used."""
    import numpy as np

    found = f"cannot be used with NumPy {np.__version__} of {_folder_of(np.__file__)}: {_line(error)}"
    if "shared object" in str(error):
        return Finding(FAILS, found, f"install that library, or another OpenCV; {_how_to_install_opencv()}")
    own = importlib.util.find_spec("cv2")
    if in_venv() and own is not None and _folder_of(own.origin) == _folder_of(np.__file__):
        return Finding(FAILS, found, f"{how_to_install('opencv-python')} --upgrade")
    venv = next((folder for folder in Path(np.__file__).parents if (folder / "pyvenv.cfg").is_file()), None)
    if venv is not None:
        remove = f"{shlex.quote(str(venv / 'bin' / 'pip'))} uninstall numpy"  # which shadows the system's
    else:
        remove = f"{shlex.quote(sys.executable)} -m pip uninstall --break-system-packages numpy"
    return Finding(FAILS, found, f"this NumPy hides the one that OpenCV was made for; run: {remove}")


def _how_to_install_opencv() -> str:
    return how_to_install("opencv-python") if in_venv() else how_to_install("cv2")


def _install_again(package: str, module: str) -> str:
    """Return what to do where a package is there, but damaged."""
    if in_venv():
        return f"{how_to_install(package)} --force-reinstall"
    if package in OF_APT:
        return f"{how_to_install(package)} --reinstall"
    spec = importlib.util.find_spec(module)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return f"install {package} again, with --force-reinstall and the pip that put it into {', '.join(folders)}"


def check_runtime(_: argparse.Namespace) -> Finding:
    """Check the TensorFlow Lite runtime: that it can be imported, and that the delegate was tried in it."""
    import importlib

    from binvpr_ros import lce_delegate
    from binvpr_ros.network.backends import LitertBackend

    broken = ""
    for module in LitertBackend.MODULES:
        name = module.partition(".")[0]
        try:
            importlib.import_module(module)
            version = importlib.import_module(name).__version__
        except ModuleNotFoundError as error:
            if error.name != name:
                broken = broken or f"{name} cannot be imported: {_cause(error)}"
            continue
        except Exception as error:  # noqa: BLE001 - what is damaged raises anything
            broken = broken or f"{name} cannot be imported: {_cause(error)}"
            continue
        found = f"{name} {version} ({_folder_of(sys.modules[name].__file__)})"
        try:
            lce_delegate.check_runtime(name, version)
        except lce_delegate.DelegateError as error:
            return Finding(FAILS, found, str(error))
        return Finding(OK, found)
    if broken:
        return Finding(FAILS, broken, _install_again("ai-edge-litert", "ai_edge_litert"))
    return Finding(FAILS, "Python finds none", how_to_install("ai-edge-litert"))


def check_delegate(_: argparse.Namespace) -> Finding:
    """Check that the delegate was compiled and can be loaded, and which kernel this processor gets."""
    from binvpr_ros import lce_delegate

    try:
        best, *others = lce_delegate.kernels()
    except lce_delegate.DelegateError as error:
        return Finding(FAILS, "cannot be loaded", str(error))
    return Finding(OK, f"kernel {best} for this processor{' (others: ' + ', '.join(others) + ')' if others else ''}")


def check_models(_: argparse.Namespace) -> Finding:
    """Check that the packaged models are there, each as its card says."""
    from binvpr_ros.config import DEFAULT_MODEL, LOCAL_MODEL, ConfigError, share_directory

    again = "install the package again: git lfs or a download may have cut the files"
    try:
        folder = share_directory() / "models"
    except ConfigError as error:
        return Finding(FAILS, _line(error), "source the workspace's install/setup.bash, or install the package again")
    models = sorted(folder.glob("*.tflite"))
    missing = {DEFAULT_MODEL, LOCAL_MODEL} - {model.name for model in models}
    if missing:
        return Finding(FAILS, f"{folder} lacks {', '.join(sorted(missing))}", "install the package again")
    for model in models:
        try:
            stated = json.loads(model.with_suffix(".json").read_text(encoding="utf-8"))["sha256"]
            made = hashlib.sha256(model.read_bytes()).hexdigest()
        except (OSError, ValueError, KeyError, TypeError) as error:
            return Finding(FAILS, f"{model} or its card cannot be read: {_line(error)}", again)
        if stated != made:
            return Finding(FAILS, f"{model} is not the file of its card (checksums differ)", again)
    return Finding(OK, f"{', '.join(model.stem for model in models)} as their cards say ({folder})")


def check_network(_: argparse.Namespace) -> Finding:
    """Check that the default model describes an image."""
    import numpy as np

    from binvpr_ros.config import Config, model_path
    from binvpr_ros.network.backends import DescriptorError
    from binvpr_ros.network.descriptor import DescriptorNetwork
    from binvpr_ros.network.model_card import ModelCardError

    try:
        network = DescriptorNetwork(model_path(Config()))
    except (DescriptorError, ModelCardError) as error:
        return Finding(FAILS, "cannot be run", str(error))
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    bits = network.describe(image).descriptor.size * 64
    return Finding(OK, f"{network.card.name} on {network.backend.name} describes an image in {bits:,} bits")


def check_gtsam(_: argparse.Namespace) -> Finding:
    """Check that pose_graph can be started beside the node: GTSAM, together with this NumPy."""
    import numpy as np

    try:
        import gtsam

        pose = gtsam.Pose3(np.eye(4)).matrix()
    except ModuleNotFoundError as error:
        if error.name != "gtsam":
            raise
        return Finding(OK, f"GTSAM is not installed, which only pose_graph needs; for that, {how_to_install('gtsam')}")
    except Exception as error:  # noqa: BLE001 - what was made for another NumPy raises anything
        return Finding(WARNING, f"GTSAM cannot be used: {_cause(error)}", _install_again("gtsam", "gtsam"))
    if not np.array_equal(pose, np.eye(4)):
        return Finding(WARNING, f"GTSAM does not work with NumPy {np.__version__}", _install_again("gtsam", "gtsam"))
    return Finding(OK, f"GTSAM ({_folder_of(gtsam.__file__)}) works with NumPy {np.__version__}")


def check_ros(_: argparse.Namespace) -> Finding:
    """Check that ROS 2 is there for this Python, with the messages that the node needs."""
    distribution = os.environ.get("ROS_DISTRO", "")
    try:
        from binvpr_ros.ros import doctor

        doctor.import_interfaces()
    except ModuleNotFoundError as error:
        missing = error.name or _line(error)
        return Finding(
            FAILS, f"no {missing} for Python {platform.python_version()}", _how_to_install_ros(distribution, missing)
        )
    except Exception as error:  # noqa: BLE001 - what is damaged, or of another distribution, raises anything
        return Finding(
            FAILS, f"cannot be imported: {_cause(error)}",
            "source the setup.bash of one ROS 2 distribution only, in a new shell; if that does not help, install its "
            "packages again",
        )  # fmt: skip
    name = distribution or "ROS_DISTRO is not set (wheels?)"
    found = f"{name}, rclpy of {_folder_of(sys.modules['rclpy'].__file__)}"
    if distribution and distribution not in DISTRIBUTIONS:
        return Finding(WARNING, f"{found}; never tried", f"use {', '.join(DISTRIBUTIONS)} where it fails")
    return Finding(OK, found)


def _how_to_install_ros(distribution: str, missing: str) -> str:
    """Return what to do where a module is missing that ROS brings, or needs."""
    installed = sorted(path.name for path in Path("/opt/ros").glob("*") if (path / "setup.bash").is_file())
    if missing in OF_APT:
        return how_to_install(missing)
    if distribution:
        package = missing.partition(".")[0].replace("_", "-")
        return (
            "use the Python that ROS was made for (/usr/bin/python3), or run: "
            f"sudo apt install ros-{distribution}-{package}"
        )
    if installed:
        return f"run: source /opt/ros/{installed[-1]}/setup.bash"
    return (
        "install ROS 2 Humble, Jazzy or Kilted; or run `make demo` once in a checkout, and take .venv/bin/binvpr doctor"
    )


def check_middleware(_: argparse.Namespace) -> Finding:
    """Check that a ROS node starts with the middleware that is asked for."""
    from binvpr_ros.ros import doctor

    asked = os.environ.get("RMW_IMPLEMENTATION", "")
    try:
        found = doctor.middleware()
    except Exception as error:  # noqa: BLE001 - an rmw library that cannot be loaded raises anything
        advice = "install it, or unset RMW_IMPLEMENTATION" if asked else "install the ROS package of a middleware"
        return Finding(FAILS, f"{asked or 'no middleware'} cannot be used: {_line(error)}", advice)
    return Finding(OK, f"{found}; a node starts")


def check_large_images(_: argparse.Namespace) -> Finding:
    """Check whether a camera driver that is started in this shell can send large images."""
    from binvpr_ros.ros import doctor

    return room_for_images(doctor.middleware())


def room_for_images(middleware: str) -> Finding:
    """Return whether a sender in this shell has shared memory for large images, with this middleware."""
    from binvpr_ros.config import share_directory

    if "fastrtps" not in middleware:
        return Finding(NOT_TRIED, f"{middleware}: only of Fast DDS it is known that its defaults lose large images")
    kilted = os.environ.get("ROS_DISTRO") == "kilted"
    variable = "FASTDDS_DEFAULT_PROFILES_FILE" if kilted else "FASTRTPS_DEFAULT_PROFILES_FILE"
    ours = share_directory() / "config" / PROFILE
    advice = f"run in the shell that starts the camera driver: export {variable}={shlex.quote(str(ours))}"
    profile = os.environ.get(variable, "")
    if not profile:
        return Finding(
            WARNING, "Fast DDS's default of 512 KiB in this shell: half of a camera's colour images get lost", advice
        )
    try:
        segment = segment_size(Path(profile))
    except ValueError as error:
        return Finding(WARNING, str(error), advice)
    if segment < LARGE_IMAGE:
        return Finding(WARNING, f"{profile} gives shared memory {segment / 2**20:.1f} MiB, too few", advice)
    memory = Path("/dev/shm")  # noqa: S108 - where Fast DDS makes its segments
    free = shutil.disk_usage(memory).free if memory.is_dir() else 0
    if free < segment:
        return Finding(
            WARNING, f"{memory} has {free / 2**20:.0f} MiB free, and a segment takes {segment / 2**20:.0f}",
            "free some, or in a container give more: docker run --shm-size=512m",
        )  # fmt: skip
    return Finding(OK, f"{segment / 2**20:.0f} MiB of shared memory by {profile}; the camera driver's shell counts")


def segment_size(profile: Path) -> int:
    """Return the largest shared-memory segment [bytes] of a profile for Fast DDS, 0 for none; raises ValueError."""
    try:
        tree = ET.fromstring(profile.read_text(encoding="utf-8"))  # noqa: S314 - Fast DDS reads the same file
        sizes = [element.text or "" for element in tree.iter() if element.tag.rpartition("}")[2] == "segment_size"]
        return max(map(int, sizes), default=0)
    except (OSError, ValueError, ET.ParseError) as error:
        raise ValueError(f"the profile {profile} cannot be read ({_line(error)})") from None


def check_cameras(choices: argparse.Namespace) -> Finding:
    """Check which cameras publish."""
    from binvpr_ros.ros import doctor

    topics = doctor.camera_topics(choices.seconds)
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    if not topics:
        return Finding(
            WARNING, f"nobody publishes images in domain {domain}, within {choices.seconds:g} s",
            "start the camera driver, with the same ROS_DOMAIN_ID; or, without one, replay a folder, video or bag",
        )  # fmt: skip
    return Finding(OK, "; ".join(topics))


def check_disk(choices: argparse.Namespace) -> Finding:
    """Check the disk of the map, or of this folder where no map is named."""
    if not choices.database:
        return _room(
            shutil.disk_usage(Path.cwd()).free, f"in {Path.cwd()}; name the map to check its disk: --database FILE"
        )
    database = Path(os.path.expanduser(choices.database)).absolute()  # noqa: PTH111 - as the node does
    folder = database.parent
    if not folder.is_dir():
        return Finding(FAILS, f"there is no folder {folder}", f"run: mkdir -p {shlex.quote(str(folder))}")
    if not os.access(folder, os.W_OK | os.X_OK) or (database.exists() and not os.access(database, os.W_OK)):
        return Finding(FAILS, f"this user may not write to {folder}", "name a map elsewhere: --database FILE")
    if database.exists() and not database.is_file():
        kind = "a folder" if database.is_dir() else "a device"
        return Finding(FAILS, f"{database} is {kind}, and a map is a file", "name a file: --database FILE")
    return _room(shutil.disk_usage(folder).free, f"for {database}")


def _room(free: int, where: str) -> Finding:
    """Return what it is about a disk with so many bytes free."""
    found = f"{free / 2**30:.1f} GiB, {free / BYTES_AN_HOUR:,.0f} hours of keyframes, free {where}"
    if free < NEARLY_FULL:
        return Finding(WARNING, f"{found}: nearly full", "free some, or name a map on another disk: --database FILE")
    return Finding(OK, found)


def check_fleet(choices: argparse.Namespace) -> Finding:
    """Check, where a fleet's map is named, that its server can be asked."""
    if not choices.fleet:
        return Finding(OK, "not used; --fleet URL checks the map that robots share")
    if importlib.util.find_spec("asyncpg") is None:
        return Finding(FAILS, "asyncpg is not installed", how_to_install("asyncpg"))
    from binvpr_ros.config import ConfigError, check_fleet_url
    from binvpr_ros.maps.fleet.errors import FleetError
    from binvpr_ros.maps.fleet.server import ask_version, why_unsafe

    try:
        check_fleet_url(choices.fleet)
        version, without_index = ask_version(choices.fleet)
    except (ConfigError, FleetError) as error:
        found, _, advice = str(error).rpartition("; ")
        return Finding(FAILS, found or advice, advice)
    doubts = [doubt for doubt in (why_unsafe(choices.fleet), without_index) if doubt]
    if doubts:
        found, _, advice = doubts[0].rpartition("; ")
        return Finding(WARNING, found, advice)
    return Finding(OK, f"version {version} of its tables, with an index")


CHECKS = (
    Check("Python", check_python),
    Check("NumPy", check_numpy, ("Python",)),
    Check("OpenCV", check_opencv, ("NumPy",)),
    Check("TFLite runtime", check_runtime, ("NumPy",)),
    Check("delegate", check_delegate, ("NumPy",)),
    Check("models", check_models, ("Python",)),
    Check("network", check_network, ("OpenCV", "TFLite runtime", "delegate", "models")),
    Check("pose graph", check_gtsam, ("NumPy",)),
    Check("ROS 2", check_ros, ("NumPy",)),
    Check("middleware", check_middleware, ("ROS 2",)),
    Check("large images", check_large_images, ("middleware", "models")),
    Check("cameras", check_cameras, ("middleware", "OpenCV")),
    Check("disk", check_disk),
    Check("fleet", check_fleet, ("NumPy",)),
)


def diagnose(choices: argparse.Namespace) -> dict[str, Finding]:
    """Run the checks, and return what each has found by its name; what cannot be tried says why."""
    found: dict[str, Finding] = {}
    for check in CHECKS:
        lacking = [name for name in check.needs if found[name].result in (FAILS, NOT_TRIED)]
        if lacking:
            found[check.name] = Finding(NOT_TRIED, f"it needs {' and '.join(lacking)}")
        else:
            found[check.name] = _in_a_process(check.name, choices)
    return found


def _in_a_process(name: str, choices: argparse.Namespace) -> Finding:
    """Run a check in a process of its own, and return what it has found, also where that process crashes."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from binvpr_ros import doctor; doctor.run_check()"
    command = [sys.executable, "-c", code, name, json.dumps(vars(choices))]
    try:
        done = subprocess.run(command, capture_output=True, timeout=LONGEST_CHECK, check=False)
    except subprocess.TimeoutExpired:
        return Finding(FAILS, f"did not end within {LONGEST_CHECK} s", "run it again; please report it")
    finding = _finding_in(done.stdout.decode(errors="replace"))
    if done.returncode == 0 and finding is not None:
        return finding
    last = (done.stderr.decode(errors="replace").strip().splitlines() or ["without a word"])[-1]
    how = f"died of {signal.Signals(-done.returncode).name}" if done.returncode < 0 else f"ended with {last}"
    return Finding(FAILS, f"the check {how}", "please report it, with this table")


def _finding_in(said: str) -> Finding | None:
    """Return the finding among what a check's process has printed, or None."""
    for line in said.splitlines():
        if line.startswith(MARK):
            try:
                return Finding(*json.loads(line.removeprefix(MARK)))
            except ValueError:  # somebody printed into the line
                return None
    return None


def run_check() -> None:
    """Run the check that the command line names, and print what it has found, in a line of its own."""
    name, choices = sys.argv[1:]
    (check,) = (check for check in CHECKS if check.name == name)
    finding = json.dumps(check.run(argparse.Namespace(**json.loads(choices))))
    print(f"\n{MARK}{finding}", flush=True)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _cause(error: BaseException) -> str:
    """Return why something cannot be imported; NumPy puts pages of advice around it."""
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {_line(cause)}"


def _folder_of(file: str | None) -> Path:
    """Return the folder that holds a package."""
    return Path(file or "?").parents[1]


def show(found: dict[str, Finding]) -> None:
    """Print the table, and below it what to do, in lines that can be copied."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        print(_plain(found))
    else:
        table = Table("check", "result", "found")
        for name, finding in found.items():
            table.add_row(name, Text(finding.result, STYLES[finding.result]), Text(finding.found, overflow="fold"))
        Console().print(table)
    advice = [(name, finding) for name, finding in found.items() if finding.advice]
    for number, (name, finding) in enumerate(advice, 1):
        print(f"{number}. {name}: {finding.advice}")


def _plain(found: dict[str, Finding]) -> str:
    """Return the table as text."""
    wide, results = max(map(len, found)), max(map(len, STYLES))
    rest = max(shutil.get_terminal_size().columns - wide - results - 4, 30)
    lines = []
    for name, finding in found.items():
        first, *others = textwrap.wrap(finding.found, rest, break_on_hyphens=False) or [""]
        lines += [f"{name:<{wide}}  {finding.result:<{results}}  {first}"]
        lines += [f"{'':<{wide}}  {'':<{results}}  {other}" for other in others]
    return "\n".join(lines)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(
        prog="binvpr doctor",
        description="Check whether this machine can run the node, and say how to fix what is missing.",
        epilog="The exit status is 1 if something would keep the node from working.",
    )  # fmt: skip
    parser.add_argument("--database", default="", metavar="FILE",
                        help="map whose disk to check (default: the current folder's disk)")  # fmt: skip
    parser.add_argument("--fleet", default="", metavar="URL", help="also check this server of a fleet's map")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S",
                        help="how long to look for cameras (default %(default)s)")  # fmt: skip
    choices = parser.parse_args(arguments)
    if not 0 <= choices.seconds <= LONGEST_CHECK / 2:
        parser.error(f"--seconds must be between 0 and {LONGEST_CHECK / 2:g}, not {choices.seconds}")
    return choices


def main() -> int:
    """Check the machine and print the table; the exit status is 1 where something keeps the node from working."""
    choices = parse(sys.argv[1:])
    try:
        found = diagnose(choices)
    except KeyboardInterrupt:
        print("doctor: interrupted", file=sys.stderr)
        return 1
    failed = [name for name, finding in found.items() if finding.result == FAILS]
    try:
        show(found)
        if failed:
            print(f"The node does not work here: {', '.join(failed)}.")
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # of `| head`, say: nobody reads any more; rich makes it the latter
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
