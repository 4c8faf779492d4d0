# SPDX-License-Identifier: Apache-2.0
"""`evaluate`: how well models and other methods recognise places, on any data set, in one run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from binvpr_ros.config import Config, ConfigError, model_path
from binvpr_ros.descriptor import DescriptorError
from binvpr_ros.evaluation import plots, report
from binvpr_ros.evaluation.baselines import BASELINES
from binvpr_ros.evaluation.calibration import calibrate
from binvpr_ros.evaluation.calibration import sentence as calibration_sentence
from binvpr_ros.evaluation.datasets import Dataset, DatasetError, Options, PosedSequence, find_datasets, open_dataset
from binvpr_ros.evaluation.datasets.folders import FolderPair
from binvpr_ros.evaluation.datasets.rendered import RenderedBuilding
from binvpr_ros.evaluation.measurement import Comparison
from binvpr_ros.evaluation.methods import (
    VPR_BENCH_MATCHES,
    BinaryNetwork,
    Method,
    MethodError,
    Similarities,
    load_model,
    read_similarities,
)
from binvpr_ros.evaluation.report import Result
from binvpr_ros.model_card import ModelCardError

SEQUENCE_LENGTH = 10
"""Images in a row that `--all` matches, as SeqSLAM does."""


class Evaluation:
    """What the command line names, measured one after the other.

    What cannot be measured is said on standard error and counted in `left_out`, and the rest is measured all the same;
    the output files are written anew after each data set.
    """

    def __init__(self, choices: argparse.Namespace) -> None:
        self.results: list[Result] = []
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
        methods = self._methods() if not choices.similarities or choices.model or choices.baseline else []
        if choices.plots:
            choices.plots.mkdir(parents=True, exist_ok=True)
        for dataset in itertools.chain([first], datasets):
            with self._leaving_out(f"recall on {dataset.name}"):
                if not dataset.truth.any():
                    raise DatasetError(
                        "no query has a true match (in a drive: nothing older than --exclude-seconds shows the same "
                        "place); drive there again"
                    )
            comparison = Comparison(dataset, choices.seqslam, choices.plots, choices.sequence_keyframes)
            for method in methods:
                with self._leaving_out(f"{method.name} on {dataset.name}"):
                    comparison.measure(method)
            for name, similarities in matrices:
                comparison.add(name, similarities)
            comparison.finish()
            self.results += comparison.results
            self._write()

    def calibrate(self) -> None:
        """Write the params file with which a drive has the highest recall at 100% precision, and say how it was scored.

        Raises DatasetError and MethodError where there is no drive with revisits, or no network.
        """
        choices = self._choices
        dataset = next(self._datasets(), None)
        if not isinstance(dataset, PosedSequence) or not dataset.truth.any():
            name = dataset.name if dataset else choices.dataset
            raise DatasetError(f"{name} is no drive with poses that comes back to a place; name one to calibrate on")
        methods = self._methods()
        if not methods or not isinstance(methods[0], BinaryNetwork):
            raise MethodError("--calibrate needs a model with its card before any baseline; name one")
        comparison = Comparison(dataset)
        for method in methods:
            comparison.measure(method)
            drive = comparison.drives[method.name]
            drive.config = drive.config.replace(sequence_keyframes=choices.sequence_keyframes)
            found = calibrate(drive)
            if found is None:
                sentence = f"with {method.name} no setting closes loops of {dataset.name} without a false one"
                if method is methods[0]:
                    raise DatasetError(f"{sentence}; drive for longer")
                print(sentence)
                continue
            setting = ", ".join(f"{name} {value}" for name, value in found.parameters.items())
            lines = [
                f"{method.name}: the highest recall without a false closure has {setting}",
                calibration_sentence(f"{dataset.name}, first half, on which that was found", found.first_half),
                calibration_sentence(f"{dataset.name}, second half", found.second_half),
            ]
            if not isinstance(dataset, RenderedBuilding) and isinstance(method, BinaryNetwork):
                rendered = Comparison(RenderedBuilding.make(Options()))
                rendered.measure(method)
                stage = rendered.drives[method.name].through(found.config.replace(**found.parameters))
                lines.append(calibration_sentence("rendered building", stage))
            print("\n  ".join(lines))
            if method is methods[0]:
                model = choices.model[0] if choices.model else None
                found.write(choices.calibrate, [shlex.join(["evaluate", *sys.argv[1:]]), *lines], model)

    def _datasets(self) -> Iterator[Dataset]:
        """Yield the data sets one at a time, by distinct names; without any choice the rendered building."""
        choices = self._choices
        options = Options(
            queries=choices.queries, references=choices.references, tolerance=choices.tolerance, radius=choices.radius,
            angle=choices.angle, exclude_seconds=choices.exclude_seconds, image_topic=choices.image_topic,
            pose_topic=choices.pose_topic,
        )  # fmt: skip
        if choices.all:
            paths = find_datasets(choices.all)
            if not paths:
                raise DatasetError(f"{choices.all} holds no data set; name a folder that does")
            for path, name in zip(paths, distinct([path.name for path in paths], paths), strict=True):
                with self._leaving_out(str(path)):
                    yield dataclasses.replace(open_dataset(path, options), name=name)
        elif choices.dataset:
            yield open_dataset(choices.dataset, options)
        elif choices.ground_truth:
            yield FolderPair.from_parts(Path(choices.queries), Path(choices.references), choices.ground_truth)
        else:
            yield RenderedBuilding.make(options)

    def _methods(self) -> list[Method]:
        """Return the models and baselines, by distinct names; without any choice the packaged model.

        Calibration needs a network in any case.
        """
        choices = self._choices
        models, baselines = list(dict.fromkeys(choices.model)), list(dict.fromkeys(choices.baseline))
        if not models and (self.calibrates or not baselines):
            models = [model_path(Config())]
            if choices.all:
                models += sorted(choices.all.rglob("*.tflite"))
                baselines = list(BASELINES)
        methods: list[Method] = []
        for model, name in zip(models, distinct([model.stem for model in models], models), strict=True):
            with self._leaving_out(str(model)):
                methods.append(load_model(model, choices.threads, choices.shift_cells))
                methods[-1].name = name
        for baseline in baselines:
            with self._leaving_out(baseline, counted=bool(choices.baseline)):
                methods.append(BASELINES[baseline]())
        return methods

    def _matrices(self, dataset: Dataset) -> list[tuple[str, Similarities]]:
        """Return the similarities that other programs wrote, by distinct names; raises DatasetError."""
        matrices = []
        files = list(dict.fromkeys(self._choices.similarities))
        names = [file.parent.name if file.name == VPR_BENCH_MATCHES else file.stem for file in files]
        for file, name in zip(files, distinct(names, files), strict=True):
            similarities = read_similarities(file)
            if similarities.shape != dataset.truth.shape:
                raise DatasetError(
                    f"{file} holds {similarities.shape} similarities, {dataset.name} has {dataset.truth.shape} queries "
                    "and references; name the matrix of this data set"
                )
            matrices.append((name, similarities))
        return matrices

    @contextlib.contextmanager
    def _leaving_out(self, what: str, counted: bool = True) -> Iterator[None]:
        """Go on where `what` cannot be measured, and say so."""
        try:
            yield
        except (ConfigError, DatasetError, DescriptorError, MethodError, ModelCardError, OSError, MemoryError) as error:
            short = "there is too little memory for it; take fewer images"
            reason = short if isinstance(error, MemoryError) else error
            tqdm.write(f"evaluate: left out {what}: {reason}", file=sys.stderr)
            self.left_out += counted

    def _write(self) -> None:
        choices = self._choices
        if choices.plots and (points := report.times_and_recalls(self.results)):
            plots.recall_over_time(choices.plots / "recall_over_time.png", points)
        if choices.json and self.results:
            choices.json.write_text(json.dumps(report.as_json(self.results), indent=2) + "\n", encoding="utf-8")
        if choices.markdown and self.results:
            command = shlex.join(["evaluate", *sys.argv[1:]])
            choices.markdown.write_text(report.markdown(self.results, command), encoding="utf-8")


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
    data.add_argument("--dataset", "--sequence", type=Path, metavar="PATH", help="folder or bag, of any known layout")
    data.add_argument("--queries", default="", metavar="DIR", help="folder of queries (of --dataset: its name)")
    data.add_argument("--references", default="", metavar="DIR", help="folder of references (likewise)")
    data.add_argument("--ground-truth", type=Path, metavar="CSV", help="for --queries and --references")
    data.add_argument(
        "--all", type=Path, metavar="DIR", help="all data sets below DIR, with all models below it and all baselines"
    )
    data.add_argument(
        "--tolerance", type=int, default=Options.tolerance, metavar="N",
        help="frames by which a match may be off, in traverses without ground truth (default %(default)s)",
    )  # fmt: skip
    data.add_argument("--radius", type=float, metavar="M", help="metres that are one place (default: by layout)")
    data.add_argument("--angle", type=float, metavar="DEG", help="degrees that are one view (default: by layout)")
    data.add_argument(
        "--exclude-seconds", type=float, default=Options.exclude_seconds, metavar="S",
        help="in a drive, match nothing that is younger (default %(default)s)",
    )  # fmt: skip
    data.add_argument("--image-topic", default="", metavar="TOPIC", help="of a bag with several")
    data.add_argument("--pose-topic", default="", metavar="TOPIC", help="of a bag with several")
    methods = parser.add_argument_group("methods (default: the packaged model)")
    methods.add_argument(
        "--model",
        type=Path,
        action="append",
        default=[],
        metavar="TFLITE",
        help="model file; may be given again",
    )
    methods.add_argument(
        "--baseline", choices=BASELINES, action="append", default=[], help="classical method; may be given again"
    )
    methods.add_argument(
        "--similarities", type=Path, action="append", default=[], metavar="NPY",
        help="matrix, queries by references, that another program wrote, or VPR-Bench's matches; may be given again",
    )  # fmt: skip
    methods.add_argument(
        "--seqslam", type=int, metavar="N", help=f"also match sequences of N images (0: none; --all: {SEQUENCE_LENGTH})"
    )
    methods.add_argument(
        "--sequence-keyframes", type=int, default=Config.sequence_keyframes, metavar="N",
        help="also match sequences as the node does with this parameter (default %(default)s: none)",
    )  # fmt: skip
    methods.add_argument(
        "--shift-cells", type=int, default=Config.shift_cells, metavar="N",
        help="match shifted images as the node does with this parameter (default %(default)s; 0: none)",
    )  # fmt: skip
    methods.add_argument(
        "--threads", type=int, default=Config.threads, metavar="N", help="for models (default %(default)s)"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    output.add_argument("--markdown", type=Path, metavar="FILE", help="write one table (--all: evaluation.md)")
    output.add_argument(
        "--calibrate", type=Path, metavar="YAML",
        help="write a params file: the min_score and min_inliers with the highest recall at 100%% precision on a drive",
    )  # fmt: skip
    output.add_argument("--plots", type=Path, metavar="DIR", help="draw pictures into this folder")
    choices = parser.parse_args(arguments)
    _check(parser, choices)
    return choices


def _check(parser: argparse.ArgumentParser, choices: argparse.Namespace) -> None:
    """End with a sentence where the choices do not go together; fill in what --all implies."""
    folders = [bool(choices.queries), bool(choices.references)]
    wrong = (
        (choices.all and choices.dataset, "--all and --dataset exclude each other; name one of them"),
        (choices.all and choices.similarities, "--similarities are of one data set; leave out --all"),
        (choices.ground_truth and (choices.all or choices.dataset), "--ground-truth is for --queries and --references"),
        (choices.ground_truth and not all(folders), "--ground-truth needs --queries and --references"),
        (any(folders) and not (choices.ground_truth or choices.dataset), "--queries and --references need "
         "--ground-truth, or a --dataset that holds both folders"),
        (choices.plots and choices.plots.exists() and not choices.plots.is_dir(), "--plots must name a folder"),
        *((file and (file.is_dir() or not file.absolute().parent.is_dir()), f"{file} is a folder, or in none")
          for file in (choices.json, choices.markdown, choices.calibrate)),
        (choices.calibrate and (choices.all or choices.similarities or choices.ground_truth), "--calibrate takes one "
         "drive, by --dataset or --sequence, and measures nothing else"),
        (choices.calibrate and (choices.json or choices.markdown or choices.plots or choices.seqslam), "--calibrate "
         "writes a params file alone; leave out --json, --markdown, --plots and --seqslam"),
    )  # fmt: skip
    for condition, sentence in wrong:
        if condition:
            parser.error(sentence)
    bounds: dict[str, tuple[float, float]] = {
        "exclude_seconds": (0, Config.bounds("exclusion_time")[1]), "threads": Config.bounds("threads"),
        "sequence_keyframes": Config.bounds("sequence_keyframes"), "shift_cells": Config.bounds("shift_cells"),
    }  # fmt: skip
    for name in ("tolerance", "radius", "angle", "seqslam", *bounds):
        value, (low, high) = getattr(choices, name), bounds.get(name, (0, sys.maxsize))
        if value is not None and not low <= value <= high:
            limits = f"at least {low}" if high == sys.maxsize else f"between {low} and {high}"
            parser.error(f"--{name.replace('_', '-')} must be {limits}, not {value}")
    if choices.seqslam is None:
        choices.seqslam = SEQUENCE_LENGTH if choices.all else 0
    if choices.all:
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
    except (DatasetError, MethodError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("evaluate: interrupted", file=sys.stderr)
        status = 1
    if not evaluation.calibrates:
        report.print_tables(evaluation.results)
    return status or int(evaluation.left_out > 0)


if __name__ == "__main__":
    sys.exit(main())
