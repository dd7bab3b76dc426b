"""The work of ``export``: loads data and model, prunes, trains, exports and measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from tfprune.calibration import check_weights
from tfprune.data.built_in import BUILT_IN
from tfprune.data.scoring import Scorer
from tfprune.data.splits import Dataset
from tfprune.data.test_samples import TestSet, drawn
from tfprune.graph.batches import check_stateless
from tfprune.graph.clone import walk
from tfprune.graph.inputs import check_inputs
from tfprune.graph.layers import CONVOLUTIONS, SEPARABLE
from tfprune.graph.names import check_names
from tfprune.graph.predictions import outputs_of
from tfprune.job import manifest, plots
from tfprune.job.adapted_start import start_of
from tfprune.job.answers import Answers
from tfprune.job.config import JobConfig
from tfprune.job.drop_pieces import SearchWorkers, search_workers
from tfprune.job.drop_search import check_classes, within_drop
from tfprune.job.file_export import export_variants
from tfprune.job.findings import Run, findings
from tfprune.job.micro_files import check_early, examined
from tfprune.job.model_and_data import measured_model, model_and_data
from tfprune.job.model_card import card, licence
from tfprune.job.original import check_samples, doubts, scorer
from tfprune.job.records import Artifact, FailedFile, Finding, Tried
from tfprune.job.sent_config import origin_of
from tfprune.job.stages import MODEL_AND_DATA, planned
from tfprune.job.variants import Variant, VariantBuilder, asked
from tfprune.output_folder.run_files import MANIFEST, PLOTS, leftovers, listed
from tfprune.output_folder.staging import staging
from tfprune.prune_result import PruneResult
from tfprune.report.headline import compared
from tfprune.report.page import REPORT
from tfprune.report.run_page import run_page, shown
from tfprune.tflite.compat import RUNTIME
from tfprune.tflite.converter import signature_names
from tfprune.tflite.interpreter import LiteModel, latencies
from tfprune.tfmot.bridge import to_tf_keras
from tfprune.tfmot.qat import check_quantisable, quantisable
from tfprune.training.augmentation import check_pictures
from tfprune.training.finetuning import check_labels
from tfprune.utils.arrays import Array
from tfprune.utils.console import Stages, during, meter
from tfprune.utils.git import git_state


@dataclass(frozen=True)
class Outcome:
    """The results of a run of ``export``."""

    result: PruneResult
    artifacts: tuple[Artifact, ...]
    manifest: dict[str, Any]
    findings: tuple[Finding, ...] = ()
    failed: tuple[FailedFile, ...] = ()


def run(config: JobConfig, command: Sequence[str], say: Callable[[str], None]) -> Outcome:
    """Runs ``export`` and writes its files; :class:`JobConfig` holds the options.

    Parameters
    ----------
    config : JobConfig
    command : sequence of str
        The command line, for the manifest.
    say : callable
        Is told, in a line each, what the user should know while it runs.

    Raises
    ------
    TfpruneError
        If something asked for is not possible; the output folder is then as it was.
    """
    git = git_state()
    folder = Path(config.output)

    def obsolete(written: Sequence[str]) -> list[str]:
        return leftovers(folder, written, say)

    with (
        staging(folder, MANIFEST, _places(config), obsolete) as stage,
        Stages(planned(config)),
        search_workers(config, say) as helpers,
    ):
        keras.utils.set_random_seed(config.seed)
        with during(MODEL_AND_DATA):
            model, data, about = model_and_data(config, say, config.test_data)
            x, measure = _checked(config, model, data)
        if helpers is not None:
            helpers.load(origin_of(about, model, data.sha256))
        start = start_of(config, model, data, measure)
        data = replace(data, notes=(*data.notes, *measure.notes, *start.notes))
        for note in data.notes:
            say(f"data: {note}")
        warnings = [*doubts(config, model, x, measure, data), *start.findings]
        for warning in warnings:
            say(str(warning))
        if measure.held_against:
            say(f"data: {measure.held_against}")
        if config.sparsity or config.cluster:
            say("zeros and shared weights leave a file's bytes as they are; gzip shows their worth")
        pruner = measured_model(config, start.model, data, say)
        builder = VariantBuilder(config, model, start.model, data, measure, pruner, say)
        ready, tried = _made(builder, helpers)
        result, models = ready.result, ready.models
        for note in result.notes:
            say(f"WARNING: {note}")
        pruned_name = about["name"] + config.suffix
        models["pruned"].save(stage / f"{pruned_name}.keras")
        names = {"finetuned": f"{about['name']}_finetuned", "pruned": pruned_name}
        files, failed = export_variants(
            [
                ("original", about["name"], model),
                *((variant, names[variant], smaller) for variant, smaller in models.items()),
            ],
            builder, check_inputs(model, data.calibration.x), stage, ready,
        )  # fmt: skip
        for one in failed:
            say(f"WARNING: not written: {one}")
        chosen = drawn(config.test_data or 0, measure, len(data.test), config.seed)
        with during("memory"):
            files, micro = examined(files, x, stage, config.device, config.c_array, say=say)
        answers = Answers(measure)
        artifacts, chosen_scores = _measured(files, x, answers, chosen)
        test_data: dict[str, Any] | None = None
        if config.test_data:
            path = stage / f"{about['name']}_test.npz"
            test_data = chosen.write(
                path, x, signature_names(model), {"name": data.name, "sha256": data.sha256}
            )
            test_data["scores"] = chosen_scores
        variants = {"original": model, **models}
        all_findings = warnings + findings(
            Run(
                config, command, result.layers, artifacts, samples=len(data.test),
                floats=_in_float(variants, artifacts, x, measure), judged_by=measure.judged_by,
                filters=pruner.calibration.asked == "dense"
                and any(type(layer) in (*CONVOLUTIONS, *SEPARABLE) for _, layer in walk(model)),
                quantisable=lambda: quantisable(model, x),
                qat_kept=config.qat is None or ready.quantised,
            )
        )  # fmt: skip
        _draw(result, artifacts, stage / PLOTS)
        document = manifest.manifest(
            command=command,
            seed=config.seed,
            git=git,
            dataset=data,
            inputs=signature_names(model),
            scoring=measure.about,
            model=about,
            result=result,
            artifacts=artifacts,
            failed=failed,
            compression=asked(config),
            training=ready.training,
            max_drop=config.options.max_drop,
            tried=tried,
            compat=RUNTIME if config.compat else None,
            test_data=test_data,
            microcontrollers=micro,
            classes=answers.classes,
            changed=_changed(answers, artifacts),
            findings=all_findings,
            licence=licence(data.name, config.data is not None and config.dataset != "mnist"),
        )
        (stage / f"{about['name']}.md").write_text(
            card(document), encoding="utf-8", errors="backslashreplace"
        )
        changed = [one["index"] for one in document.get("changed", {}).get("samples", ())]
        (stage / REPORT).write_text(
            run_page(document, result.layers, shown(x, changed)), encoding="utf-8"
        )
        document["files"] = listed(stage)
        manifest.write(document, stage / MANIFEST)
    return Outcome(result, tuple(artifacts), document, tuple(all_findings), tuple(failed))


def _places(config: JobConfig) -> list[str]:
    """The files that the run will write, to check early that they can be written."""
    name = config.model if config.model in BUILT_IN else Path(config.model).stem
    variants = [name, name + config.suffix]
    return [
        MANIFEST,
        REPORT,
        f"{name}.md",
        f"{name}{config.suffix}.keras",
        f"{PLOTS}/bytes_against_score.png",
        *(f"{variant}_{scheme}.tflite" for variant in variants for scheme in config.schemes),
    ]


def _checked(config: JobConfig, model: keras.Model, data: Dataset) -> tuple[list[Array], Scorer]:
    """The test samples as the model takes them, and how files are scored on them.

    Refuses what is not possible, before the long work, so that it is told alone.
    """
    check_weights(model)
    check_names(model)
    check_stateless(model)
    x = check_inputs(model, data.test.x)
    check_samples(data)
    if config.qat:
        check_quantisable(model, x)
    elif config.sparsity or config.cluster:
        to_tf_keras(model, x)
    if config.c_array or config.device:
        calibration = check_inputs(model, data.calibration.x)
        how = {"batch": config.batch, "compat": config.compat}
        check_early(model, x, calibration, config.schemes, **how)
    if config.augment:
        check_pictures(model, "--augment")
    measure = scorer(config, model, x, data.test, data)
    if config.finetune:
        check_labels(measure)
    if config.options.max_drop is not None:
        check_classes(measure)
    return x, measure


def _made(builder: VariantBuilder, helpers: SearchWorkers | None) -> tuple[Variant, list[Tried]]:
    """The smaller model, and those that a search made on the way."""
    options = builder.config.options
    if options.max_drop is None:
        return builder.make(options), []
    with during("search"):
        return within_drop(builder, helpers)


def _measured(
    files: Sequence[tuple[Artifact, LiteModel]],
    x: Sequence[Array],
    answers: Answers,
    chosen: TestSet,
) -> tuple[list[Artifact], dict[str, dict[str, float]]]:
    """The artifacts with their scores on the test data and their latencies; answers are noted.

    The scores on the samples that travel come apart, by the names of the files.
    """
    times = latencies([lite for _, lite in files], [data[0] for data in x], progress=True)
    measured_artifacts, apart = [], {}
    with meter("testing", len(files) * len(x[0])) as bar:
        for (artifact, lite), latency in zip(files, times, strict=True):
            outputs = lite.predict(x, bar.update)
            exact = answers.measure.scores(outputs)
            scores = {name: round(value, 6) for name, value in exact.items()}
            measured_artifacts.append(replace(artifact, scores=scores, latency_us=latency))
            answers.add(artifact.file, outputs)
            if len(chosen.index):
                apart[artifact.file] = chosen.score(outputs)
    return measured_artifacts, apart


def _changed(answers: Answers, artifacts: Sequence[Artifact]) -> dict[str, Any] | None:
    """The samples whose answer changed in the file that the report is about."""
    pair = compared([manifest.artifact_entry(artifact) for artifact in artifacts])
    return answers.changed(pair[1]["file"]) if pair else None


def _in_float(
    variants: dict[str, keras.Model],
    artifacts: Sequence[Artifact],
    x: Sequence[Array],
    measure: Scorer,
) -> dict[str, dict[str, float]]:
    """The scores of every variant in float32: its file's, or where there is none the model's."""
    scores = {one.variant: one.scores for one in artifacts if one.scheme == "float32"}
    for variant, model in variants.items():
        if variant not in scores:
            whole = variant == "original"
            scores[variant] = measure.scores(measure.reference if whole else outputs_of(model, x))
    return scores


def _draw(result: PruneResult, artifacts: Sequence[Artifact], folder: Path) -> None:
    folder.mkdir()
    # Layers that go together share their angles.
    drawn = [layer for layer in result.layers if layer.angles.size]
    first = {layer.group or layer.name: layer for layer in reversed(drawn)}
    for layer in reversed(first.values()):
        stem = layer.name.replace("/", "_")
        plots.angle_histogram(layer, result.threshold, folder / f"{stem}_angles.png")
        plots.angle_map(layer, folder / f"{stem}_angle_map.png")
    plots.bytes_against_score(artifacts, folder / "bytes_against_score.png")
