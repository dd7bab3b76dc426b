"""A file in the interpreter alone, sharing no code with the package or with tools/run.py."""

from __future__ import annotations

import numpy as np

from tfprune.utils.console import quiet


def in_litert(path, x, reference=False, raw=False):
    """Outputs of a file of one input and output, of batch 1, in real units unless raw."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    with quiet():
        interpreter = Interpreter(str(path), experimental_op_resolver_type=kernels)
        interpreter.allocate_tensors()
    (inside,), (outside,) = interpreter.get_input_details(), interpreter.get_output_details()
    made = []
    for sample in x:
        value = sample[None]
        if np.issubdtype(inside["dtype"], np.integer) and inside["quantization"][0]:
            scale, zero = inside["quantization"]
            low, high = np.iinfo(inside["dtype"]).min, np.iinfo(inside["dtype"]).max
            value = np.clip(np.round(value / scale) + zero, low, high)
        interpreter.set_tensor(inside["index"], value.astype(inside["dtype"]))
        interpreter.invoke()
        made.append(interpreter.get_tensor(outside["index"])[0])
    made = np.array(made)
    if raw or not outside["quantization"][0]:
        return made
    scale, zero = outside["quantization"]
    return (made.astype(float) - zero) * scale
