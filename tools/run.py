#!/usr/bin/env python3
"""``python run.py model.tflite --data test.npz``: TFLite files scored and timed on a device.

Copy this one file to a Raspberry Pi, with the models. It needs Python 3.10 or newer, numpy, and
ai-edge-litert or, on 32-bit systems, tflite-runtime; no TensorFlow, nothing else of tfprune.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import importlib
import importlib.util
import json
import math
import os
import platform
import re
import signal
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

# Set for the process that does the work, by the one that waits for it.
WORKER = "TFPRUNE_RUN_WORKER"


def open_streams() -> None:
    """Opens the standard streams that were closed, so that no file takes their numbers.

    Characters that a stream does not know are written as escapes.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It takes the lowest number that is free.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        failing = getattr(stream, "errors", None) in ("strict", "surrogateescape", "surrogatepass")
        if failing and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def tell(line: str) -> None:
    """A line on stderr, if anybody reads it."""
    try:
        print(f"run.py: {line}", file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def supervise() -> int:
    """Runs this command in a process of its own: no file can do more than end that one."""
    open_streams()
    with contextlib.suppress(OSError, ValueError):
        worker = subprocess.Popen(
            [sys.executable, __file__, *sys.argv[1:]], env={**os.environ, WORKER: "1"}
        )
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # The worker is interrupted as well.
                code = worker.wait()
                break
        if code in (0, 1, 2, 120, 130):
            return code
        names = {-number: number.name for number in signal.Signals}
        files = ", ".join(word for word in sys.argv[1:] if word.endswith(".tflite"))
        how = names.get(code, f"code {code}")
        tell(f"the runtime crashed ({how}) on one of {files}: is it whole?")
        return 2
    os.environ[WORKER] = "1"  # A system without processes to spare.
    return -1


if __name__ == "__main__" and WORKER not in os.environ and (ended := supervise()) >= 0:
    # Before numpy, which the process that only waits needs no memory for.
    raise SystemExit(ended)

try:
    import numpy as np
except (ImportError, MemoryError) as error:
    why = " ".join(str(error).split())[:200] or "no memory"
    tell(f"numpy cannot be imported ({why}); pip install -r requirements-pi.txt")
    raise SystemExit(2) from None

Array = Any
RUNTIMES = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}
BITS = 8 * struct.calcsize("P")
WARM_UP = 50
ROUNDS = 5
# Timed invocations of a file, fewer of a slow one so that a round takes about this long.
RUNS = 1000
ROUND_SECONDS = 1.0
# An output as large as the input, and of at least so many numbers, is taken for its copy.
LEAST_RECONSTRUCTION = 16
# No larger manifest is read.
MANIFEST_BYTES = 2**24
SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Channels of a pixel by a PNG's colour type: grey, RGB, palette, grey and RGB with alpha.
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Bits of a number by the type of a tensor, and the code of an operator, in the schema of TFLite.
WIDTHS = {0: 32, 1: 16, 2: 32, 3: 8, 4: 64, 6: 8, 7: 16, 9: 8, 10: 64, 17: 4}
RESHAPE = 22
# Bytes that arrays may have whatever their file's size, and how many times their file's else.
ARRAYS, UNPACKED = 2**28, 100
LUMA = (19595, 38470, 7471)  # ITU-R BT.601, in 65536ths.


class RunError(ValueError):
    """Something that the user can mend, in one line."""


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        raise RunError(message)


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = _Parser(prog="run.py", allow_abbrev=False, description=str(__doc__).split("\n")[0])
    add = made.add_argument
    add("files", nargs="+", type=Path, metavar="FILE.tflite", help="files to run, side by side")
    named = "for an input NAME x_test_NAME, for an output y_test_NAME"
    add("--data", type=Path, help=f".npz of x_test, y_test (or x, y); {named}")
    add("--image", type=Path, help="classify a picture of the model's size")
    add("--input", type=Path, help="classify one sample: .npy (several inputs: .npz by NAME)")
    scales = "auto (the default): uint8 data to 0..1, unless the file is known to take bytes"
    add("--scale", choices=("auto", "none"), default="auto", help=scales)
    add("--threads", type=int, default=1, help="threads of the runtime (1)")
    runs = f"timed invocations of a file, 0 for none; {RUNS} or 5 s (--image, --input: none)"
    add("--runs", type=int, help=runs)
    add("--reference", action="store_true", help="slow kernels that compute the same everywhere")
    add("--outputs", type=Path, help=".npz to write the files' outputs to, as they come")
    add("--json", action="store_true", help="print JSON in place of the table")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; 2 for what the user can mend, told in one line, 130 if interrupted."""
    open_streams()
    try:
        run(parser().parse_args(argv))
        sys.stdout.flush()
    except BrokenPipeError:
        pass
    except (RunError, OSError, MemoryError) as error:
        tell(shown(" ".join(str(error).split()) or type(error).__name__))
        return 2
    except KeyboardInterrupt:
        tell("interrupted")
        return 130
    finally:
        # What could not be written is tried again at the end, which would change the exit code.
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def run(flags: argparse.Namespace) -> None:
    """Loads the files, runs and times them, and prints what came out.

    Raises
    ------
    RunError
        If a flag, a file or the data is not what it should be; nothing is printed then.
    """
    kind = asked(flags)
    path = getattr(flags, kind) if kind else Path()
    loaded: Any = {}
    if kind:
        loaded = picture(path) if kind == "image" else arrays_of(path)
    package, runtime = load_runtime()
    models = [Model(path, package, runtime, flags) for path in flags.files]
    for model in models:
        # What tools.export wrote is ready to be fed.
        ready = kind == "data" and "scoring" in loaded
        model.fit(model.samples(loaded, kind), "none" if ready else flags.scale)
        model.first()
    if kind == "data":
        check_labels(labels_of(loaded), len(models[0].x[0]), path)
    results: list[dict[str, Any]] = []
    saved: dict[str, Array] = {}
    for model in models:
        results.append(dict(model.about))
        if kind:
            raw = model.predict()
            twice = [other.path.name for other in models].count(model.path.name) > 1
            label = str(model.path) if twice else model.path.name
            saved |= {f"{label}/{place}": out for place, out in enumerate(raw)}
            outputs = [real(out, detail) for out, detail in zip(raw, model.outputs, strict=True)]
            if kind == "data":
                results[-1] |= scored(outputs, model, loaded, path)
            else:
                results[-1]["outputs"] = [described(out, model) for out in outputs]
    if flags.outputs:
        save(flags.outputs, saved)
    # One classified sample is wanted at once.
    runs = 0 if flags.runs is None and kind in ("image", "input") else flags.runs
    for place, times in enumerate(latencies(models, runs)):
        results[place] |= times
    report = about(package, flags)
    if kind:
        notes = sorted({note for model in models for note in model.notes})
        report |= {"data": str(path), "samples": len(models[0].x[0]), "notes": notes}
    if kind == "data":
        report["warnings"] = [line for model in models for line in other_data(model, loaded, path)]
        for line in report["warnings"]:
            tell(f"warning: {shown(line)}")
    report |= {"peak_memory_bytes": peak_memory(), "files": results}
    print(json.dumps(report, indent=2) if flags.json else text(report))


def save(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes an .npz whole or not at all; into a pipe or a device as it is."""
    there = path.exists() and not path.is_file()
    partial = path if there else path.with_name(f".part-{os.getpid()}.npz")
    try:
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        if not there:
            partial.replace(path)
    finally:
        if not there:
            partial.unlink(missing_ok=True)


def asked(flags: argparse.Namespace) -> str:
    """What the files are to run: data, image, input or nothing.

    Raises
    ------
    RunError
        If the flags do not go together.
    """
    for flag, least in (("threads", 1), ("runs", 0)):
        value = getattr(flags, flag)
        if value is not None and value < least:
            raise RunError(f"--{flag}: expected a whole number from {least}, received {value}")
    given = [flag for flag in ("data", "image", "input") if getattr(flags, flag)]
    if len(given) > 1:
        raise RunError(f"--{given[0]} and --{given[1]}: expected one of them, received both")
    if flags.outputs and not given:
        raise RunError("--outputs: expected --data, --image or --input with it")
    return given[0] if given else ""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Sends what native code writes to stdout and stderr nowhere."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved, sink = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        for target, original in enumerate(saved, 1):
            os.dup2(original, target)
            os.close(original)
        os.close(sink)


def load_runtime() -> tuple[str, Any]:
    """The first interpreter that can be imported: its package's name, and the module.

    Raises
    ------
    RunError
        If there is none.
    """
    problems = []
    for module, package in RUNTIMES.items():
        if importlib.util.find_spec(module) is None:
            continue
        if module == "tflite_runtime" and int(np.__version__.split(".")[0]) > 1:
            # To import it would end in a page of text, or in a crash.
            problems.append(f"{package} needs numpy<2, and this is numpy {np.__version__}")
            continue
        try:
            with quiet():
                return package, importlib.import_module(f"{module}.interpreter")
        except Exception as error:  # Whatever a broken installation raises.
            problems.append(f"{package}: {error}")
    why = "; ".join(problems) or "neither ai-edge-litert nor tflite-runtime is installed"
    # pip takes a 32-bit system on a 64-bit kernel for a 64-bit one.
    small = "tflite-runtime==2.14.0 'numpy<2'"
    raise RunError(f"{why}; pip install {'-r requirements-pi.txt' if BITS == 64 else small}")


class Model:
    """A file in the interpreter, with the samples that it is to run.

    Attributes
    ----------
    manifest : dict
        What ``tools.export`` wrote beside the file, empty if that is not of this very file.
    names : list of str
        Of the inputs, in the order of the model.
    inputs, outputs : list of dict
        What the runtime says of them.
    x : list of arrays of shape (samples, ...)
        One for each input, after :meth:`fit`, in the units of the data.
    about : dict
        The file's name, bytes and milliseconds.
    notes : list of str
        What was done to the data.
    """

    def __init__(self, path: Path, package: str, runtime: Any, flags: argparse.Namespace) -> None:
        self.path, content = path, whole(path)
        self.manifest = manifest_of(path, hashlib.sha256(content).hexdigest())
        if content[4:8] != b"TFL3":
            raise RunError(f"{path}: expected a TFLite file, received something else")
        try:
            check_graph(content)
        except (struct.error, IndexError):
            told = "expected a whole TFLite file; is it truncated?"
            raise RunError(f"{path}: {told}") from None
        except RunError as error:
            raise RunError(f"{path}: {error}") from None
        kinds = runtime.OpResolverType
        kernels = kinds.BUILTIN_REF if flags.reference else kinds.AUTO
        options = {"num_threads": flags.threads, "experimental_op_resolver_type": kernels}
        start = time.perf_counter_ns()
        try:
            with quiet():
                self._interpreter = runtime.Interpreter(model_content=content, **options)
                self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise RunError(f"{path}: {reason(str(error), package, flags.reference)}") from None
        self.about = {"file": str(path), "bytes": len(content)}
        self.about["load_ms"] = round((time.perf_counter_ns() - start) / 1e6, 3)
        self.x: list[Array] = []
        self.notes: list[str] = []
        with self._telling():
            self._look()

    def _look(self) -> None:
        """Inputs and outputs by the signature; by the file's own order where it has none."""
        engine = self._interpreter
        self.inputs, self.outputs = engine.get_input_details(), engine.get_output_details()
        self.names = [str(detail["name"]) for detail in self.inputs]
        signatures = list(engine.get_signature_list())
        if len(signatures) != 1:
            return
        # Kept no longer than this: tensors cannot be resized while it lives.
        runner = engine.get_signature_runner(signatures[0])
        of = {int(d["index"]): d for d in (*self.inputs, *self.outputs)}
        named = {key: int(d["index"]) for key, d in runner.get_input_details().items()}
        given = {key: int(d["index"]) for key, d in runner.get_output_details().items()}
        if set(of) == {*named.values(), *given.values()}:
            self.names, self.inputs = list(named), [of[index] for index in named.values()]
            self.outputs = [of[given[key]] for key in in_order(given)]

    def samples(self, loaded: Any, kind: str) -> list[Array]:
        """The samples for each input, out of what was read."""
        shapes = [tuple(detail["shape_signature"]) for detail in self.inputs]
        if not kind:
            rng = np.random.default_rng(0)
            return [rng.random((1, *detail["shape"][1:])) for detail in self.inputs]
        if kind == "image":
            if len(shapes) > 1:
                raise RunError(f"{self.path}: expected a model of one input for --image")
            return [coloured(loaded, shapes[0], self.path)]
        found = []
        for name, shape in zip(self.names, shapes, strict=True):
            stems = ("x_test", "x") if kind == "data" else ("x", "")
            keys = [f"{stem}_{name}".strip("_") for stem in stems]
            keys += [stem for stem in stems if len(self.names) == 1]
            key = next((key for key in keys if key in loaded), None)
            if key is None:
                have = ", ".join(loaded) or "none"
                raise RunError(f"--{kind}: expected an array {' or '.join(keys)}, received {have}")
            data = loaded[key]
            # One sample may come with its axis of samples or without.
            whole = kind == "data" or (data.ndim == len(shape) and data.shape[:1] == (1,))
            found.append(data if whole else data[None])
        return found

    def fit(self, arrays: Sequence[Array], scale: str) -> None:
        """Shapes samples for the inputs, and sizes what the file leaves open.

        Raises
        ------
        RunError
            If they do not fit.
        """
        self.batch, self._scaled, self._lone = 1, list[dict[str, Any]](), False
        for place, (data, detail) in enumerate(zip(arrays, self.inputs, strict=True)):
            where = f"{self.path}, input {self.names[place]}"
            want = tuple(map(int, detail["shape_signature"]))
            check_numbers(data, len(arrays[0]), detail, where)
            shapes = [data.shape[1:], (*data.shape[1:], 1)]
            inner = next((shape for shape in shapes if want and fits(shape, want[1:])), None)
            if inner is None and not fits(data.shape[1:], want):
                received = said(data.shape[1:])
                raise RunError(f"{where}: expected samples of {said(want[1:])}, not {received}")
            # Some files have no axis of samples.
            self._lone = inner is None
            if inner == shapes[1]:
                self.notes.append(f"channel axis added: {shapes[0]} to {inner}")
            self.x.append(data if inner is None else data.reshape(len(data), *inner))
            scaled = scale == "auto" and data.dtype == np.uint8
            self._scaled.append(self._scale(place) if scaled else {})
            if not self._lone:
                self.batch = max(want[0], 1)
                if -1 in want:
                    shape = (self.batch, *self.x[-1].shape[1:])
                    self._interpreter.resize_tensor_input(detail["index"], shape)
        with self._telling():
            self._interpreter.allocate_tensors()

    def _scale(self, place: int) -> dict[str, Any]:
        """How bytes are scaled for an input, as far as that is known, {} if not; adds a note.

        ``factor``, and where the manifest says so ``offset`` and ``reverse``, of the channels.
        """
        detail, factor, why = self.inputs[place], 1 / 255, "assumed; --scale none leaves it"
        step, zero = detail["quantization"]
        if self.x[place].max() <= 1 or (np.dtype(detail["dtype"]).kind != "f" and not step):
            return {}
        how: dict[str, Any] = {}
        if step:
            top = (np.iinfo(detail["dtype"]).max - zero) * step
            # Nearer to 255 than to 1, on a scale of ratios.
            factor, why = (1 if top > 16 else factor), f"as the file takes values up to {top:.3g}"
        with contextlib.suppress(LookupError, TypeError):
            known = self.manifest["dataset"]["scales"][self.names[place]]
            if known["dtype"] == "uint8":
                factor, why = known["factor"], "as manifest.json says"
                how = {key: known[key] for key in ("offset", "reverse") if key in known}
        what = "uint8 scaled" if how or factor != 1 / 255 else "uint8 scaled from 0..255 to 0..1"
        what = "uint8 left as it is" if factor == 1 and not how else what
        self.notes.append(f"{what} ({why})")
        return {"factor": factor, **how} if how or factor != 1 else {}

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """What the runtime cannot do, in one line."""
        try:
            with quiet():
                yield
        except (RuntimeError, ValueError) as error:
            raise RunError(f"{self.path}: it does not run: {error}") from None

    def values(self, place: int, rows: slice = slice(None)) -> Array:
        """Samples for an input in its units: uint8 scaled, nothing quantised."""
        data = self.x[place][rows]
        how = self._scaled[place]
        if not how:
            return data
        if how == {"factor": 1 / 255}:
            return data.astype(np.float32) / 255
        scaled = (data[..., ::-1] if how.get("reverse") else data).astype(np.float32)
        factor, offset = (np.float32(how.get(key, 0)) for key in ("factor", "offset"))
        return np.asarray(scaled * factor + offset)

    def feed(self, start: int) -> int:
        """Fills the inputs from a sample on, and returns how many there were.

        A fixed batch that the samples do not fill gets the last one again.
        """
        count = min(self.batch, len(self.x[0]) - start)
        for place, detail in enumerate(self.inputs):
            data = quantised(self.values(place, slice(start, start + count)), detail)
            if self._lone:
                data = data[0]
            elif count < self.batch:
                data = np.concatenate([data, np.repeat(data[-1:], self.batch - count, axis=0)])
            self._interpreter.set_tensor(detail["index"], data)
        return count

    def first(self) -> None:
        """Invokes once, for the time that it takes."""
        with self._telling():
            self.feed(0)
            self.about["first_invoke_ms"] = round(self.time(1)[0] / 1e6, 3)

    def time(self, runs: int) -> list[int]:
        """Nanoseconds of each of so many invocations."""
        invoke, clock, taken = self._interpreter.invoke, time.perf_counter_ns, []
        for _ in range(runs):
            start = clock()
            invoke()
            taken.append(clock() - start)
        return taken

    def predict(self) -> list[Array]:
        """What the file gives for every sample, as it comes: (samples, ...) for each output."""
        rows: list[list[Array]] = [[] for _ in self.outputs]
        with self._telling():
            for start in range(0, len(self.x[0]), self.batch):
                count = self.feed(start)
                self._interpreter.invoke()
                for row, detail in zip(rows, self.outputs, strict=True):
                    out = self._interpreter.get_tensor(detail["index"])
                    batched = not self._lone and out.shape[:1] == (self.batch,)
                    row.append(out[:count] if batched else out[None])
        return [np.concatenate(row) for row in rows]


class Table:
    """A table of a flatbuffer; what points outside the file raises struct.error or IndexError."""

    def __init__(self, data: bytes, at: int, budget: list[int]) -> None:
        budget[0] -= 1
        if budget[0] < 0:
            raise RunError("expected a file as converters write it, not one table over and over")
        self.data, self.at, self.budget = data, at, budget
        self.slots = at - self.number("<i", at)

    def number(self, form: str, at: int) -> int:
        if at < 0:
            raise IndexError
        return int(struct.unpack_from(form, self.data, at)[0])

    def field(self, place: int) -> int:
        slot = 4 + 2 * place
        if slot >= self.number("<H", self.slots):
            return 0
        away = self.number("<H", self.slots + slot)
        return self.at + away if away else 0

    def scalar(self, place: int, form: str = "<I") -> int:
        at = self.field(place)
        return self.number(form, at) if at else 0

    def vector(self, place: int, width: int = 4) -> range:
        """Where the elements of a vector are."""
        at = self.field(place)
        if not at:
            return range(0)
        at += self.number("<I", at)
        end = at + 4 + width * self.number("<I", at)
        if end > len(self.data):
            raise IndexError
        return range(at + 4, end, width)

    def numbers(self, place: int) -> list[int]:
        return [self.number("<i", at) for at in self.vector(place)]

    def tables(self, place: int) -> list[Table]:
        ats = self.vector(place)
        return [Table(self.data, at + self.number("<I", at), self.budget) for at in ats]


def check_graph(content: bytes) -> None:
    """Refuses a file whose indices or shapes are wrong: runtimes trust them, and crash.

    Raises
    ------
    RunError, struct.error, IndexError
    """
    start = struct.unpack_from("<I", content, 0)[0]
    model = Table(content, start, [len(content) // 4 + 1024])
    codes, buffers = model.tables(1), model.tables(4)
    kinds = [max(code.scalar(0, "<b"), code.scalar(3, "<i")) for code in codes]
    held = [len(buffer.vector(0, 1)) for buffer in buffers]
    for graph in model.tables(2):
        tensors = graph.tables(0)
        shapes = [tensor.numbers(0) for tensor in tensors]
        for tensor, shape in zip(tensors, shapes, strict=True):
            size = math.prod(shape)
            if len(shape) > 8 or (shape and min(shape) < 0) or size >= 2**31:
                raise RunError(f"expected shapes that fit in memory, received {shape[:9]}")
            if tensor.scalar(2) >= len(held):
                raise RunError("one of its tensors has no buffer")
            width, content_size = WIDTHS.get(tensor.scalar(1, "<b")), held[tensor.scalar(2)]
            if width and content_size and not tensor.field(6) and content_size < size * width // 8:
                raise RunError(f"a tensor of shape {shape} has a buffer of {content_size} bytes")
        signed = [side for signature in model.tables(7) for side in map(signature.tables, (0, 1))]
        named = [slot for side in signed for slot in side]
        whole_graph = (*graph.numbers(1), *graph.numbers(2), *(slot.scalar(1) for slot in named))
        if any(not 0 <= place < len(tensors) for place in whole_graph):
            raise RunError("one of its inputs or outputs is a tensor that is not there")
        links: list[list[int]] = []
        for operator in graph.tables(3):
            if operator.scalar(0) >= len(kinds):
                raise RunError("one of its operators is of no kind")
            ends = inputs, outputs = operator.numbers(1), operator.numbers(2)
            links += ends
            linked = all(0 <= place < len(shapes) for place in (*inputs[:1], *outputs[:1]))
            if kinds[operator.scalar(0)] == RESHAPE and linked and inputs and outputs:
                sizes = [math.prod(shapes[end[0]]) for end in ends]
                if sizes[0] != sizes[1]:
                    told = f"{sizes[0]} numbers to {sizes[1]}"
                    raise RunError(f"one of its operators reshapes {told}")
        # -1 stands for an input that is left out.
        if any(not -1 <= place < len(tensors) for link in links for place in link):
            raise RunError("one of its operators reads or writes a tensor that is not there")


def reason(error: str, package: str, reference: bool) -> str:
    """Why a file does not load, from what the runtime says."""
    here = f"{package} {version(package)}"
    known = re.search(r"builtin opcode '(\w+)' version '(\d+)'", error)
    if known:
        advice = "export with --compat, or use a newer runtime"
        if reference:
            advice = "there may be one among its default kernels; leave --reference out"
        return f"{here} has no {known[1]} of version {known[2]}; {advice}"
    custom = re.search(r"unresolved custom op: (\S+)|Select TensorFlow op", error)
    if custom:
        return f"{here} has not its operator {(custom[1] or 'of TensorFlow').rstrip('.')}"
    if "flatbuffer" in error.lower() or "identifier" in error:
        return "expected a whole TFLite file; is it truncated?"
    return f"{here} cannot load it: {error}"


def in_order(names: Mapping[str, Any]) -> list[str]:
    """Output names as Keras orders outputs: output_9 before output_10, others by the alphabet."""
    if all(re.fullmatch(r"output_\d+", name) for name in names):
        return sorted(names, key=lambda name: int(name.rpartition("_")[2]))
    return sorted(names)


def fits(shape: Sequence[int], want: Sequence[int]) -> bool:
    """Whether a shape is one wanted, in which -1 stands for any size."""
    return len(shape) == len(want) and all(w in (-1, n) for n, w in zip(shape, want, strict=True))


def said(shape: Sequence[int]) -> str:
    """A shape for people."""
    return "x".join("any" if size < 0 else str(size) for size in shape) or "one number"


def check_numbers(data: Array, count: int, detail: Mapping[str, Any], where: str) -> None:
    """Refuses samples that an input cannot take."""
    kind = np.dtype(detail["dtype"])
    if data.dtype.kind not in "fiub" or kind.kind not in "fiub":
        raise RunError(f"{where}: expected numbers for {kind}, received {data.dtype}")
    if not data.ndim or not data.size or len(data) != count:
        received = "none" if not data.size else f"an array of shape {data.shape}"
        raise RunError(f"{where}: expected {count or 'some'} samples, received {received}")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise RunError(f"{where}: expected finite numbers, received NaN or infinity")
    if kind.kind in "iu" and not detail["quantization"][0]:
        limits = np.iinfo(kind)
        if not (
            (data == np.round(data)).all() and limits.min <= data.min() <= data.max() <= limits.max
        ):
            raise RunError(f"{where}: expected whole numbers that fit {kind}, received others")


def check_labels(y: Array | None, count: int, path: Path) -> None:
    """Refuses labels that are no numbers, or not one for each sample."""
    if y is None:
        return
    if y.dtype.kind not in "fiub" or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        raise RunError(f"{path}: expected finite numbers for labels, received {y.dtype}")
    if y.shape[:1] != (count,):
        raise RunError(f"{path}: expected labels for {count} samples, received {y.shape}")


def quantised(x: Array, detail: Mapping[str, Any]) -> Array:
    """Samples as an input takes them, by its own scale and zero point where it has them."""
    kind, (scale, zero) = np.dtype(detail["dtype"]), detail["quantization"]
    if kind.kind == "f" or not scale:
        return x.astype(kind)
    limits, steps = np.iinfo(kind), np.round(x.astype(np.float32) / scale + zero)
    return np.clip(steps, limits.min, limits.max).astype(kind)


def real(values: Array, detail: Mapping[str, Any]) -> Array:
    """Outputs in real units."""
    scale, zero = detail["quantization"]
    if values.dtype.kind == "f" or not scale:
        return values.astype(np.float32)
    return ((values.astype(np.float32) - zero) * scale).astype(np.float32)


def whole(path: Path) -> bytes:
    """A file's content; what is no file, such as a pipe, is not waited for."""
    check_there(path)
    return path.read_bytes()


def check_there(path: Path) -> None:
    """Raises :class:`RunError` for what is no file, or not there."""
    if not path.exists():
        raise RunError(f"{path}: no such file")
    if not path.is_file():
        raise RunError(f"{path}: expected a file")


def check_sizes(path: Path) -> None:
    """Refuses arrays that say they are larger than what their file holds, or unpacks to."""
    limit = max(ARRAYS, UNPACKED * path.stat().st_size)
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            return check_head(file, path.stat().st_size)
        with zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > limit:
                raise ValueError(f"it unpacks to more than {limit:,} bytes")
            for member in archive.infolist():
                with archive.open(member) as content:
                    check_head(content, member.file_size)
    return None


def check_head(file: Any, size: int) -> None:
    """Refuses an array whose shape asks for more than the bytes that are there."""
    versions = {(1, 0): "1_0", (2, 0): "2_0"}
    version = versions.get(np.lib.format.read_magic(file))
    if version:
        shape, _, kind = getattr(np.lib.format, f"read_array_header_{version}")(file)
        if math.prod(map(int, shape)) * max(kind.itemsize, 1) > size:
            raise ValueError(f"an array says it has shape {shape}, and is not there")


def arrays_of(path: Path) -> dict[str, Array]:
    """The arrays of an .npz by their names, that of an .npy as ``x``."""
    check_there(path)
    try:
        check_sizes(path)
        with path.open("rb") as file:
            found: Any = np.load(file, allow_pickle=False)
            return dict(found) if isinstance(found, Mapping) else {"x": found}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, TypeError, RuntimeError,
            NotImplementedError, OverflowError, SyntaxError) as error:  # fmt: skip
        # Of any other file numpy says that it is pickled, and how to load it.
        other = "pickle" in str(error) or path.suffix not in (".npz", ".npy")
        why = "it holds something else" if other else error
        raise RunError(
            f"{path}: expected an .npz or .npy file of numbers: {why}; tfprune export --test-data "
            "100 writes such a file of your data"
        ) from None


def picture(path: Path) -> Array:
    """A picture's pixels, uint8 of shape (height, width, channels).

    Raises
    ------
    RunError
        If it is none, or one that needs Pillow where there is no Pillow.
    """
    content = whole(path)
    if content.startswith(SIGNATURE):
        try:
            pixels = png(content)
        except (KeyError, IndexError, ValueError, struct.error, zlib.error):
            raise RunError(f"{path}: expected a whole PNG file, this one is damaged") from None
        if pixels is not None:
            return pixels
    try:
        from PIL import Image
    except ImportError:
        wanted = "expected a PNG of 8 bits that is not interlaced; others need Pillow"
        raise RunError(f"{path}: {wanted} (pip install pillow)") from None
    try:
        with Image.open(path) as image:
            known = image.mode in ("L", "LA", "RGBA")
            pixels = np.asarray(image if known else image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise RunError(f"{path}: Pillow cannot read it: {error}") from None
    return pixels.reshape(*pixels.shape[:2], -1)


def png(content: bytes) -> Array | None:
    """The pixels of a PNG of 8 bits that is not interlaced; None for other ones."""
    chunks: dict[bytes, bytes] = {}
    at = len(SIGNATURE)
    while at + 12 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        chunks[kind] = chunks.get(kind, b"") + content[at + 8 : at + 8 + size]
        at += 12 + size
    width, height, depth, colour, *_, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if depth != 8 or interlaced:
        return None
    step = CHANNELS[colour]
    total = height * (width * step + 1)
    stream = zlib.decompressobj()
    data = stream.decompress(chunks[b"IDAT"], total + 1)
    if len(data) != total or not total or not stream.eof:
        raise ValueError
    lines = np.frombuffer(data, np.uint8).reshape(height, -1)
    rows = np.zeros((height + 1, width * step), np.uint8)
    for number, line in enumerate(lines):
        rows[number + 1] = unfiltered(int(line[0]), line[1:], rows[number], step)
    pixels = rows[1:].reshape(height, width, step)
    palette = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3) if colour == 3 else None
    return pixels if palette is None else palette[pixels[..., 0]]


def unfiltered(kind: int, line: Array, above: Array, step: int) -> Array:
    """A row of bytes, which a PNG holds as differences to those left of and above them."""
    if kind == 0:
        return line
    if kind == 1:
        return line.reshape(-1, step).cumsum(axis=0, dtype=np.uint8).ravel()
    if kind == 2:
        return line + above
    if kind > 4:
        raise ValueError
    made, upper = [0] * step, [0] * step + above.tolist()
    for place, value in enumerate(line.tolist()):
        left, up, corner = made[place], upper[place + step], upper[place]
        guess = (left + up) // 2
        if kind == 4:
            # The one of the three that is nearest to left + up - corner.
            off = [(abs(up - corner), left), (abs(left - corner), up)]
            off.append((abs(left + up - 2 * corner), corner))
            guess = min(off, key=lambda pair: pair[0])[1]
        made.append((value + guess) & 255)
    return np.array(made[step:], np.uint8)


def coloured(pixels: Array, shape: Sequence[int], path: Path) -> Array:
    """A picture as one sample for an input of a shape; alpha is dropped, colours to grey by luma.

    Raises
    ------
    RunError
        If it has another size, or the input takes no picture.
    """
    want = tuple(map(int, shape[1:]))
    size = pixels.shape[0] * pixels.shape[1]
    if len(want) == 1 and want[0] in (size, 3 * size):
        want = (*pixels.shape[:2], want[0] // size)
    ahead = len(want) == 3 and want[0] in (1, 3) and want[2] not in (1, 3, 4)
    *sides, channels = (*want[1:], want[0]) if ahead else want if len(want) == 3 else (*want, 1)
    if len(sides) != 2 or channels not in (1, 3, 4):
        raise RunError(f"{path}: expected samples of {said(want)}, received a picture")
    if not fits(pixels.shape[:2], sides):
        wanted = f"expected a picture of {said(sides)} (height x width)"
        raise RunError(f"{path}: {wanted}, received {said(pixels.shape[:2])}")
    alpha = pixels[..., -1:] if pixels.shape[2] in (2, 4) else np.full_like(pixels[..., :1], 255)
    colours = pixels[..., : 1 if pixels.shape[2] < 3 else 3]
    if channels == 1 and colours.shape[2] == 3:
        colours = ((colours @ np.array(LUMA) + 2**15) >> 16).astype(np.uint8)[..., None]
    elif channels > 1:
        colours = np.broadcast_to(colours, (*colours.shape[:2], 3))
    if channels == 4:
        colours = np.concatenate([colours, alpha], axis=2)
    sample = np.moveaxis(colours, 2, 0) if ahead else colours
    return sample.reshape(1, *(pixels.shape[:2] if len(shape) == 3 else sample.shape))


def scored(
    outputs: Sequence[Array], model: Model, labels: Mapping[str, Array], path: Path
) -> dict[str, Any]:
    """As :func:`scores`; whatever an .npz says of its labels, it ends in one line."""
    try:
        return scores(outputs, model, labels, path)
    except RunError:
        raise
    except Exception as error:
        told = f"its labels do not fit the outputs of {model.path} ({error})"
        raise RunError(f"{path}: {told}") from None


def labels_of(labels: Mapping[str, Array], output: str = "") -> Array | None:
    """The labels of an output by its name, or those that have none."""
    end = f"_{output}" if output else ""
    return labels.get(f"y_test{end}", labels.get(f"y{end}"))


def scores(
    outputs: Sequence[Array], model: Model, labels: Mapping[str, Array], path: Path
) -> dict[str, Any]:
    """Accuracy (0 to 1), or mean squared error of values and of an input that is reconstructed.

    An .npz of ``tools.export --test-data`` says in ``scoring`` what its labels mean; else the
    shapes decide as there. Of several outputs with labels each has a score of its own as well,
    ``accuracy_NAME`` or ``mse_NAME``, and the means are those over the outputs that have it.
    """
    told = json.loads(str(labels["scoring"])) if "scoring" in labels else None
    several = told.get("outputs") if told else labelled(model, labels)
    if not several:
        return score(outputs, model, labels_of(labels), told)
    alone, found = {}, dict[str, list[float]]()
    for one in several:
        y = labels_of(labels, one["name"])
        check_labels(y, len(outputs[0]), path)
        for metric, value in score(outputs, model, y, one).items():
            alone[f"{metric}_{one['name']}"] = value
            found.setdefault(metric, []).append(value)
    return {metric: float(np.mean(values)) for metric, values in found.items()} | alone


def labelled(model: Model, labels: Mapping[str, Array]) -> list[dict[str, Any]]:
    """The outputs for which there are labels by name, as far as the manifest knows the names."""
    with contextlib.suppress(LookupError, TypeError):
        about = model.manifest["scoring"]
        known = [one for one in about["outputs"] if labels_of(labels, one["name"]) is not None]
        limits = [about["thresholds"][one["output"]] for one in known]
        return [
            one if limit is None else {**one, "threshold": float(limit)}
            for one, limit in zip(known, limits, strict=True)
        ]
    return []


def score(
    outputs: Sequence[Array], model: Model, y: Array | None, told: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The score of one output, where it is told which, and how; else as the shapes have it."""
    copies = [place for place, out in enumerate(outputs) if reconstructs(out, model)]
    if told is None and copies and (y is None or y.ndim == 1 or y.shape[1:] == (1,)):
        told = {"metric": "mse", "output": copies[0], "copy": True}
    if told is None and y is not None:
        told = guessed(outputs, y, model)
    if told is None or told["metric"] is None:
        return {}
    out = outputs[told["output"]]
    y = model.values(0) if told.get("copy") else y
    if y is None:
        raise LookupError("some are missing")
    if told["metric"] == "mse":
        return {"mse": squared(out, y)}
    limit = told.get("threshold")
    if limit is None and units(out) == 1:
        limit = threshold(out, model, told["output"])[0]
    if limit is None and y.shape == out.shape:
        y = y.argmax(axis=-1)
    decided = out.argmax(axis=-1) if limit is None else out > limit
    return {"accuracy": float(np.mean(decided.ravel() == y.ravel()))}


def units(out: Array) -> int:
    """How many numbers an output has for each sample or position."""
    return int(out.shape[-1]) if out.ndim > 1 else 1


def threshold(out: Array, model: Model, place: int) -> tuple[float | None, str]:
    """Above what each unit of an output decides alone, None if the largest does; and why."""
    with contextlib.suppress(LookupError, TypeError, ValueError):
        known = model.manifest["scoring"]["thresholds"][place]
        return (None if known is None else float(known)), "as manifest.json says"
    if out.min() < 0 or out.max() > 1:
        return (0.0 if units(out) == 1 else None), "as its values do not lie between 0 and 1"
    shares = units(out) > 1 and np.allclose(out.sum(axis=-1), 1, atol=1e-2)
    return (None if shares else 0.5), "as its values lie between 0 and 1"


def other_data(model: Model, loaded: Mapping[str, Array], path: Path) -> list[str]:
    """Says that a file was made on other data than the samples are of, where both are known.

    An .npz of ``tools.export --test-data`` names its data set in ``dataset``.
    """
    samples = dataset_of(str(loaded["dataset"]) if "dataset" in loaded else "")
    training = dataset_of(json.dumps(model.manifest.get("dataset")))
    if not samples or not training or samples["sha256"] == training["sha256"]:
        return []
    on, of = (f"{known['name']!r} (SHA-256 {known['sha256'][:8]})" for known in (training, samples))
    advice = "its scores on other data say little, export it again with --test-data"
    return [f"{model.path} was made on the data set {on}, {path} is of {of}: {advice}"]


def dataset_of(text: str) -> dict[str, str] | None:
    """The data set, ``name`` and ``sha256``, that JSON text tells of; None if it tells of none."""
    try:
        told = json.loads(text)
        known = {key: told[key] for key in ("name", "sha256")}
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return known if all(isinstance(value, str) for value in known.values()) else None


def manifest_of(path: Path, sha256: str) -> dict[str, Any]:
    """The manifest.json beside a file, if it knows the file by this digest; else nothing."""
    manifest = path.with_name("manifest.json")
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        if manifest.is_file() and manifest.stat().st_size <= MANIFEST_BYTES:
            told = json.loads(manifest.read_text(encoding="utf-8"))
            known = [(entry["file"], entry["sha256"]) for entry in told["artifacts"]]
            return dict(told) if (path.name, sha256) in known else {}
    return {}


def squared(out: Array, target: Array) -> float:
    """Mean squared error."""
    return float(np.mean((out.astype(float) - target.reshape(out.shape)) ** 2))


def guessed(outputs: Sequence[Array], y: Array, model: Model) -> dict[str, Any]:
    """What labels are, by their shape: classes, a 0 or 1 for each unit of an output, or values.

    Raises
    ------
    RunError
        If they fit no output.
    """
    whole = bool((y == np.round(y)).all()) and y.min() >= 0
    flat = y[..., 0] if y.ndim > 1 and y.shape[-1] == 1 else y
    found = []
    for place, out in enumerate(outputs):
        several = units(out) > 1
        if several and flat.shape == out.shape[:-1] and whole and y.max() < out.shape[-1]:
            found.append((2 + (out.shape[-1] == y.max() + 1), -place, "accuracy"))
        elif several and y.shape == out.shape and whole and (y.sum(axis=-1) == 1).all():
            found.append((3, -place, "accuracy"))
        elif y.size == out.size:
            classes = whole and y.max() <= 1 and threshold(out, model, place)[0] is not None
            found.append((int(classes), -place, "accuracy" if classes else "mse"))
    if not found:
        shapes = ", ".join(said(out.shape[1:]) for out in outputs)
        raise RunError(f"labels of shape {y.shape} fit no output of the model ({shapes})")
    rank, place, metric = max(found)
    told = {"metric": metric, "output": -place}
    if rank == 1:
        told["threshold"], why = threshold(outputs[-place], model, -place)
        model.notes.append(f"each unit decides alone above {told['threshold']:g} ({why})")
    return told


def reconstructs(out: Array, model: Model) -> bool:
    """Whether an output is the only input again; small ones and probabilities are not."""
    flat = out.reshape(len(out), -1)
    size = flat.shape[1]
    if len(model.x) > 1 or not size == model.x[0][0].size >= LEAST_RECONSTRUCTION:
        return False
    return not (flat.min() >= 0 and np.allclose(flat.sum(axis=1), 1, atol=1e-3))


def described(out: Array, model: Model) -> dict[str, Any]:
    """What an output says of one sample: the likeliest classes, or its values."""
    if reconstructs(out, model):
        return {"mse": squared(out, model.values(0))}
    values = out[0].astype(float)
    if values.ndim != 1 or values.size < 2:
        return {"values": values.tolist()}
    top = np.argsort(-values, kind="stable")[:3]
    told = {"class": int(top[0]), "top": [[int(place), float(values[place])] for place in top]}
    names = class_names(model.manifest)
    return told | ({"names": [names[n] for n in top]} if len(names) == values.size else {})


def class_names(manifest: Mapping[str, Any]) -> list[str]:
    """What the manifest calls the classes, as text; nothing where it does not say."""
    dataset = manifest.get("dataset")
    names = dataset.get("classes") if isinstance(dataset, Mapping) else None
    return list(map(str, names)) if isinstance(names, list) else []


def latencies(models: Sequence[Model], runs: int | None) -> list[dict[str, Any]]:
    """Microseconds of an invocation, percentiles, and samples a second.

    The models take turns over several rounds, so that a slower moment meets all of them; garbage
    collection is off.
    """
    if runs == 0:
        return [{} for _ in models]
    taken: list[list[int]] = [[] for _ in models]
    gc.disable()
    counts = []
    for model in models:
        model.feed(0)
        slowest = max(model.time(3)) / 1e9
        count = int(min(max(ROUND_SECONDS / slowest, 1), RUNS / ROUNDS))
        model.time(min(WARM_UP, count if runs is None else runs))
        counts.append(count * ROUNDS if runs is None else runs)
    for turn in range(ROUNDS):
        for model, times, count in zip(models, taken, counts, strict=True):
            times.extend(model.time(count * (turn + 1) // ROUNDS - count * turn // ROUNDS))
    gc.enable()
    made = []
    for model, times in zip(models, taken, strict=True):
        p10, median, p90 = (round(float(v) / 1e3, 2) for v in np.percentile(times, (10, 50, 90)))
        latency = {"p10": p10, "median": median, "p90": p90}
        second = round(len(times) * model.batch / (sum(times) / 1e9), 1)
        made.append({"runs": len(times), "latency_us": latency, "samples_per_second": second})
    return made


def about(package: str, flags: argparse.Namespace) -> dict[str, Any]:
    """What ran the files, and where."""
    board = None
    with contextlib.suppress(OSError):
        board = Path("/proc/device-tree/model").read_bytes().decode(errors="replace").strip("\0\n ")
    return {
        "runtime": package, "version": version(package), "numpy": np.__version__,
        "python": platform.python_version(), "machine": platform.machine(), "bits": BITS,
        "threads": flags.threads, "kernels": "reference" if flags.reference else "default",
        "device": board,
    }  # fmt: skip


def version(package: str) -> str:
    """The installed version of a package."""
    module = next(name for name, known in RUNTIMES.items() if known == package)
    return str(getattr(sys.modules[module], "__version__", "of unknown version"))


def peak_memory() -> int:
    """Most bytes of memory that this process has held at once."""
    with contextlib.suppress(OSError):
        found = re.search(rb"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_bytes())
        if found:
            return int(found[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def shown(line: str) -> str:
    """A line in which names of files stay names: nothing that a terminal or a log obeys."""
    hidden = [c for c in set(line) if not c.isprintable()]
    for c in hidden:
        line = line.replace(c, c.encode("unicode_escape", "surrogatepass").decode())
    return line.replace("::", ":\\x3a").replace("##[", "#\\x23[")


def text(report: Mapping[str, Any]) -> str:
    """A report for people."""
    threads = f"{report['threads']} thread{'s' * (report['threads'] > 1)}"
    device = f"{report['device'] or report['machine']}, {report['bits']} bits"
    lines = [
        f"{report['runtime']} {report['version']}, {report['kernels']} kernels, {threads}; numpy "
        f"{report['numpy']}, Python {report['python']}, {device}",
    ]
    if "data" in report:
        samples = f"{report['samples']:,} sample{'s' * (report['samples'] > 1)}"
        lines.append("; ".join([f"data: {report['data']}, {samples}", *report["notes"]]))
    rows = [_cells(result) for result in report["files"]]
    heads = list(dict.fromkeys(head for row in rows for head in row))
    widths = [max(len(head), *(len(row.get(head, "")) for row in rows)) for head in heads]
    lines.append("")
    for row in [dict(zip(heads, heads, strict=True)), *rows]:
        cells = [row.get(head, "").rjust(width) for head, width in zip(heads, widths, strict=True)]
        lines.append("  ".join([row.get("file", "").ljust(widths[0]), *cells[1:]]).rstrip())
    for result in report["files"]:
        for place, output in enumerate(result.get("outputs", [])):
            which = f", output {place}" if len(result["outputs"]) > 1 else ""
            lines.append(f"{result['file']}{which}: {_answer(output)}")
    lines = list(map(shown, lines))
    return "\n".join([*lines, "", f"peak memory: {report['peak_memory_bytes'] / 2**20:.1f} MB"])


def _cells(result: Mapping[str, Any]) -> dict[str, str]:
    """The row of a file, by the heads of its columns."""
    row = {"file": result["file"], "bytes": f"{result['bytes']:,}"}
    row["load ms"] = f"{result['load_ms']:.2f}"
    row["first ms"] = f"{result['first_invoke_ms']:.2f}"
    for name, value in result.get("latency_us", {}).items():
        row[f"{name} us"] = f"{value:,.1f}"
    if "samples_per_second" in result:
        row["samples/s"] = f"{result['samples_per_second']:,.0f}"
    for key in sorted(result, key=lambda key: key in ("accuracy", "mse")):
        metric, _, output = key.partition("_")
        head = f"{output}: {metric}" if output else metric
        if metric == "accuracy":
            row[f"{head} %"] = f"{100 * result[key]:.2f}"
        elif metric == "mse":
            row[head] = f"{result[key]:.4g}"
    return row


def _answer(output: Mapping[str, Any]) -> str:
    if "class" in output:
        called = output.get("names", [place for place, _ in output["top"]])
        best = ", ".join(
            f"{name} ({value:.3f})" for name, (_, value) in zip(called, output["top"], strict=True)
        )
        name = f" ({called[0]})" if "names" in output else ""
        return f"class {output['class']}{name}; best: {best}"
    if "mse" in output:
        return f"the input again, mean squared error {output['mse']:.4g}"
    values = np.ravel(output["values"])
    shown = " ".join(f"{value:.4g}" for value in values[:8])
    return f"{shown} ... ({values.size} values)" if values.size > 8 else shown


if __name__ == "__main__":
    sys.exit(main())
