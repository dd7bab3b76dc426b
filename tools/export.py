"""``python -m tools.export --prune 30``: a Keras model in, small measured TFLite files out."""

from __future__ import annotations

import sys

from tfprune.tflite.schemes import DEFAULT_SCHEMES
from tfprune.utils.escapes import plain
from tools.command import PARTIAL, command_line, main


def export(
    *,
    prune: str | None = None,
    remove: str | None = None,
    target_params: str | None = None,
    target_macs: str | None = None,
    target_bytes: str | None = None,
    max_drop: str | None = None,
    select: str | None = None,
    refit: int | None = None,
    dataset: str = "auto",
    data: str | None = None,
    scale: str = "auto",
    model: str = "cnn",
    units: int | None = None,
    epochs: int | None = None,
    heal: int | None = None,
    finetune: int | None = None,
    centre: str = "auto",
    fold: str = "least-squares",
    layers: tuple[str, ...] = ("dense",),
    skip: tuple[str, ...] = (),
    schemes: tuple[str, ...] = DEFAULT_SCHEMES,
    batch: str = "1",
    calibration: int = 10_000,
    seed: int = 0,
    output: str = "exported",
    qat: int | None = None,
    cluster: int | None = None,
    sparsity: str | None = None,
    compat: bool = False,
    test_data: int | None = None,
    c_array: bool = False,
    device: tuple[str, ...] = (),
    unsafe: bool = False,
    json: bool = False,
) -> int:
    """Prunes units that do the same work, and exports TFLite files with measured figures.

    Writes NAME_SCHEME.tflite, NAME_pruneDEGREES_SCHEME.tflite, NAME_pruneDEGREES.keras,
    manifest.json, NAME.md and plots/. A budget in place of degrees stands in the names as well:
    NAME_remove50, NAME_params50, NAME_macs50, NAME_bytes20000, NAME_drop0.1.

    Args:
        prune: Degrees in (0, 90): two units whose activation vectors are closer do the same work.
            30 if nothing else is asked for.
        remove: In place of degrees the share of units that goes from every layer, such as 50%.
        target_params: In place of degrees how many parameters may stay, such as 50% or 20000;
            layers are narrowed where units have least effect for what they cost.
        target_macs: The same for multiply-accumulates of a sample.
        target_bytes: The same for bytes of the pruned file of the first of --schemes.
        max_drop: In place of degrees the percent points of accuracy that may go, such as 0.1: a
            search for the smallest model, on held-out data and files of the first of --schemes.
        select: By what units are chosen: angle (the default) or span with degrees; effect (the
            default), span, angle, magnitude or random with --remove; budgets know effect only.
        refit: Steps of least squares for the survivors' own weights; 100 with --remove and budgets,
            else 0.
        dataset: auto (MNIST, else the bundled digits), mnist or digits.
        data: FILE.npz with x_train, y_train, x_test, y_test, or x, y; labels may lack.
            For a model of several inputs x_train_NAME, x_test_NAME, or x_NAME, for every input.
        scale: auto (uint8 to 0..1, but for a model that scales by itself) or none.
        model: cnn, mlp, autoencoder, or the path of a .keras or .h5 file.
        units: Width of a built-in model's hidden layer.
        epochs: Of training a built-in model.
        heal: Epochs in which the pruned model learns the original's outputs; needs no labels.
        finetune: Epochs of training on labels, after healing; the unpruned model gets the same
            and stands beside it as NAME_finetuned_SCHEME.tflite.
        centre: Where angles are measured from: mean, activation (0.5 after a sigmoid, else 0),
            none (0) or a number; auto is mean for least-squares and scaled, else activation.
        fold: least-squares, scaled, outgoing, incoming or drop.
        layers: Prune dense, conv or all layers, or only these, NAME,NAME.
        skip: Leave these alone, NAME,NAME.
        schemes: Some of float32,float16,dynamic,int8,int16x8,int4.
        batch: 1, another fixed batch size, or dynamic.
        calibration: How many training samples to measure activations on.
        seed: Of splitting and training.
        output: The folder to write to.
        qat: Epochs of quantisation-aware training, without labels, for the pruned int8 file.
        cluster: Distinct weights that a kernel of the pruned model may have, 2 to 256.
        sparsity: Share of the pruned model's weights to set to zero, such as 50%.
        compat: Make files that tflite-runtime 2.14 can run, the last runtime for 32-bit systems.
        test_data: How many test samples to write beside the files, for tools/run.py on a device.
        c_array: Write the int8 files as C source as well, NAME.h and NAME.cc, for TensorFlow Lite
            Micro; needs tflite-micro, which measures the memory that they work in.
        device: Say whether the int8 files fit in microcontroller boards, by name (an unknown one is
            answered with all names) or FILE.toml with ram and flash; NAME,NAME for several.
        unsafe: Load a model file although it can run code.
        json: Print the manifest in place of the tables.
    """
    from tfprune.job.config import JobConfig, validate
    from tfprune.utils.console import quiet
    from tfprune.utils.environment import start_keras

    config = validate(
        JobConfig(
            dataset=dataset, data=data, scale=scale, model=model, units=units, epochs=epochs,
            heal=heal, finetune=finetune,
            unsafe=unsafe, centre=centre, fold=fold, layers=layers, skip=skip,
            calibration=calibration, schemes=schemes, seed=seed, output=output,
            qat=qat, cluster=cluster, select=select, refit=refit,
            compat=compat, test_data=test_data, c_array=c_array,
        ),
        prune=prune, device=device, batch=batch, remove=remove, sparsity=sparsity,
        max_drop=max_drop,
        target_params=target_params, target_macs=target_macs, target_bytes=target_bytes,
    )  # fmt: skip
    start_keras()
    with quiet():
        from tfprune.job.pipeline import run
    from tfprune.job.manifest import to_json
    from tfprune.job.tables import job_report

    outcome = run(config, command_line("tools.export"), _say)
    result = outcome.result
    made = outcome.manifest
    print(
        to_json(made)
        if json
        else job_report(
            result.layers,
            result.skipped,
            outcome.artifacts,
            made["dataset"],
            made["training"],
            failed=outcome.failed,
            others=result.others,
            asked=result.asked,
            reached=result.reached,
            microcontrollers=made.get("microcontrollers"),
        ),
        end="" if json else "\n",
        flush=True,
    )
    for finding in outcome.findings:
        print(plain(finding), file=sys.stderr, flush=True)
    if outcome.failed:
        count = len(outcome.failed)
        total = count + len(outcome.artifacts)
        _say(f"{count} of {total} files were not written; the others are there")
        return PARTIAL
    return 0


def _say(line: str) -> None:
    lead = "" if line.startswith("WARNING") else "tfprune: "
    print(f"{lead}{plain(line)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(export))
