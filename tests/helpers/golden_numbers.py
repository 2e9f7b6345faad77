"""Bits with which later versions are compared (docs/numerics.md).

    python tests/helpers/golden_numbers.py

writes tests/data/golden.json for every instruction set that this machine has, and
keeps the entries of others. The weights that dropout keeps and integers must not
change: the program refuses to overwrite them.
"""

import hashlib
import json
import os
import pathlib
import platform
import re
import subprocess
import sys

import numpy as np

FILE = pathlib.Path(__file__).parents[1] / "data/golden.json"
# (batch, heads, queries, keys), rate, seed
DROPOUT = {
    "one tile": ((1, 2, 8, 16), 0.5, 0),
    "odd sizes": ((3, 2, 37, 101), 0.1, 2024),
    "negative seed": ((2, 3, 65, 66), 0.9, -1),
    "64 bits of seed": ((2, 1, 20, 300), 0.3, 2**63 - 7),
}
RECURRENCES = {
    "one unit": ("int64", 1, {"return_sequences": True, "overflow": "wrap"}),
    "int32": ("int32", 5, {"return_sequences": True, "overflow": "wrap"}),
    "int8 weights": ("int8", 37, {"overflow": "wrap", "activation": "relu"}),
    "saturating": ("int64", 9, {"overflow": "saturate", "reverse": True}),
    "fixed point": ("int32", 16, {"overflow": "saturate", "fractional_bits": 3}),
}
# batch, queries, keys, heads, key/value heads, size; dtype; options by name
ATTENTION = {
    "plain": ((2, 70, 150, 4, 2, 32), "float32", ()),
    "causal": ((1, 130, 130, 2, 2, 20), "float32", ("causal",)),
    "options": ((2, 40, 90, 4, 2, 16), "float32", ("bias", "mask", "dropout", "cap")),
    "decode": ((2, 1, 1000, 4, 1, 64), "float32", ("lengths",)),
    "bfloat16": ((2, 70, 150, 4, 2, 32), "bfloat16", ()),
    "float16": ((1, 70, 150, 2, 2, 32), "float16", ("causal",)),
}
# cell; batch, timesteps, features, units; dtype; options; whether steps are masked
RNN = {
    "lstm": ("lstm", (5, 20, 13, 37), "float32", {"return_sequences": True}, False),
    "lstm masked": ("lstm", (5, 20, 7, 16), "float32", {"reverse": True}, True),
    "few rows": ("lstm", (1, 50, 9, 64), "float32", {}, False),
    "gru": ("gru", (9, 20, 13, 21), "float32", {"return_sequences": True}, True),
    "gru before": ("gru", (3, 9, 5, 33), "float32", {"reset_after": False}, False),
    "simple_rnn": ("simple_rnn", (4, 30, 6, 50), "float32", {}, True),
    "lstm bfloat16": ("lstm", (4, 12, 8, 40), "bfloat16", {}, False),
    "gru float16": ("gru", (4, 12, 8, 40), "float16", {}, False),
}


def words(shape, salt):
    """Random uint32 of a shape, the same for every version of NumPy."""
    with np.errstate(over="ignore"):
        x = np.arange(np.prod(shape, dtype=int), dtype="uint64") + np.uint64(salt << 40)
        for multiplier in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):  # splitmix64
            x = (x ^ (x >> np.uint64(31))) * np.uint64(multiplier)
    return (x >> np.uint64(32)).astype("uint32").reshape(shape)


def floats(shape, salt):
    """Random float32 from -2 to 2, on a grid so fine that their sums round."""
    return (words(shape, salt) >> 8).astype("float32") / 2**22 - 2


def digest(x):
    """Half a SHA-256 of the bits of an array."""
    return hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()[:32]


def recurrence_inputs(name):
    """Arguments of `integer_rnn` as arrays, and its options."""
    dtype, units, options = RECURRENCES[name]
    state = "int32" if dtype == "int8" else dtype
    magnitude = 9 if dtype == "int8" else 2000

    def integers(shape, salt, size=magnitude):
        return (words(shape, salt) % (2 * size + 1)).astype(state) - size

    features = 1 if units == 1 else 3
    inputs = {
        "inputs": integers((2, 50, features), 1),
        "kernel": integers((features, units), 2).astype(dtype),
        "recurrent_kernel": integers((units, units), 3).astype(dtype),
        "bias": integers((units,), 4),
    }
    return inputs, options


def attention_arguments(name):
    """(query, key, value, grad_output) and the keywords of `_core`."""
    import ml_dtypes

    sizes, dtype, options = ATTENTION[name]
    batch, queries, keys, heads, kv_heads, size = sizes
    dtype = getattr(ml_dtypes, dtype, None) or np.dtype(dtype)
    shapes = [(batch, length, heads, size) for length in (queries, keys, keys, queries)]
    for i in (1, 2):
        shapes[i] = (batch, keys, kv_heads, size)
    inputs = [floats(shape, salt).astype(dtype) for salt, shape in enumerate(shapes)]
    keywords = {
        "causal": {"is_causal": True},
        "bias": {"bias": floats((1, heads, queries, keys), 5)},
        "mask": {"mask": words((batch, 1, queries, keys), 6) % 4 > 0},
        "dropout": {"dropout_rate": 0.3, "dropout_seed": 11},
        "cap": {"soft_cap": 3.0},
        "lengths": {"key_lengths": np.array([keys, keys // 3], "int32")},
    }
    chosen = {"scale": 0.25}
    for option in options:
        chosen |= keywords[option]
    return inputs, chosen


def attention_results(name):
    """Dict of the arrays that forward and backward return."""
    from hw3tf import _core

    (query, key, value, grad), options = attention_arguments(name)
    output, statistics, logsumexp = _core.attention_forward(
        query, key, value, **options
    )
    grads = _core.attention_backward(
        query, key, value, output, statistics, grad, **options
    )
    names = ("grad_query", "grad_key", "grad_value", "grad_bias")
    results = {"output": output, "logsumexp": logsumexp}
    results |= dict(zip(names, grads, strict=True))
    return {n: x for n, x in results.items() if x is not None}


def rnn_arguments(name):
    """The operands of the forward pass, the gradient of the outputs, the options."""
    import ml_dtypes

    cell, (batch, timesteps, features, units), dtype, options, masked = RNN[name]
    dtype = getattr(ml_dtypes, dtype, None) or np.dtype(dtype)
    columns = {"lstm": 4, "gru": 3, "simple_rnn": 1}[cell] * units
    outputs = timesteps if options.get("return_sequences") else 1
    shapes = {
        "inputs": (batch, timesteps, features),
        "kernel": (features, columns),
        "recurrent_kernel": (units, columns),
        "bias": (columns,),
        "initial_h": (batch, units),
        "grad_outputs": (batch, outputs, units),
    }
    arrays = {n: floats(x, 20 + i) for i, (n, x) in enumerate(shapes.items())}
    arrays["kernel"] *= 0.3
    arrays["recurrent_kernel"] *= 1.5 / units**0.5
    arrays = {n: x.astype(dtype) for n, x in arrays.items()}
    if masked:
        arrays["mask"] = words((batch, timesteps), 30) % 4 > 0
    return arrays, arrays.pop("grad_outputs"), options


def rnn_results(name):
    """Dict of the arrays that forward and backward return."""
    from hw3tf import _core

    arrays, grad, options = rnn_arguments(name)
    forward, backward = (
        getattr(_core, f"{RNN[name][0]}_{way}") for way in ("forward", "backward")
    )
    *results, kept = forward(**arrays, **options, keep=True)
    grads = backward(
        **arrays, outputs=results[0], kept=kept, grad_outputs=grad, **options
    )
    named = {f"result {i}": x for i, x in enumerate(results)}
    named |= {f"gradient {i}": x for i, x in enumerate(grads) if x is not None}
    return named


def compiler():
    """The compiler of the installed kernels: another may round a sum elsewhere."""
    from hw3tf import _core

    path = next(pathlib.Path(_core.__file__).parent.glob("libhw3tf_kernels*"))
    pattern = rb"GCC: \([^)]*\) ([\d.]+)|clang version ([\d.]+)"
    found = re.search(pattern, path.read_bytes())
    if found is None:
        return "unknown"
    return f"GCC {found[1].decode()}" if found[1] else f"Clang {found[2].decode()}"


def float_bits():
    """Digests of all cases of floats, by the instruction set of this process, and
    numbers."""
    from hw3tf import _core

    results = {name: attention_results(name) for name in ATTENTION}
    bits = {name: {n: digest(x) for n, x in r.items()} for name, r in results.items()}
    # One for all results of a recurrent layer: the file stays small.
    layers = {name: rnn_results(name) for name in RNN}
    bits |= {
        name: digest(np.concatenate([digits(x) for x in r.values()]))
        for name, r in layers.items()
    }
    numbers = {
        name: {
            n: [float(v) for v in x.astype("float32").ravel()[:: max(1, x.size // 4)]]
            for n, x in r.items()
        }
        for name, r in (results | layers).items()
    }
    key = f"{platform.machine()} {_core.instruction_set()}"
    return {"set": key, "compiler": compiler(), "bits": bits, "numbers": numbers}


def digits(x):
    return np.frombuffer(np.ascontiguousarray(x).tobytes(), "uint8")


def of_instruction_set(name):
    """`float_bits` in a process that HW3TF_ISA sends to an instruction set."""
    done = subprocess.run(
        [sys.executable, __file__, "--print"],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "HW3TF_ISA": name},
    )
    return json.loads(done.stdout)


def dropout_bits():
    from hw3tf import _core

    return {
        name: digest(_core.attention_dropout_mask(shape, rate=rate, seed=seed))
        for name, (shape, rate, seed) in DROPOUT.items()
    }


def integer_bits():
    from hw3tf import _core

    bits = {}
    for name in RECURRENCES:
        inputs, options = recurrence_inputs(name)
        bits[name] = digest(_core.integer_rnn(**inputs, **options))
    return bits


def write():
    from hw3tf import _core

    old = json.loads(FILE.read_text()) if FILE.exists() else {}
    new = {"dropout": dropout_bits(), "integers": integer_bits()}
    for name, bits in new.items():
        kept = {case: x for case, x in bits.items() if case in old.get(name, bits)}
        if kept != old.get(name, kept):
            raise SystemExit(f"The bits of {name} must not change, and they have.")
    new["attention"] = old.get("attention", {})
    for name in _core.supported_instruction_sets():
        got = of_instruction_set(name)
        new["numbers"] = got["numbers"]  # the same but for rounding
        new["attention"][got["set"]] = {
            "compiler": got["compiler"],
            "bits": got["bits"],
        }
    FILE.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    if "--print" in sys.argv:
        print(json.dumps(float_bits()))
    else:
        write()
