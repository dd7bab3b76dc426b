"""C source of files, compiled and run here, and read by a second program."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess

import keras
import numpy as np
import pytest
from keras import layers as kl

from tfprune import TfpruneError
from tfprune.micro.c_source import OPERATORS, Port, c_array, identifier, methods
from tfprune.tflite.converter import convert

STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]


@pytest.fixture(scope="module")
def compilers() -> dict[str, list[str]]:
    found = {name: shutil.which(name) for name in ("gcc", "g++")}
    if not all(found.values()):
        pytest.skip("needs gcc and g++")
    return {"c": [found["gcc"], *STRICT, "-std=c99"], "c++": [found["g++"], *STRICT, "-std=c++11"]}


@pytest.fixture(scope="module")
def content() -> bytes:
    """An int8 file whose length is no multiple of a line's."""
    model = keras.Sequential([keras.Input((9,)), kl.Dense(7, activation="relu"), kl.Dense(3)])
    x = np.random.default_rng(3).random((40, 9), dtype=np.float32)
    ((_, data),) = convert(model, ["int8"], [x])
    return data + b"\x00\xff\x7f"


PORTS = [
    [Port("int8", (1, 9), 0.00392156886, -128)],
    [Port("int8", (1, 3), 1.0, 0), Port("int32", (), 0.0, 0), Port("uint8", (1,), 1e-20, 255)],
]
READER = """
#include "{name}.h"
#include <stdio.h>
#include <stdint.h>
#include "{name}.h"
int main(void) {{
    float scales[3] = {{{upper}_INPUT_SCALE, {upper}_OUTPUT_0_SCALE, {upper}_OUTPUT_2_SCALE}};
    int points[3] = {{{upper}_INPUT_ZERO_POINT, {upper}_OUTPUT_0_ZERO_POINT,
                      {upper}_OUTPUT_2_ZERO_POINT}};
    static unsigned char arena[{upper}_ARENA_SIZE];
    int numbers[4] = {{{upper}_LENGTH, (int)sizeof arena, {upper}_OPERATORS,
                       (int)((uintptr_t){name}_data % 16)}};
    arena[0] = 1;
    fwrite(scales, sizeof scales, 1, stdout);
    fwrite(points, sizeof points, 1, stdout);
    fwrite(numbers, sizeof numbers, 1, stdout);
    fwrite({name}_data, 1, sizeof {name}_data, stdout);
    return arena[0] - 1;
}}
"""


def built(command, *words):
    done = subprocess.run([*command, *map(str, words)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("language", ["c", "c++"])
def test_a_program_reads_what_the_file_holds(tmp_path, compilers, content, language):
    """The header in C99 and C++11, the array always from C++11."""
    header, source = c_array(content, "a-model_int8", 1000, *PORTS)
    (tmp_path / "a_model_int8.h").write_text(header)
    (tmp_path / "a_model_int8.cc").write_text(source)
    main = tmp_path / ("main.c" if language == "c" else "main.cpp")
    main.write_text(READER.format(name="a_model_int8", upper="A_MODEL_INT8"))
    built(compilers["c++"], "-c", tmp_path / "a_model_int8.cc", "-o", tmp_path / "array.o")
    built(compilers[language], "-c", main, "-o", tmp_path / "main.o")
    built(compilers["c++"], tmp_path / "main.o", tmp_path / "array.o", "-o", tmp_path / "program")
    out = subprocess.run([tmp_path / "program"], capture_output=True, check=True).stdout
    assert out[:12] == struct.pack("3f", 0.00392156886, 1.0, 1e-20)
    assert struct.unpack("3i", out[12:24]) == (-128, 0, 255)
    assert struct.unpack("4i", out[24:40]) == (len(content), 1008, 1, 0)
    assert out[40:] == content


RESOLVER = """
#include <cstdio>
#include "m_int8.h"
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
template <unsigned int count> struct Resolver {
    unsigned int added = 0;
    TfLiteStatus add(const char* name) {
        std::puts(name);
        return added++ < count ? kTfLiteOk : kTfLiteError;
    }
    TfLiteStatus AddFullyConnected() { return add("FULLY_CONNECTED"); }
    TfLiteStatus AddConv2D() { return add("CONV_2D"); }
    TfLiteStatus AddReshape() { return add("RESHAPE"); }
    TfLiteStatus AddSoftmax() { return add("SOFTMAX"); }
};
int main() {
    Resolver<M_INT8_OPERATORS> resolver;
    Resolver<M_INT8_OPERATORS - 1> small;
    return M_INT8_ADD_OPERATORS(resolver) && !M_INT8_ADD_OPERATORS(small) ? 0 : 1;
}
"""


def test_the_macro_adds_every_operator_to_a_resolver_of_their_number(tmp_path, compilers):
    layers = [kl.Conv2D(2, 3), kl.Flatten(), kl.Dense(3, activation="softmax")]
    model = keras.Sequential([keras.Input((6, 6, 1)), *layers])
    x = np.random.default_rng(4).random((20, 6, 6, 1), dtype=np.float32)
    ((_, data),) = convert(model, ["int8"], [x])
    header, _ = c_array(data, "m_int8", 64, PORTS[0], PORTS[0])
    (tmp_path / "m_int8.h").write_text(header)
    (tmp_path / "main.cpp").write_text(RESOLVER)
    built(compilers["c++"], tmp_path / "main.cpp", "-o", tmp_path / "program")
    done = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True)
    names = {"CONV_2D", "RESHAPE", "FULLY_CONNECTED", "SOFTMAX"}
    assert done.stdout.split()[:4] == done.stdout.split()[4:]
    assert set(done.stdout.split()) == names


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("cnn_prune30_int8", "cnn_prune30_int8"),
        ("cnn_prune27.5_int8", "cnn_prune27_5_int8"),
        ("my-model v2 (new)", "my_model_v2_new"),
        ("3layers_int8", "model_3layers_int8"),
        ("__x__y", "x_y"),
        ("größe_int8", "gr_e_int8"),
        ("模型", "model"),
        ("a??/b\\\n*/", "a_b"),
    ],
)
def test_any_name_becomes_an_identifier(name, made):
    assert identifier(name) == made


@pytest.mark.parametrize("name", ["int", "??/", 'a"b*\\', "class", "x\n#error y"])
def test_names_do_no_harm_in_c(tmp_path, compilers, content, name):
    header, source = c_array(content, name, 16, *PORTS)
    stem = identifier(name)
    (tmp_path / f"{stem}.h").write_text(header)
    (tmp_path / f"{stem}.cc").write_text(source)
    (tmp_path / "main.c").write_text(f'#include "{stem}.h"\nint main(void) {{ return 0; }}')
    built(compilers["c++"], "-c", tmp_path / f"{stem}.cc", "-o", tmp_path / "array.o")
    built(compilers["c"], tmp_path / "main.c", "-o", tmp_path / "program")


def test_nothing_allocates_memory(content):
    text = "".join(c_array(content, "m", 16, *PORTS))
    assert not re.search(r"\b(new|malloc|calloc|std::|vector)\b", text)


def test_operators_without_a_method_are_refused(content):
    assert methods(content[:-3], "it") == ["AddFullyConnected"]
    model = keras.Sequential([keras.Input((4,)), kl.Dense(3, activation="gelu")])
    ((_, data),) = convert(model, ["int8"], [np.eye(4, dtype=np.float32)])
    with pytest.raises(TfpruneError, match="it: TensorFlow Lite Micro has no operator GELU"):
        methods(data, "it")


def test_operators_are_those_of_tensorflow_lite():
    from tfprune.tflite import reader

    assert set(reader.OPERATORS) > OPERATORS
