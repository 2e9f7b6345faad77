"""Cases of the recurrent layers, and the judge of their numbers."""

import ml_dtypes
import numpy as np
import numpy_rnn
import tensorflow as tf

from hw3tf import reference
from hw3tf.ops.operations import RNN
from hw3tf.ops.rnn.call import RnnCall
from hw3tf.ops.rnn.options import RnnOptions
from hw3tf.reference.rnn import GATES

CELLS = tuple(GATES)
# Where Keras happens to hit the exact value, twice its error is no bound: a few units
# in the last place are allowed always, as for attention (checks.py).
ULPS = 4
MASKS = ("right", "left", "holes", "none valid")
# Those of the specification: a graph takes longer to make than to run.
GRAPHS = {}


def make_mask(rng, kind, batch, timesteps):
    """Boolean `(batch, timesteps)` of one of `MASKS`; one row of it is of the kind that
    surprises: all masked, or none."""
    lengths = rng.integers(0, timesteps + 1, (batch, 1))
    mask = {
        "right": np.arange(timesteps) < lengths,
        "left": np.arange(timesteps)[::-1] < lengths,
        "holes": rng.random((batch, timesteps)) < 0.6,
        "none valid": np.zeros((batch, timesteps), "bool"),
    }[kind]
    mask[0] = kind == "right"
    return mask


def make_arrays(
    rng,
    cell,
    batch=3,
    timesteps=7,
    features=5,
    units=4,
    *,
    biases=True,
    states=True,
    mask=None,
    lengths=False,
    input_dropout=None,
    recurrent_dropout=None,
    reset_after=True,
    size=1.0,
):
    """The operands of a call as float64 arrays by name, and the gradients of its
    results (`grad_outputs` for all timesteps).

    Args:
        mask: None or one of `MASKS`.
        input_dropout, recurrent_dropout: None, "one" or "each", for each gate.
        size: Of the weights. Those of size 1 keep the states apart from 0 and from 1;
            activations without limits need smaller ones.
    """
    gates = GATES[cell]

    def normal(*shape, scale=1.0):
        return scale * rng.standard_normal(shape)

    def dropout(which, width):
        shape = (gates if which == "each" else 1, batch, width)
        return (rng.random(shape) < 0.7) / 0.7

    arrays = {
        "inputs": normal(batch, timesteps, features),
        "kernel": normal(features, gates * units, scale=size * features**-0.5),
        "recurrent_kernel": normal(units, gates * units, scale=size * units**-0.5),
    }
    if biases:
        arrays["bias"] = normal(gates * units, scale=0.3)
    if biases and cell == "gru" and reset_after:
        arrays["recurrent_bias"] = normal(gates * units, scale=0.3)
    if states:
        arrays["initial_h"] = normal(batch, units)
    if states and cell == "lstm":
        arrays["initial_c"] = normal(batch, units)
    if mask:
        arrays["mask"] = make_mask(rng, mask, batch, timesteps)
    if lengths:
        arrays["lengths"] = rng.integers(0, timesteps + 1, batch).astype("int32")
    if input_dropout:
        arrays["input_dropout"] = dropout(input_dropout, features)
    if recurrent_dropout:
        arrays["recurrent_dropout"] = dropout(recurrent_dropout, units)
    arrays["grad_outputs"] = normal(batch, timesteps, units)
    for name in ("grad_last_h", "grad_last_c")[: 2 if cell == "lstm" else 1]:
        arrays[name] = normal(batch, units)
    return arrays


def kernel(cell, tensors, options):
    """The path that `HW3TF_PATH` names."""
    return RnnCall(cell, tensors, options).run()


def specification(cell, tensors, options):
    return reference.rnn(cell, **tensors, **vars(options))


def judge(cell, tensors, options):
    """Stands for `specification` in `compute`, which runs it in NumPy: tests/reference
    shows that the two are equal, and a call in Keras takes fifty times as long."""
    raise NotImplementedError("only `compute` knows the judge")


def compute(function, cell, arrays, options, dtype="float32", way="eager"):
    """Results and gradients of a call, by name, as float64 arrays.

    Args:
        function: `kernel`, `specification` or, eagerly, `judge`.
        arrays: As `make_arrays` returns them.
        options: Keywords of `RnnOptions`.
        way: "eager", "graph" (which knows no sizes of batch and timesteps) or "xla".
    """
    if function is judge:
        assert way == "eager"
        wide = "float64" if dtype == "float64" else "float32"
        found = numpy_rnn.rnn(cell, rounded(arrays, dtype), wide, **options)
        return rounded(found, dtype)
    options = RnnOptions(**options)
    names = [x.name for x in RNN[cell].operands if x.name in arrays]
    inside = [name for name in names if name in RNN[cell].with_gradient]
    upstream = [name for name in arrays if name.startswith("grad_")]

    def tensor(name):
        x = arrays[name]
        if name == "grad_outputs" and not options.return_sequences:
            x = x[:, :1]
        return tf.constant(x) if x.dtype.kind in "bi" else tf.cast(x, dtype)

    def run(*tensors):
        given = dict(zip([*names, *upstream], tensors, strict=True))
        with tf.GradientTape() as tape:
            wanted = [given[name] for name in inside]
            tape.watch(wanted)
            results = function(cell, {name: given[name] for name in names}, options)
            results = [x for x in results if x is not None]
            terms = zip(results, (given[name] for name in upstream), strict=True)
            loss = sum(tf.reduce_sum(x * g) for x, g in terms)
        return results, tape.gradient(loss, wanted)

    tensors = [tensor(name) for name in [*names, *upstream]]
    # Autograph, which would only read these functions, takes as long as all the rest.
    if way == "graph":
        open_axes = {"inputs": 2, "grad_outputs": 2, "mask": 2, "lengths": 1}
        specs = [
            tf.TensorSpec(
                [None] * open_axes[name] + x.shape[open_axes[name] :], x.dtype
            )
            if name in open_axes
            else tf.TensorSpec(x.shape, x.dtype)
            for name, x in zip([*names, *upstream], tensors, strict=True)
        ]
        run = tf.function(run, input_signature=specs, autograph=False)
        if function is specification:  # `kernel` depends on the path of the moment
            key = cell, *names, *upstream, options, dtype, *specs
            run = GRAPHS.setdefault(key, run)
    elif way == "xla":
        run = tf.function(run, jit_compile=True, autograph=False)
    results, gradients = run(*tensors)
    found = dict(zip(["outputs", "last_h", "last_c"], results, strict=False))
    found |= {
        f"gradient of {name}": x for name, x in zip(inside, gradients, strict=True)
    }
    return {name: tf.cast(x, "float64").numpy() for name, x in found.items()}


def rounded(arrays, dtype):
    """The arrays as float64, with the values that `dtype` has."""
    kind = getattr(ml_dtypes, dtype, dtype)
    return {
        name: x if x.dtype.kind in "bi" else x.astype(kind).astype("float64")
        for name, x in arrays.items()
    }


def check(cell, arrays, options, dtype="float32", way="eager", what=""):
    """A call of the kernel and its gradients are as exact as Keras's arithmetic."""
    arrays = rounded(arrays, dtype)
    truth = compute(judge, cell, arrays, options, "float64")
    own = "float32" if dtype == "float64" else dtype
    plain = compute(judge, cell, arrays, options, own)
    got = compute(kernel, cell, arrays, options, dtype, way)
    assert_as_exact(got, plain, truth, dtype, own, what)


def rms(x):
    return float(np.sqrt(np.mean(np.square(x)))) if x.size else 0.0


def eps_of(dtype):
    return 2.0**-7 if dtype == "bfloat16" else float(np.finfo(dtype).eps)


def assert_as_exact(got, plain, truth, dtype="float32", plain_dtype=None, what=""):
    """The error against float64, its root mean square, is at most twice that of
    Keras's arithmetic. Not the maximum: two orders of Keras's own sums differ by 1.7 in
    that.

    Args:
        got, plain, truth: As `compute` returns them.
        dtype: That of `got`.
        plain_dtype: That of `plain`. If it is another, its error, brought to `dtype`,
            is that of Keras's float64, and the truth, in float64 too, has it as well.
    """
    scale = 2.0 if dtype == (plain_dtype or dtype) else 3.0
    scale *= eps_of(dtype) / eps_of(plain_dtype or dtype)
    assert got.keys() == truth.keys()
    for name, x in got.items():
        assert x.shape == truth[name].shape, f"{name}: {x.shape}"
        error = rms(x - truth[name])
        bound = scale * rms(plain[name] - truth[name])
        bound += ULPS * eps_of(dtype) * rms(truth[name])
        assert error <= bound, f"{name} {what}: error {error:.2e} > {bound:.2e}"
