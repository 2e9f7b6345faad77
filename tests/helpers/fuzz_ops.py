"""Hostile calls at every boundary: `hw3tf._core`, the TensorFlow ops, `hw3tf.ops`.

    python tests/helpers/fuzz_ops.py --seconds 600

Each case is a call drawn from a seed: valid, or spoiled (fuzz_calls.py). It either
computes, and then has the right shape and agrees with `hw3tf.reference` (integers: with
Python's), or raises an exception with a message. Cases run in a child process that
notes the seed before it calls, so that a crash is a failure with a seed, too.
`--case SEED` runs one in this process.
"""

import argparse
import mmap
import os
import resource
import signal
import struct
import sys
import time
import traceback
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import fuzz_calls
import integer_formula
import kernel_paths
import numpy as np
import tensorflow as tf

from hw3tf import _core, ops, reference
from hw3tf.ops.fronts.tensorflow_op import OVERFLOW
from hw3tf.ops.operations import RNN, RNN_GRAD
from hw3tf.ops.rnn.call import RnnCall
from hw3tf.ops.rnn.options import RnnOptions
from hw3tf.ops.shapes import batch_of

REFUSALS = (ValueError, TypeError, OverflowError, MemoryError, NotImplementedError)
REFUSALS = (*REFUSALS, tf.errors.OpError)
TOLERANCE = {"float64": 1e-10, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
COUNTS = ("seed", "cases", "computed", "compared", "refused", "failed")
RNN_OPTIONS = RnnOptions.__dataclass_fields__
REQUIRED = ("query", "key", "value")
MOST_BYTES = 10**7  # of an array that is given to TensorFlow, which copies it
MORE_MEMORY = 4 * 2**30  # than at the start; what asks for more is refused
CASES_PER_CHILD = 20000  # TensorFlow keeps something of every new attribute
HANG = 300  # looks at a child that makes no progress, one per half second


class WrongError(Exception):
    """A case that is neither right nor refused."""


def choose_path(random, call, required):
    """The path of a call; TensorFlow's op cannot take all, or needs much memory."""
    path = random.of(("core", "core", "op", "ops"))
    arrays = {n: x for n, x in call.items() if isinstance(x, np.ndarray)}
    if any(x.nbytes > MOST_BYTES for x in arrays.values()):
        return "core"
    return "ops" if path == "op" and not arrays.keys() >= set(required) else path


def is_tame(call):
    """Whether rounding alone makes a difference: no NaN, infinity, large numbers."""
    floats = [call[n] for n in ("query", "key", "value", "bias") if n in call]
    small = all(np.abs(np.asarray(x, "float64")).max(initial=0) <= 10 for x in floats)
    return small and abs(call["scale"]) <= 1 and call.get("soft_cap", 1) < 10


def lengths_of(call):
    """The longest query and key."""
    if "query_splits" in call:
        return [int(np.diff(call[f"{n}_splits"]).max()) for n in ("query", "key")]
    return [call[n].shape[1] for n in ("query", "key")]


def with_window(call):
    """The mask with the window, which the reference knows in its symmetric form."""
    mask = call.get("mask", np.ones(1, bool))
    distance = np.subtract.outer(*map(np.arange, lengths_of(call)))
    for name, sign in (("window_before", 1), ("window_after", -1)):
        if call.get(name, -1) >= 0:
            mask = mask & (sign * distance <= call[name])
    return mask


def judged(call):
    """The output by `hw3tf.reference`, in float64."""
    same = ("query_mask", "key_mask", "query_lengths", "key_lengths", "is_causal")
    given = {n: call[n] for n in (*same, "dropout_rate", "dropout_seed") if n in call}
    if call.get("soft_cap"):
        given["attn_logits_soft_cap"] = call["soft_cap"]
    given |= {"mask": with_window(call), "scale": float(call["scale"])}
    if "bias" in call:
        given["bias"] = np.asarray(call["bias"], "float64")
    wide = {n: call[n].astype("float64") for n in REQUIRED}
    if "query_splits" not in call:
        return reference.dot_product_attention(**wide, **given).numpy()
    return reference.ragged_dot_product_attention(
        **ragged({**call, **wide}), **given
    ).values


def ragged(call):
    """query, key and value as ragged tensors; what the splits say is not looked at."""
    rows = {"query": "query_splits", "key": "key_splits", "value": "key_splits"}
    return {
        name: tf.RaggedTensor.from_row_splits(
            tf.constant(call[name]),
            call[splits],
            validate=False,
        )
        for name, splits in rows.items()
    }


def check_output(call, output, counts):
    query, value = call["query"], call["value"]
    batch = () if query.ndim == 3 else (batch_of(query, call["key"], value),)
    if output.shape != (*batch, *query.shape[len(batch) : -1], value.shape[-1]):
        raise WrongError(f"a result of shape {output.shape}")
    if not output.size or not is_tame(call):
        return
    want = np.asarray(judged(call))
    got = np.asarray(output, "float64")
    tolerance = TOLERANCE[query.dtype.name] * max(1.0, np.abs(want).max())
    if not np.abs(got - want).max() <= tolerance:
        raise WrongError(f"differs by {np.abs(got - want).max()} from the reference")
    counts["compared"] += 1


def by_kernel(path, random, call):
    """The output of a call of the module or of the op; its gradient, at times with
    results that are not those of the call."""
    output, statistics, logsumexp = kernel_paths.forward(path, **call)
    if random.one_in(2):
        arguments = [call[n] for n in REQUIRED]
        results = {
            "output": output,
            "statistics": statistics,
            "grad_output": output,
            "grad_logsumexp": logsumexp,
        }
        if random.one_in(2):
            fuzz_calls.spoil(random, results)
        rest = {n: x for n, x in call.items() if n not in REQUIRED}
        try:
            grads = kernel_paths.backward(path, *arguments, **results, **rest)
        except REFUSALS as error:
            require_message(error)
            return output
        for x, grad in zip(arguments, grads, strict=False):
            if x.shape != grad.shape:
                raise WrongError(f"a gradient of shape {grad.shape} of {x.shape}")
    return output


def by_ops(random, call):
    """The output of `hw3tf.ops`, whose window is symmetric: the call is changed."""
    before = call.pop("window_before", -1)
    call.pop("window_after", None)
    given = {n: x for n, x in call.items() if not n.endswith("_splits")}
    if "soft_cap" in given:
        given["attn_logits_soft_cap"] = given.pop("soft_cap")
    if isinstance(before, int) and before != -1:
        given["sliding_window"] = before + 1
        call["window_before"] = call["window_after"] = before
    if "query_splits" not in call:
        return ops.dot_product_attention(**given).numpy()
    if "key_splits" not in call:
        raise ValueError("no splits of keys")
    output = ops.ragged_dot_product_attention(**{**given, **ragged(call)})
    return output.values.numpy()


def attention(random, counts):
    """A case of attention: (hostile, function of no arguments)."""
    call = fuzz_calls.make_call(random, packed=random.one_in(3))
    hostile = not random.one_in(3)
    if hostile:
        fuzz_calls.spoiled(random, call)
    path = choose_path(random, call, REQUIRED)

    def run():
        if path == "ops":
            output = by_ops(random, call)
        else:
            output = by_kernel(path, random, call)
        counts["computed"] += 1
        check_output(call, output, counts)

    return path, hostile, call, run


def recurrence_by_op(call):
    library = ops.load_op_library()
    call = dict(call)
    state = "int64" if call["recurrent_kernel"].dtype == "int64" else "int32"
    sequences = call.pop("return_sequences")
    none = {"bias": state, "initial_state": state, "mask": "bool"}
    names = ("inputs", "kernel", "recurrent_kernel", *none)
    tensors = []
    for name in names:
        x = call.pop(name, None)
        tensors.append(tf.zeros([0], none[name]) if x is None else tf.constant(x))
    run = library.hw3tf_integer_rnn_sequence if sequences else library.hw3tf_integer_rnn
    return run(*tensors, **call).numpy()


def formula_options(call, path):
    given = dict(call)
    if path == "op":  # takes arrays of no numbers for none, and 1.0 for 1
        given = {n: x for n, x in given.items() if np.shape(x) != (0,)}
        given["fractional_bits"] = int(given["fractional_bits"])
    if given.get("activation") == "none":
        given["activation"] = None
    given["clip"] = given.pop("clip_low"), given.pop("clip_high")
    if given["activation"] != "clip":
        given["clip"] = None
    return given


def recurrence(random, counts):
    """A case of the integer recurrence, likewise."""
    call = fuzz_calls.make_recurrence(random)
    hostile = not random.one_in(3)
    if hostile:
        fuzz_calls.spoiled(random, call)
    inputs = call["inputs"]
    if isinstance(inputs, np.ndarray) and inputs.size > MOST_BYTES:
        call["return_sequences"] = True  # too much, where the last state takes hours
    path = choose_path(random, call, ("inputs", "kernel", "recurrent_kernel"))

    def run():
        overflow = got = None
        try:
            if path == "core":
                got = _core.integer_rnn(**call)
            elif path == "op":
                got = recurrence_by_op(call)
            else:
                got = ops.integer_rnn(**formula_options(call, path)).numpy()
        except (OverflowError, tf.errors.InvalidArgumentError) as error:
            if hostile or OVERFLOW not in str(error):
                raise
            overflow = error
        try:
            want = integer_formula.integer_rnn(**formula_options(call, path))
        except integer_formula.OverflowAtError as error:
            if overflow is None:
                raise WrongError("an overflow was not found") from error
            return
        if overflow is not None:
            raise WrongError("an overflow where none happens") from overflow
        counts["computed"] += 1
        if got.shape != want.shape or not np.array_equal(got, want):
            raise WrongError(f"states {got}, not {want}")
        counts["compared"] += 1

    return path, hostile, call, run


def rnn_by_op(cell, call, name, operands, **more):
    """The results of a recurrent op, with an empty tensor for what is not given."""
    call = dict(call)
    own = {"bool": "bool", "int32": "int32", "int64": "int64"}
    tensors = []
    for operand in operands:
        x = call.pop(operand.name, None)
        dtype = own.get(operand.type, call_dtype(call, tensors))
        tensors.append(tf.zeros([0], dtype) if x is None else tf.constant(x))
    run = getattr(ops.load_op_library(), name)
    return [x.numpy() for x in run(*tensors, **call, **more)]


def call_dtype(call, tensors):
    return tensors[0].dtype if tensors else "float32"


def rnn_options(call):
    """Tensors and options of a call."""
    names = {name: x for name, x in call.items() if name in RNN_OPTIONS}
    return {n: x for n, x in call.items() if n not in names}, names


def rnn_gradient(random, path, cell, call, results):
    """The gradient of a call, at times with results that are not its own."""
    names = ["grad_" + name for name in RNN[cell].results if name != "kept"]
    given = {"outputs": results[0], "kept": results[-1]}
    given |= dict(zip(names, results, strict=False))
    if random.one_in(2):
        fuzz_calls.spoil(random, given)
    try:
        if path == "core":
            grads = getattr(_core, f"{cell}_backward")(**call, **given)
        else:
            operands = RNN_GRAD[cell].operands
            grads = rnn_by_op(cell, call | given, f"hw3tf_{cell}_grad", operands)
    except REFUSALS as error:
        require_message(error)
        return
    for name, grad in zip(RNN[cell].with_gradient, grads, strict=True):
        x = call.get(name)
        if x is not None and np.size(x) and grad.shape != np.shape(x):
            raise WrongError(f"a gradient of shape {grad.shape} of {np.shape(x)}")


def check_rnn(cell, call, outputs, counts):
    """The outputs against the reference in float64."""
    tensors, options = rnn_options(call)
    inputs, units = tensors["inputs"], tensors["recurrent_kernel"].shape[0]
    timesteps = inputs.shape[1] if options.get("return_sequences") else 1
    if outputs.shape != (inputs.shape[0], timesteps, units):
        raise WrongError(f"outputs of shape {outputs.shape}")
    wide = {
        name: x if x.dtype.kind in "bi" else x.astype("float64")
        for name, x in tensors.items()
        if isinstance(x, np.ndarray)
    }
    sizes = [np.abs(x).max(initial=0) for x in wide.values() if x.dtype.kind == "f"]
    if not outputs.size or not max(sizes) <= 10:
        return

    def computed(arrays):
        given = {name: tf.constant(x) for name, x in arrays.items()}
        results = reference.rnn(cell, **given, **options)
        return np.asarray(results[0], "float64")

    want = computed(wide)
    size = np.abs(want).max()
    if not size < 1e4:  # float16 ends there
        return
    error = np.abs(np.asarray(outputs, "float64") - want).max()
    if not error <= TOLERANCE[inputs.dtype.name] * max(1.0, size):
        # States without limits may grow beyond the range, or until roundings count.
        plain = computed({name: tensors[name] for name in wide})
        allowed = 2 * np.abs(plain - want).max()
        if not np.isfinite(allowed):
            return
        if not error <= allowed:
            raise WrongError(
                f"differs by {error} from the reference, of size {size}; "
                f"allowed are {allowed}"
            )
    counts["compared"] += 1


def recurrent_layer(random, counts):
    """A case of LSTM, GRU or simple RNN, likewise."""
    cell, call = fuzz_calls.make_rnn(random)
    hostile = not random.one_in(3)
    if hostile:
        fuzz_calls.spoiled(random, call)
    inputs = call["inputs"]
    if isinstance(inputs, np.ndarray) and inputs.size > MOST_BYTES:
        call["return_sequences"] = True  # too much, where the last output takes hours
    path = choose_path(random, call, ("inputs", "kernel", "recurrent_kernel"))

    def run():
        if path == "ops":
            tensors, options = rnn_options(call)
            results = RnnCall(cell, tensors, RnnOptions(**options)).run()
        elif path == "core":
            results = getattr(_core, f"{cell}_forward")(**call, keep=True)
        else:
            operands = RNN[cell].operands
            results = rnn_by_op(cell, call, f"hw3tf_{cell}", operands, keep=True)
            # TensorFlow takes None for the default of an attribute.
            for name in RNN_OPTIONS:
                if call.get(name, "") is None:
                    del call[name]
        counts["computed"] += 1
        if path != "ops" and random.one_in(2):
            rnn_gradient(random, path, cell, call, results)
        check_rnn(cell, call, np.asarray(results[0]), counts)

    return path, hostile, {"cell": cell, **call}, run


def dropout_mask(random, counts):
    """A case of the mask of dropout, likewise."""
    shape = [random.below(5) for _ in range(4)]
    rate, seed = random.of((0.0, 0.3, 0.999)), random.below(2**62)
    hostile = not random.one_in(3)
    if hostile:
        shape = [random.of((*shape, 0, *fuzz_calls.INTEGERS)) for _ in shape]
        rate = random.of((rate, *fuzz_calls.REALS))

    def run():
        keep = _core.attention_dropout_mask(shape, rate=rate, seed=seed)
        counts["computed"] += 1
        if keep.shape != tuple(shape):
            raise WrongError(f"a mask of shape {keep.shape}")

    return "core", hostile, {"shape": shape, "rate": rate}, run


def require_message(error):
    if not str(error).strip() and not isinstance(error, MemoryError):
        raise WrongError(f"{type(error).__name__} without a message")


def run_case(seed, counts):
    """Runs the case of a seed; a text of what is wrong with it, or None."""
    random = fuzz_calls.Random(seed)
    make = random.of(
        (attention, attention, *[recurrent_layer] * 2, recurrence, dropout_mask)
    )
    path, hostile, call, run = make(random, counts)
    try:
        try:
            run()
        except REFUSALS as error:
            counts["refused"] += 1
            require_message(error)
            if not hostile:
                raise
    except Exception:
        return f"{make.__name__} by {path}: {described(call)}\n{traceback.format_exc()}"
    return None


def described(call):
    """A call in a line: types, shapes and strides of its arrays."""
    return {
        name: f"{x.dtype}{x.shape} by {x.strides}" if isinstance(x, np.ndarray) else x
        for name, x in call.items()
    }


class Progress:
    """Numbers that both processes see."""

    def __init__(self):
        self.format = f"{len(COUNTS)}q"
        self.memory = mmap.mmap(-1, struct.calcsize(self.format))

    def write(self, counts):
        self.memory[:] = struct.pack(self.format, *(counts[n] for n in COUNTS))

    def read(self):
        return dict(zip(COUNTS, struct.unpack(self.format, self.memory), strict=True))


def limit_memory():
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_MEMORY,) * 2)


def child(progress, seed, cases):
    """Runs the cases from a seed on."""
    warnings.simplefilter("ignore")
    ops.load_op_library()
    ops.dot_product_attention(*[np.ones((1, 2, 1, 2), "float32")] * 3)
    limit_memory()
    counts = progress.read()
    for counts["seed"] in range(seed, seed + cases):
        progress.write(counts)
        if wrong := run_case(counts["seed"], counts):
            counts["failed"] += 1
            print(f"--case {counts['seed']}: {wrong}", flush=True)
        counts["cases"] += 1
        progress.write(counts)


def watch(pid, progress, end):
    """Waits for a child; why it ended early, or None."""
    seen, looks = None, 0
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        time.sleep(0.5)
        counts = progress.read()
        looks = looks + 1 if counts == seen else 0
        seen = counts
        if looks > HANG or time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "no progress" if looks > HANG else None
    status = os.waitstatus_to_exitcode(ended[1])
    return f"the process ended, {status}" if status else None


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--cases", type=int, default=10**12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int)
    args = parser.parse_args(argv)
    if args.case is not None:
        raise SystemExit(run_case(args.case, dict.fromkeys(COUNTS, 0)))
    end = time.monotonic() + args.seconds
    progress = Progress()
    while (done := progress.read())["cases"] < args.cases:
        if time.monotonic() > end or done["failed"] > 100:
            break
        cases = min(CASES_PER_CHILD, args.cases - done["cases"])
        # This process has imported TensorFlow and runs nothing of it: a child need not
        # import it.
        pid = os.fork()
        if pid == 0:
            child(progress, args.seed + done["cases"], cases)
            return {"failed": 0}
        if ended := watch(pid, progress, end):
            done = progress.read()
            print(f"--case {done['seed']}: {ended}", flush=True)
            done["cases"], done["failed"] = done["cases"] + 1, done["failed"] + 1
            progress.write(done)
    del done["seed"]
    numbers = ", ".join(f"{x} {name}" for name, x in done.items())
    print(f"ops: {numbers}, from seed {args.seed} on")
    return done


if __name__ == "__main__":
    sys.exit(bool(main()["failed"]))
