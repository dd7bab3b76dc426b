"""Writes the files of all variants of a model, and notes those that cannot be made."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import keras

from tfprune.errors import TfpruneError
from tfprune.job.config import JobConfig
from tfprune.job.records import Artifact, FailedFile
from tfprune.job.variants import Variant, VariantBuilder, made_by
from tfprune.tflite.converter import signature_names
from tfprune.tflite.interpreter import LiteModel
from tfprune.tflite.reader import weight_bytes
from tfprune.tfmot.qat import EPOCHS, quantisable
from tfprune.utils.arrays import Array
from tfprune.utils.console import meter
from tfprune.utils.digests import file_digest


def export_variants(
    variants: Sequence[tuple[str, str, keras.Model]],
    builder: VariantBuilder,
    calibration: Sequence[Array],
    folder: Path,
    ready: Variant,
) -> tuple[list[tuple[Artifact, LiteModel]], list[FailedFile]]:
    """Converts and writes the files of all variants; nothing is measured on them yet.

    Parameters
    ----------
    variants : sequence of (variant, name, model)
        The name is that of its files.
    workshop : VariantBuilder
    calibration : sequence of arrays of shape (samples, ...)
        For each input.
    folder : Path
    ready : Variant
        With files of the pruned model that are there already, or why there is none.

    Returns
    -------
    files : list of (Artifact, LiteModel)
    failed : list of FailedFile

    Raises
    ------
    TfpruneError
        If no file at all can be made, or one of the only scheme cannot.
    """
    config = builder.config
    files: list[tuple[Artifact, LiteModel]] = []
    failed: list[FailedFile] = []
    with meter("converting", len(variants) * len(config.schemes), unit="file") as drawn:
        for variant, name, model in variants:
            ready_files = ready.files if variant == "pruned" else {}
            rest = [scheme for scheme in config.schemes if scheme not in ready_files]
            converted = builder.files(model, rest, calibration)
            for scheme in config.schemes:
                content = ready_files[scheme] if scheme in ready_files else next(converted)[1]
                path = folder / f"{name}_{scheme}.tflite"
                if isinstance(content, TfpruneError):
                    trained = (variant, scheme) == ("pruned", "int8")
                    advice = _trained_for_int8(config, model, calibration) if trained else ""
                    advice += _scaled(builder) if variant == "original" else ""
                    reason = f"{content}; choose other --schemes{advice}"
                    failed.append(FailedFile(path.name, variant, scheme, reason))
                else:
                    path.write_bytes(content)
                    how = made_by(config, variant, scheme, quantised=ready.quantised)
                    artifact = _artifact(config, variant, scheme, path, model)
                    artifact = replace(artifact, made_by=how)
                    files.append((artifact, LiteModel(content, signature_names(model))))
                drawn.update()
    if failed and (len(config.schemes) == 1 or not files):
        others = [f"{one.variant} {one.scheme}" for one in failed[1:]]
        more = f" (likewise the others: {', '.join(others)})" if others else ""
        raise TfpruneError(f"{failed[0]}{more}")
    return files, failed


def _trained_for_int8(config: JobConfig, model: keras.Model, x: Sequence[Array]) -> str:
    """Advice to train for int8, where that is possible."""
    if config.qat is not None:
        return ", or try more epochs of --qat"
    return f", or try --qat {EPOCHS}" if quantisable(model, x) else ""


def _scaled(builder: VariantBuilder) -> str:
    """That values which a model does not take may be the cause, where they were chosen for it."""
    scales = [str(scale) for scale in builder.data.scales if not scale.unchanged]
    if builder.config.built_in or not scales:
        return ""
    return (
        f". Or does the model take other values? It got data {', '.join(scales)}; --scale none "
        "leaves them as they are"
    )


def _artifact(
    config: JobConfig, variant: str, scheme: str, path: Path, model: keras.Model
) -> Artifact:
    zipped = config.sparsity is not None or config.cluster is not None
    content = path.read_bytes()
    return Artifact(
        file=path.name,
        variant=variant,
        scheme=scheme,
        bytes=len(content),
        sha256=file_digest(path),
        parameters=model.count_params(),
        weights_bytes=weight_bytes(path),
        gzip_bytes=len(gzip.compress(content)) if zipped else None,
    )
