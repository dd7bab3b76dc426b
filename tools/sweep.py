"""``python -m tools.sweep --model my.keras --data my.npz``: accuracy against bytes, all ways."""

from __future__ import annotations

import sys

from tfprune.utils.escapes import plain
from tools.command import command_line, main

# What an interrupt leaves behind.
LEFT = "what was measured is kept, and the same command goes on from there"


def sweep(
    *,
    model: str = "cnn",
    data: str | None = None,
    dataset: str = "auto",
    scale: str = "auto",
    units: int | None = None,
    epochs: int | None = None,
    selections: tuple[str, ...] | None = None,
    folds: tuple[str, ...] | None = None,
    shares: tuple[str, ...] | None = None,
    degrees: tuple[str, ...] | None = None,
    refit: tuple[str, ...] | None = None,
    heal: int | None = None,
    schemes: tuple[str, ...] = ("float32", "int8"),
    layers: tuple[str, ...] = ("dense",),
    skip: tuple[str, ...] = (),
    centre: str = "auto",
    calibration: int = 10_000,
    seed: int = 0,
    output: str = "sweep",
    quick: bool = False,
    unsafe: bool = False,
) -> None:
    """Prunes a model in many ways, and draws what each file scores against its bytes.

    Writes sweep.png, sweep.md, sweep.csv and sweep.jsonl, and prints the Pareto set: the files
    that no other beats in both bytes and accuracy on validation data. The same command goes on
    where it was interrupted.

    Args:
        model: cnn, mlp, autoencoder, or the path of a .keras or .h5 file.
        data: FILE.npz with x_train, y_train, x_test, y_test, or x, y; labels may lack.
        dataset: auto (MNIST, else the bundled digits), mnist or digits.
        scale: auto (uint8 to 0..1, but for a model that scales by itself) or none.
        units: Width of a built-in model's hidden layer.
        epochs: Of training a built-in model.
        selections: Some of effect,span,angle,magnitude,random; all of them by default.
        folds: Some of least-squares,scaled,outgoing,incoming,drop; shares, and degrees of span,
            take least-squares and drop alone.
        shares: Shares of the units that go from every layer; 25%,50%,75%,87.5% by default, or
            none.
        degrees: Angles, for angle and span; 10,20,30,40,50,60 by default, or none.
        refit: Steps of least squares for survivors, at shares; 0,100 by default, which is
            without and with.
        heal: Epochs in which every pruned model also learns the original's outputs, and is
            measured again.
        schemes: Some of float32,float16,dynamic,int8,int16x8,int4.
        layers: Prune dense, conv or all layers, or only these, NAME,NAME.
        skip: Leave these alone, NAME,NAME.
        centre: Where angles are measured from: mean, activation (0.5 after a sigmoid, else 0),
            none (0) or a number; auto is mean for least-squares and scaled, else activation.
        calibration: How many training samples to measure activations on.
        seed: Of splitting, training, healing and random.
        output: The folder to write to, and to go on in.
        quick: A coarse grid: effect and angle, 50%,75%, 30,50 degrees, least-squares and drop.
        unsafe: Load a model file although it can run code.
    """
    from tfprune.job.config import JobConfig, validate
    from tfprune.sweep.grid import grid
    from tfprune.utils.console import quiet
    from tfprune.utils.environment import start_keras

    config = validate(
        JobConfig(
            model=model, data=data, dataset=dataset, scale=scale, units=units, epochs=epochs,
            unsafe=unsafe, centre=centre, layers=layers, skip=skip, calibration=calibration,
            schemes=schemes, seed=seed, output=output, heal=heal,
        )
    )  # fmt: skip
    wanted = grid(
        config,
        quick=quick,
        selections=selections,
        folds=folds,
        shares=shares,
        degrees=degrees,
        refit=refit,
    )
    start_keras()
    with quiet():
        from tfprune.sweep.runner import run
    from tfprune.sweep.tables import to_text

    made = run(wanted, command_line("tools.sweep"), _say)
    print(to_text(made))
    print(f"\nall files: {output}/sweep.png, sweep.md, sweep.csv")


def _say(line: str) -> None:
    lead = "" if line.startswith("WARNING") else "tfprune: "
    print(f"{lead}{plain(line)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sweep, left=LEFT))
