# SPDX-License-Identifier: Apache-2.0
"""`evaluate`: measure how well models and other methods recognise places, on any data set, in one run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from tqdm import tqdm

from binvpr_ros.config import Config, ConfigError, model_path
from binvpr_ros.lab.evaluation import plots, report
from binvpr_ros.lab.evaluation.baselines import BASELINES
from binvpr_ros.lab.evaluation.baselines.loop_detector import LoopDetector
from binvpr_ros.lab.evaluation.calibration import calibrate
from binvpr_ros.lab.evaluation.closure_stage import Drive, Seen
from binvpr_ros.lab.evaluation.datasets import (
    Dataset,
    DatasetError,
    ImageSequence,
    Options,
    find_datasets,
    open_dataset,
)
from binvpr_ros.lab.evaluation.datasets.dataset import CAMERA_AXES
from binvpr_ros.lab.evaluation.datasets.folders import FolderPair
from binvpr_ros.lab.evaluation.datasets.rendered import RenderedBuilding
from binvpr_ros.lab.evaluation.measurement import Comparison
from binvpr_ros.lab.evaluation.methods import (
    VPR_BENCH_MATCHES,
    BinaryNetwork,
    Method,
    MethodError,
    load_model,
    read_similarities,
)
from binvpr_ros.lab.evaluation.negatives import Negatives, run_negatives
from binvpr_ros.lab.evaluation.overlays import OVERLAYS, overlaid
from binvpr_ros.lab.evaluation.report import Result
from binvpr_ros.lab.evaluation.similarities import Similarities
from binvpr_ros.lab.evaluation.viewed_drive import ViewedDrive
from binvpr_ros.lab.view import ViewError
from binvpr_ros.lab.view import add_arguments as add_view_arguments
from binvpr_ros.local_features.kinds import LocalFeatures, open_local_features
from binvpr_ros.network.backends import DescriptorError
from binvpr_ros.network.model_card import ModelCardError
from binvpr_ros.recordings.errors import RecordingError

DETECTORS = {LoopDetector.name: LoopDetector}
"""Programs that close loops of a drive by themselves, by name: `--baseline` takes them too."""
LOOKED_AT = 10
"""Images of a data set whose brightness is looked at."""
BRIGHT = 64
"""Of 255, which 14 of 16 bits do not reach."""
SEQUENCE_LENGTH = 10
"""Images in a row that `--all` matches, as SeqSLAM does."""


class Evaluation:
    """What the command line names, measured one after the other.

    What cannot be measured is said on standard error and counted in `left_out`, and the rest is measured all the same;
    the output files are written anew after each data set.
    """

    def __init__(self, choices: argparse.Namespace) -> None:
        self.results: list[Result] = []
        self.negatives: list[Negatives] = []
        self.left_out = 0
        self.calibrates = choices.calibrate is not None
        self._choices = choices

    def run(self) -> None:
        """Measure all methods on all data sets; raises DatasetError where there is no data set at all."""
        choices = self._choices
        datasets = self._datasets()
        first = next(datasets, None)  # a wrong path is said before the methods are loaded, which takes a while
        if first is None:
            return
        matrices = self._matrices(first)
        only_matrices = choices.similarities and not (choices.model or choices.baseline)
        methods, detectors = ([], []) if only_matrices else self._methods()
        if choices.plots:
            choices.plots.mkdir(parents=True, exist_ok=True)
        drives: dict[str, list[Drive]] = {}
        for dataset in self._with_overlays(itertools.chain([first], datasets)):
            self._say_what_is_missing(dataset)
            with self._viewing(dataset, dataset is first) as seen:
                comparison = Comparison(dataset, choices.seqslam, choices.plots, choices.sequence_keyframes, seen)
                for method in methods:
                    with self._leaving_out(f"{method.name} on {dataset.name}"):
                        comparison.measure(method)
                        if isinstance(method, BinaryNetwork) and method.name in comparison.drives:
                            drives.setdefault(method.name, []).append(comparison.drives[method.name])
            for detector in detectors:
                with self._leaving_out(f"{detector.name} on {dataset.name}"):
                    comparison.detect(detector)
            for name, similarities in matrices:
                comparison.add(name, similarities)
            comparison.finish()
            self.results += comparison.results
            self._write()
        for name, some in drives.items():
            self._hold_against_each_other(name, some)
        self._write()

    def _hold_against_each_other(self, method: str, drives: list[Drive]) -> None:
        """Hold the drives of a method against maps of each other, where there are different places."""
        found = run_negatives(method, drives)
        if found.trials:
            self.negatives.append(found)
            if self._choices.plots:
                sequences = {drive.sequence.name: drive.sequence for drive in drives}
                plots.false_closures(self._choices.plots, found, sequences)

    def _say_what_is_missing(self, dataset: Dataset) -> None:
        """Say what of a data set was left out, and what of it cannot be measured."""
        if dataset.left_out:
            reasons = ", ".join(f"{count} {reason}" for reason, count in dataset.left_out.items())
            tqdm.write(f"evaluate: left out of {dataset.name}: {reasons}", file=sys.stderr)
        if dataset.truth.answerable.any():
            return
        if isinstance(dataset, ImageSequence) and dataset.candidates.any():
            tqdm.write(
                f"evaluate: {dataset.name} never revisits a place, so it serves as a negative test",
                file=sys.stderr,
            )
            return
        with self._leaving_out(f"recall on {dataset.name}"):
            if isinstance(dataset, ImageSequence):
                raise DatasetError("the drive is shorter than --exclude-seconds; drive for longer, or exclude less")
            raise DatasetError("no query has a true reference; check the ground truth")

    def calibrate(self) -> None:
        """Write the params file with which drives have the highest recall at 100% precision, and say how it was scored.

        Raises DatasetError and MethodError where there is no drive with revisits, or no network.
        """
        choices = self._choices
        sequences = [dataset for dataset in self._datasets() if isinstance(dataset, ImageSequence)]
        if not any(sequence.truth.answerable.any() for sequence in sequences):
            names = ", ".join(sequence.name for sequence in sequences) or "what is named"
            raise DatasetError(f"no drive in {names} revisits a place; name a drive that does")
        methods, _ = self._methods()
        if not methods or not isinstance(methods[0], BinaryNetwork):
            raise MethodError("--calibrate needs a model with its card before any baseline; name one")
        kind = methods[0].config.local_features
        comparisons = [Comparison(sequence) for sequence in sequences]
        for method in methods:
            drives = []
            for comparison in comparisons:
                comparison.measure(method)
                drives.append(comparison.drives[method.name])
                drives[-1].config = drives[-1].config.replace(
                    sequence_keyframes=choices.sequence_keyframes, local_features=kind
                )
            found = calibrate(drives)
            if found is None:
                sentence = f"with {method.name} no setting closes loops of these drives without a false one"
                if method is methods[0]:
                    raise DatasetError(f"{sentence}; drive for longer")
                print(sentence)
                continue
            Console().print(found.table(method.name))
            if method is methods[0]:
                model = choices.model[0] if choices.model else None
                lines = [shlex.join(["evaluate", *sys.argv[1:]]), f"{method.name}: {found.setting}", *found.sentences()]
                found.write(choices.calibrate, lines, model)

    def _datasets(self) -> Iterator[Dataset]:
        """Yield the data sets one at a time, by distinct names; without any choice the rendered building."""
        choices = self._choices
        options = Options(
            queries=choices.queries, references=choices.references, tolerance=choices.tolerance, radius=choices.radius,
            angle=choices.angle, apart_radii=choices.apart_radii, apart_angle=choices.apart_angle,
            exclude_seconds=choices.exclude_seconds, rate=choices.rate, camera_axis=choices.camera_axis,
            camera=choices.camera, image_topic=choices.image_topic, pose_topic=choices.pose_topic,
        )  # fmt: skip
        paths = find_datasets(choices.all) if choices.all else list(dict.fromkeys(choices.dataset))
        if choices.all and not paths:
            raise DatasetError(f"{choices.all} holds no data set; name a folder that does")
        if len(paths) == 1:
            yield self._usable(open_dataset(paths[0], options), paths[0])
        elif paths:
            for path, name in zip(paths, distinct([path.name for path in paths], paths), strict=True):
                with self._leaving_out(str(path)):
                    dataset = self._usable(open_dataset(path, options), path)
                    yield dataset if name == path.name else dataclasses.replace(dataset, name=name)
        elif choices.ground_truth:
            parts = Path(choices.queries), Path(choices.references), choices.ground_truth
            yield self._usable(FolderPair.from_parts(*parts))
        else:
            yield self._usable(RenderedBuilding.make(options))

    def _with_overlays(self, datasets: Iterable[Dataset]) -> Iterator[Dataset]:
        """Yield the data sets, and after each drive the same with the overlays that were asked for."""
        for dataset in datasets:
            yield dataset
            if isinstance(dataset, ImageSequence):
                for name in OVERLAYS:
                    if name in self._choices.overlay or "all" in self._choices.overlay:
                        yield overlaid(dataset, name)

    def _usable(self, dataset: Dataset, path: Path | None = None) -> Dataset:
        """Return a data set as it is measured: without what cannot be read, and with a place; raises DatasetError."""
        dataset = (dataset.stretched() if self._choices.stretch_16_bit else dataset).readable()
        sample = np.linspace(0, len(dataset.queries) - 1, LOOKED_AT).astype(int)
        brightest = max(int(dataset.queries[index].max()) for index in np.unique(sample))
        if brightest < BRIGHT:
            tqdm.write(
                f"evaluate: {dataset.name} is dark, its values reach {brightest} of 255; for 16-bit images that use 10 "
                "to 14 bits add --stretch-16-bit",
                file=sys.stderr,
            )
        if isinstance(dataset, ImageSequence) and not dataset.place:
            place = "one place" if self._choices.one_place else str(path or dataset.name)
            dataset = dataclasses.replace(dataset, place=place)
        return dataset

    def _methods(self) -> tuple[list[Method], list[type[LoopDetector]]]:
        """Return models and baselines, by distinct names, and detectors; without any choice the packaged model.

        Calibration needs a network in any case.
        """
        choices = self._choices
        models, baselines = list(dict.fromkeys(choices.model)), list(dict.fromkeys(choices.baseline))
        if not models and (self.calibrates or not baselines):
            models = [model_path(Config())]
            if choices.all:
                models += sorted(choices.all.rglob("*.tflite"))
                baselines = [*BASELINES, *DETECTORS]
        elif not self.calibrates:
            models += _packaged_beside(models)
        methods: list[Method] = []
        config = Config(threads=choices.threads, shift_cells=choices.shift_cells)
        kinds: dict[str, LocalFeatures] = {}
        names = list(dict.fromkeys(choices.local_features))
        for kind, name in zip(names, distinct([Path(kind).stem for kind in names], [*map(Path, names)]), strict=True):
            with self._leaving_out(f"local features {kind}"):
                kinds[name] = open_local_features(kind, choices.threads)
        for model, name in zip(models, distinct([model.stem for model in models], models), strict=True):
            for kind, local_features in kinds.items():
                with self._leaving_out(str(model)):
                    method = load_model(model, config.replace(local_features=kind), local_features)
                    several = len(kinds) > 1 and isinstance(method, BinaryNetwork)
                    method.name = f"{name}, {kind}" if several else name
                    methods.append(method)
                    if not isinstance(method, BinaryNetwork):
                        break
        for baseline in baselines:
            if baseline in BASELINES:
                with self._leaving_out(baseline, counted=bool(choices.baseline)):
                    methods.append(BASELINES[baseline]())
        return methods, [DETECTORS[baseline] for baseline in baselines if baseline in DETECTORS]

    def _matrices(self, dataset: Dataset) -> list[tuple[str, Similarities]]:
        """Return the similarities that other programs wrote, by distinct names; raises DatasetError."""
        matrices = []
        files = list(dict.fromkeys(self._choices.similarities))
        names = [file.parent.name if file.name == VPR_BENCH_MATCHES else file.stem for file in files]
        for file, name in zip(files, distinct(names, files), strict=True):
            similarities: Similarities = read_similarities(file)
            if similarities.shape != dataset.truth.shape:
                raise DatasetError(
                    f"{file} holds {similarities.shape} similarities, {dataset.name} has {dataset.truth.shape} queries "
                    "and references; name the matrix of this data set"
                )
            matrices.append((name, similarities))
        return matrices

    @contextlib.contextmanager
    def _viewing(self, dataset: Dataset, wanted: bool) -> Iterator[Seen | None]:
        """Open what the command line says the drive is shown in, and yield who tells it; raises ViewError."""
        choices = self._choices
        if not wanted or not (choices.view or choices.record):
            yield None
            return
        if not isinstance(dataset, ImageSequence):
            raise ViewError(f"{dataset.name} is no drive, which --view and --record show; name one by --sequence")
        with ViewedDrive.open(dataset, choices.view, choices.record) as drive:
            yield drive

    @contextlib.contextmanager
    def _leaving_out(self, what: str, counted: bool = True) -> Iterator[None]:
        """Go on where `what` cannot be measured, and say so."""
        try:
            yield
        except (
            ConfigError,
            DescriptorError,
            RecordingError,
            MethodError,
            ModelCardError,
            OSError,
            MemoryError,
        ) as error:
            short = "there is too little memory for it; take fewer images"
            reason = short if isinstance(error, MemoryError) else error
            tqdm.write(f"evaluate: left out {what}: {reason}", file=sys.stderr)
            self.left_out += counted

    def _write(self) -> None:
        choices = self._choices
        if choices.plots and (points := report.times_and_recalls(self.results)):
            plots.recall_over_time(choices.plots / "recall_over_time.png", points)
        if choices.json and self.results:
            choices.json.write_text(
                json.dumps(report.as_json(self.results, self.negatives), indent=2) + "\n", encoding="utf-8"
            )
        if choices.constraints and self.results:
            choices.constraints.write_text(report.constraints_csv(self.results), encoding="utf-8")
        if choices.markdown and self.results:
            command = shlex.join(["evaluate", *sys.argv[1:]])
            choices.markdown.write_text(report.markdown(self.results, command, self.negatives), encoding="utf-8")


def _packaged_beside(models: Sequence[Path]) -> list[Path]:
    """Return the packaged model, to be measured beside others; nothing where it is among them, or one is missing."""
    packaged = model_path(Config())
    return [packaged] if models and all(file.is_file() and not file.samefile(packaged) for file in models) else []


def distinct(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Return `names` of things at `paths`, those that come more than once with the folder, or else a number."""
    found = Counter(names)
    longer = [
        name if found[name] == 1 else f"{path.absolute().parent.name}/{name}"
        for name, path in zip(names, paths, strict=True)
    ]
    found = Counter(longer)
    return [name if found[name] == 1 else f"{name} ({longer[: at + 1].count(name)})" for at, name in enumerate(longer)]


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(prog="evaluate", description=__doc__)
    data = parser.add_argument_group("data set (default: a rendered building)")
    data.add_argument(
        "--dataset", "--sequence", type=Path, action="append", default=[], metavar="PATH",
        help="folder or bag of any known layout; may be repeated",
    )  # fmt: skip
    data.add_argument(
        "--one-place",
        action="store_true",
        help="the drives are of one place (default: of different places, unless known)",
    )
    data.add_argument("--queries", default="", metavar="DIR", help="folder of queries (with --dataset: its name there)")
    data.add_argument(
        "--references", default="", metavar="DIR", help="folder of references (with --dataset: its name there)"
    )
    data.add_argument("--ground-truth", type=Path, metavar="CSV", help="ground truth of --queries and --references")
    data.add_argument("--all", type=Path, metavar="DIR", help="every data set and model below DIR, with every baseline")
    data.add_argument(
        "--tolerance", type=int, default=Options.tolerance, metavar="N",
        help="frames by which a match may be off in traverses without ground truth (default %(default)s)",
    )  # fmt: skip
    data.add_argument(
        "--radius", type=float, metavar="M", help="largest distance in metres within one place (default: by layout)"
    )
    data.add_argument(
        "--angle", type=float, metavar="DEG", help="largest angle in degrees within one view (default: by layout)"
    )
    data.add_argument(
        "--apart-radii", type=float, default=Options.apart_radii, metavar="N",
        help="radii beyond which two images show different places (default %(default)s)",
    )  # fmt: skip
    data.add_argument(
        "--apart-angle", type=float, default=Options.apart_angle, metavar="DEG",
        help="degrees between the optical axes beyond which two images show different places (default %(default)s)",
    )  # fmt: skip
    data.add_argument(
        "--camera-axis", choices=CAMERA_AXES, default="",
        help="direction of the camera in the frame of the poses: z (optical frame), -z (OpenGL), x (ROS body); "
        "default: by layout; unknown for bags",
    )  # fmt: skip
    data.add_argument(
        "--camera", type=Path, metavar="YAML", help="calibration of a drive's camera, as camera_calibration writes it"
    )
    data.add_argument(
        "--rate", type=float, default=Options.rate, metavar="HZ",
        help="images per second in a drive without stamps (default %(default)s)",
    )  # fmt: skip
    data.add_argument(
        "--exclude-seconds", type=float, default=Options.exclude_seconds, metavar="S",
        help="on a drive, match only images at least this much older (default %(default)s)",
    )  # fmt: skip
    data.add_argument(
        "--stretch-16-bit", action="store_true", help="stretch 16-bit images, like the node's parameter stretch_16_bit"
    )
    data.add_argument(
        "--overlay", choices=(*OVERLAYS, "all"), action="append", default=[],
        help="also measure drives with a part of the robot in the picture, the same at every place; may be repeated",
    )  # fmt: skip
    data.add_argument("--image-topic", default="", metavar="TOPIC", help="image topic, if a bag has several")
    data.add_argument("--pose-topic", default="", metavar="TOPIC", help="pose topic, if a bag has several")
    methods = parser.add_argument_group("methods (default: the packaged model)")
    methods.add_argument(
        "--model",
        type=Path,
        action="append",
        default=[],
        metavar="TFLITE",
        help="model file to measure along with the packaged one; may be repeated",
    )
    methods.add_argument(
        "--baseline",
        choices=[*BASELINES, *DETECTORS],
        action="append",
        default=[],
        help="classical method, or a complete loop detector (dbow2, on drives); may be repeated",
    )
    methods.add_argument(
        "--similarities", type=Path, action="append", default=[], metavar="NPY",
        help="matrix, queries by references, from another program, or VPR-Bench's matches; may be repeated",
    )  # fmt: skip
    methods.add_argument(
        "--seqslam", type=int, metavar="N", help=f"also match sequences of N images (0: none; --all: {SEQUENCE_LENGTH})"
    )
    methods.add_argument(
        "--sequence-keyframes", type=int, default=Config.sequence_keyframes, metavar="N",
        help="also match sequences as the node does with this parameter (default %(default)s: none)",
    )  # fmt: skip
    methods.add_argument(
        "--local-features", nargs="+", default=[Config.local_features], metavar="KIND",
        help="features for verification: learned, orb, or a model file (default %(default)s); each gets a row",
    )  # fmt: skip
    methods.add_argument(
        "--shift-cells", type=int, default=Config.shift_cells, metavar="N",
        help="match shifted images as the node does with this parameter (default %(default)s; 0: none)",
    )  # fmt: skip
    methods.add_argument(
        "--threads", type=int, default=Config.threads, metavar="N", help="threads for models (default %(default)s)"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    output.add_argument("--markdown", type=Path, metavar="FILE", help="write one table (--all: evaluation.md)")
    output.add_argument(
        "--calibrate", type=Path, metavar="YAML",
        help="write a params file: the min_score and min_inliers with the highest recall at 100%% precision on drives",
    )  # fmt: skip
    add_view_arguments(output)
    output.add_argument(
        "--constraints", type=Path, metavar="CSV", help="write the relative poses of the closures of drives"
    )
    output.add_argument("--plots", type=Path, metavar="DIR", help="draw pictures into this folder")
    choices = parser.parse_args(arguments)
    _check(parser, choices)
    return choices


def _check(parser: argparse.ArgumentParser, choices: argparse.Namespace) -> None:
    """End with a sentence where the choices do not go together; fill in what --all implies."""
    folders = [bool(choices.queries), bool(choices.references)]
    wrong = (
        (choices.all and choices.dataset, "--all and --dataset exclude each other; name one of them"),
        ((choices.all or len(choices.dataset) > 1) and choices.similarities, "--similarities are of one data set; name "
         "one"),
        (choices.ground_truth and (choices.all or choices.dataset), "--ground-truth is for --queries and --references"),
        (choices.ground_truth and not all(folders), "--ground-truth needs --queries and --references"),
        (any(folders) and not (choices.ground_truth or choices.dataset), "--queries and --references need "
         "--ground-truth, or a --dataset that holds both folders"),
        (choices.plots and choices.plots.exists() and not choices.plots.is_dir(), "--plots must name a folder"),
        *((file and (file.is_dir() or not file.absolute().parent.is_dir()), f"{file} is a folder, or in none")
          for file in (choices.json, choices.markdown, choices.calibrate, choices.record, choices.constraints)),
        ((choices.view or choices.record) and (choices.all or len(choices.dataset) > 1 or choices.calibrate),
         "--view and --record show one drive; name one by --sequence, without --calibrate"),
        ((choices.view or choices.record) and (choices.baseline or choices.similarities) and not choices.model,
         "--view and --record show what the recognizer does with a network; name one by --model too"),
        (choices.all and (choices.camera or choices.camera_axis), "--camera and --camera-axis are of one drive; name "
         "it by --dataset"),
        (choices.calibrate and (choices.similarities or choices.ground_truth), "--calibrate takes drives, by --all, "
         "--dataset or --sequence"),
        (choices.calibrate and (choices.json or choices.markdown or choices.plots or choices.constraints
         or choices.seqslam), "--calibrate writes a params file alone; leave out --json, --markdown, --plots, "
         "--constraints and --seqslam"),
    )  # fmt: skip
    for condition, sentence in wrong:
        if condition:
            parser.error(sentence)
    bounds: dict[str, tuple[float, float]] = {
        "exclude_seconds": (0, Config.bounds("exclusion_time")[1]), "threads": Config.bounds("threads"),
        "sequence_keyframes": Config.bounds("sequence_keyframes"), "shift_cells": Config.bounds("shift_cells"),
        "rate": (1e-3, 1e3), "apart_radii": (1, sys.maxsize),
    }  # fmt: skip
    for name in ("tolerance", "radius", "angle", "apart_radii", "apart_angle", "rate", "seqslam", *bounds):
        value, (low, high) = getattr(choices, name), bounds.get(name, (0, sys.maxsize))
        if value is not None and not low <= value <= high:
            limits = f"at least {low}" if high == sys.maxsize else f"between {low} and {high}"
            parser.error(f"--{name.replace('_', '-')} must be {limits}, not {value}")
    if choices.seqslam is None:
        choices.seqslam = SEQUENCE_LENGTH if choices.all else 0
    if choices.all and not choices.calibrate:
        choices.markdown = choices.markdown or Path("evaluation.md")


def main() -> int:
    """Evaluate what the command line names; the exit status is 1 where something of it could not be measured."""
    evaluation = Evaluation(parse(sys.argv[1:]))
    status = 0
    try:
        if evaluation.calibrates:
            evaluation.calibrate()
        else:
            evaluation.run()
    except (RecordingError, MethodError, ViewError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("evaluate: interrupted", file=sys.stderr)
        status = 1
    if not evaluation.calibrates:
        report.print_tables(evaluation.results, evaluation.negatives)
    return status or int(evaluation.left_out > 0)


if __name__ == "__main__":
    sys.exit(main())
