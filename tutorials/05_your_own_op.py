# %% [markdown]
r"""# Your own op: from a loop in Python to a layer in C++

*You write a kernel in C++ and use it in NumPy, TensorFlow and Keras.*

Run time: 30 s on 2 CPU cores, `--quick` 20 s. Download: none.

You have a computation that Keras does slowly, or not at all. This lesson takes one such
computation from a loop in Python to a C++ kernel inside a Keras layer, and measures the
time at every step. The code is in the folder `05_your_own_op` beside this notebook:
fewer than 300 lines of C++ and Python, not counting comments and tests. At the end you
copy the folder, rename it, and put your own computation in.

The library that you build does not depend on TensorFlow's version. Step 7 says why, and
how that differs from TensorFlow's own guide.

These are the claims. Each is judged in the cell that tests it, the time in claim 2 only
in a full run.

1. The kernel's alternating sums equal those of Python's integers, for any number of
   threads and for arrays in any order in memory.
2. The kernel takes at most a tenth of the time of the loop in Python.
3. The values and gradients of the op are at most twice as far from float64 as those of
   the same formula in float32, give or take a millionth, for rows of up to 5,000
   numbers.
4. They have the same bits for 1, 2, 3 and 7 threads.
5. A wrong type, number of axes or shape raises an exception that names the argument.
6. The library asks TensorFlow for functions of its C API only.
7. In a model, the layer knows its shapes, trains as the formula does, and is saved.

Run the cells from top to bottom and change what you like. As a program:

```
python tutorials/05_your_own_op.py --out runs/your_own_op
```
"""

# %%
import os
import subprocess
import sys

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
print("Loading TensorFlow takes a few seconds.", flush=True)
try:
    import hw3tf
except ImportError as error:
    if "ipykernel" not in sys.modules:
        raise SystemExit(f"{error}: pip install '.[tutorials]'") from None
    print("Installing hw3tf takes minutes and needs a C++17 compiler.", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "..[tutorials]"]
    subprocess.run(pip, check=True)
    import hw3tf  # noqa: F401

# %%
import re
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import tensorflow as tf

from hw3tf.course import own_op as course
from hw3tf.course.lesson import Lesson
from hw3tf.course.plots import own_op as draw

# %% [markdown]
# ## Settings
#
# Where there are two values, the left one is that of this notebook, the right one that
# of a full run. `seconds` is how long each time is measured.

# %%
lesson = Lesson("05_your_own_op", claims=7)
settings = lesson.settings(seconds=(0.1, 0.5), epochs=(3, 10), seed=0)
rng = np.random.default_rng(settings.seed)
times = {}

# %% [markdown]
# ## 1. A loop in Python
#
# The recurrent net of tutorial 2 subtracts its last state from each new number:
#
# $$h_t = x_t - h_{t-1}$$
#
# The last state is an alternating sum, $x_n - x_{n-1} + x_{n-2} - \dots$ In Python that
# is a loop of one line.


# %%
def loop_in_python(row):
    h = 0
    for number in row:
        h = number - h
    return h


print("[5, 3, 4, 1] ->", loop_in_python([5, 3, 4, 1]))

# %% [markdown]
# A processor subtracts two integers in a fraction of a nanosecond. **Predict, then
# run:** how many nanoseconds does the loop take per number?


# %%
def measure(what, ways, numbers):
    for name, function in ways.items():
        found = course.best_time(function, settings.seconds)
        times.setdefault(what, {})[name] = 1e9 * found / numbers
    lesson.show("times", draw.times(times))


x = rng.integers(-1000, 1000, (1000, 2000))
some = x[:50].tolist()
ways = {"1  loop in Python": lambda: [loop_in_python(row) for row in some]}
measure("alternating sum, int64", ways, 50 * 2000)

# %% [markdown]
# Most of that time is not spent on the subtraction. For each number Python looks up
# what the minus sign means for these two objects, and makes a new object for the
# result.
#
# ## 2. NumPy
#
# NumPy loops in C, over numbers that lie side by side in memory. But it has no loop
# that remembers a state, so you need a formula without one. From the end of a row,
# every second number counts positive, and the others negative.


# %%
def formula_in_numpy(x):
    return x[:, ::-2].sum(axis=1) - x[:, -2::-2].sum(axis=1)


print("[5, 3, 4, 1] ->", formula_in_numpy(np.array([[5, 3, 4, 1]])))
ways = {"2  NumPy": lambda: formula_in_numpy(x)}
measure("alternating sum, int64", ways, x.size)

# %% [markdown]
# NumPy is far ahead, although it goes through the numbers twice. The price is the
# formula: try to find one for $h_t = \max(0, x_t - h_{t-1})$. In C++ a loop is fast as
# it stands.
#
# ## 3. The kernel
#
# Here is the loop in C++. It takes pointers and sizes, and knows nothing of Python or
# TensorFlow. So one kernel serves both, and you can test it alone. `Parallel` gives
# each thread a part of the rows.

# %%
folder = course.tutorial_folder("05_your_own_op")
print(course.excerpt(folder / "csrc/kernels.h", "inline void AlternatingSum"))

# %% [markdown]
# The state is unsigned for a reason. In C++ an `int64_t` that overflows may do
# anything; a `uint64_t` wraps around, which is what NumPy does.
#
# ## 4. From Python to C++: pybind11
#
# The function below takes an array of NumPy, checks it, and hands its pointer to the
# kernel. pybind11 makes the Python module `own_op.core` of it.

# %%
print(course.excerpt(folder / "csrc/core.cc", "py::array AlternatingSum"))

# %% [markdown]
# `pip install .` in the folder builds it: `pyproject.toml` names scikit-build-core,
# which runs CMake, which runs your compiler. Here pip installs into a temporary folder,
# so your environment stays as it is.

# %%
site = course.build(folder)
for path in sorted(site.glob("own_op/*.*")):
    print(f"{path.name:40} {path.stat().st_size / 1000:8.1f} kB")

# %% [markdown]
# `core` is the Python module, `libops` the library with the TensorFlow ops. Does the
# kernel compute what Python computes? Also if the array is transposed, reversed, or has
# gaps?

# %%
from own_op import core

wanted = [loop_in_python(row) for row in x.tolist()]
layouts = {
    "rows": x,
    "columns": np.asfortranarray(x),
    "reversed": x[:, ::-1].copy()[:, ::-1],
    "gaps": x.repeat(2, axis=1)[:, ::2],
}
wrong = {
    name: sum(int((core.alternating_sum(array, n) != wanted).sum()) for n in (1, 2, 3))
    for name, array in layouts.items()
}
print("wrong sums:", wrong, "and of no rows:", core.alternating_sum(x[:0]))
lesson.claim(1, "sums that differ from Python's", sum(wrong.values()), "==", 0)

# %% [markdown]
# All are equal. `core.cc` copies an array whose numbers do not lie side by side, and
# only such an array.
#
# **Predict, then run:** is the C++ loop faster than NumPy's two sums?

# %%
ways = {"3  C++, one thread": lambda: core.alternating_sum(x, threads=1)}
measure("alternating sum, int64", ways, x.size)

first, *_, last = times["alternating sum, int64"].values()
what = "time of the loop in Python over that of C++"
lesson.claim(2, what, first / last, ">=", 10, full=True)

# %% [markdown]
# They are about as fast. Both do about one addition or subtraction in each clock cycle
# of the processor. NumPy has vector instructions for sums of numbers that lie side by
# side, but every second number is not that. Within a row the C++ loop cannot do better,
# because each subtraction needs the result of the one before. But there are many rows,
# and other cores.
#
# ## 5. Threads
#
# The rows do not depend on each other, so threads can share them. Each row is computed
# by one thread, in the same order as before. That is why the number of threads cannot
# change a result. This function hands out the rows:

# %%
print(course.excerpt(folder / "csrc/kernels.h", "void Parallel"))

# %% [markdown]
# **Predict, then run:** are two threads twice as fast? And what do they gain for 100
# numbers?

# %%
ways = {f"4  C++, {os.cpu_count()} threads": lambda: core.alternating_sum(x)}
measure("alternating sum, int64", ways, x.size)

few = x[:1, :100]
for n in (1, 2):
    found = course.best_time(lambda n=n: core.alternating_sum(few, n), 0.05)
    print(f"100 numbers, threads={n}: {1e6 * found:.1f} us")

# %% [markdown]
# Many numbers gain from more threads, until the memory, which the cores share, can
# deliver no faster. For 100 numbers the setting makes no difference. To start a thread
# takes longer than to add them up, so `Parallel` starts none.
#
# ## 6. The GIL
#
# Python lets one thread run at a time: the one that holds the global interpreter lock,
# the GIL. `core.cc` gives the lock back while the kernel runs. **Predict, then run:**
# what do two Python threads gain, with the loop in Python and with the kernel?


# %%
def in_python(rows):
    return [loop_in_python(row) for row in rows]


def in_cpp(rows):
    return core.alternating_sum(rows, threads=1)


# %%
def milliseconds(run, function, halves):
    return 1000 * course.best_time(
        lambda: list(run(function, halves)), settings.seconds
    )


parts = {in_python: (some[:25], some[25:]), in_cpp: (x[:500], x[500:])}
with ThreadPoolExecutor(2) as pool:
    for function, halves in parts.items():
        print(f"{function.__name__}, two halves of the rows:")
        found = milliseconds(map, function, halves)
        print(f"    one after the other   {found:.2f} ms")
        found = milliseconds(pool.map, function, halves)
        print(f"    in two Python threads {found:.2f} ms")

# %% [markdown]
# Two threads do not help the loop in Python: while one runs, the other waits for the
# lock. They help the kernel, if the machine has a second core to spare. Whoever gives
# the lock back must not touch a Python object. The kernel knows of none.
#
# ## 7. A TensorFlow op
#
# The second computation is RMS normalisation, which many language models use. It
# divides a row by the root of the mean of its squares, and multiplies by a trained
# scale:
#
# $$y_i = \frac{s_i\,x_i}{\sqrt{\frac{1}{n}\sum_j x_j^2 + \varepsilon}}$$
#
# In Keras these are two lines. TensorFlow runs them as a chain of six ops, each of
# which reads and writes memory.


# %%
def formula(x, scale, epsilon=1e-6):
    square = keras.ops.mean(x * x, axis=-1, keepdims=True)
    return x * keras.ops.rsqrt(square + epsilon) * scale


print(formula(tf.constant([[3.0, 4.0]]), tf.ones(2)))

# %% [markdown]
# The kernel goes through a row twice, first for the squares, then for the results. A
# row fits into the processor's cache, so it comes from memory once.

# %%
print(course.excerpt(folder / "csrc/kernels.h", "inline float InverseRms"), "\n")
print(course.excerpt(folder / "csrc/kernels.h", "inline void RmsNorm("))

# %% [markdown]
# The compiler may not change the order in which a loop adds floats. `#pragma omp simd`
# allows it for this sum, which can then use the vector registers. The sum is in
# float64.
#
# You could call a function of NumPy from TensorFlow, by `tf.numpy_function`. But then
# the graph runs only in the Python process that made it, every call waits for the GIL,
# and there is no gradient. An op has none of these limits. It consists of a definition,
# a shape function, a kernel for each kind of device, and a gradient. This registers all
# but the gradient, while TensorFlow loads the library:

# %%
print(course.excerpt(folder / "csrc/ops.cc", "void Register"), "\n")
print(course.excerpt(folder / "csrc/ops.cc", "const bool registered"))

# %% [markdown]
# `Compute` calls the function below. A graph may have been made without knowing a
# shape, so the kernel checks all of them before it reads a number.

# %%
print(course.excerpt(folder / "csrc/ops.cc", "void Run"))

# %% [markdown]
# In Python, `tf.load_op_library` makes a function for each op of the library. `ops.py`
# adds a check of the types, and default values.

# %%
from own_op import ops

print(course.excerpt(folder / "src/own_op/ops.py", "def rms_norm"))
print(ops.rms_norm(tf.constant([[3.0, 4.0]]), tf.ones(2)))

# %% [markdown]
# **Predict, then run:** what does one call cost, beside the arithmetic, for the op, for
# the formula, and for `tf.numpy_function`? Each graph below has a hundred calls on 64
# numbers, one after the other.


# %%
def in_numpy(x, scale):
    return x * scale / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(1e-6))


def hundred_calls(function):
    @tf.function
    def graph(x, scale):
        for _ in range(100):
            x = function(x, scale)
        return x

    return graph


# %%
few = tf.constant(rng.normal(size=(1, 64)), tf.float32)
functions = {
    "op": ops.rms_norm,
    "formula": formula,
    "numpy_function": lambda *args: tf.numpy_function(in_numpy, args, tf.float32),
}
for name, function in functions.items():
    graph = hundred_calls(function)
    found = course.best_time(lambda g=graph: g(few, tf.ones(64)), settings.seconds)
    print(f"{name:14} {1e6 * found / 100:6.2f} us per call")

# %% [markdown]
# The op costs about two thirds of the formula, not a sixth, although that has six ops:
# TensorFlow's own ops are cheap to call. `tf.numpy_function` costs far more, since each
# call has to get the lock and to make NumPy arrays.
#
# With many numbers, arithmetic and memory count. What does the op gain there?

# %%
many = tf.constant(rng.normal(size=(2048, 512)), tf.float32)
scale = tf.constant(rng.normal(size=512), tf.float32)

chain, op = tf.function(formula), tf.function(ops.rms_norm)
ways = {
    "5  Keras's ops": lambda: chain(many, scale),
    "6  our op": lambda: op(many, scale),
}
measure("RMS normalisation, float32", ways, 2048 * 512)

# %% [markdown]
# The op is ahead, because it reads the numbers once. But TensorFlow's ops use all
# cores, too, so the gain is far from that over a loop in Python. Keep this in mind when
# you choose what to write: a short chain of simple ops leaves little to gain, a loop
# over time a lot.
#
# ### One library for every TensorFlow
#
# [TensorFlow's guide](https://www.tensorflow.org/guide/create_op) has you derive a
# class from `OpKernel`, with TensorFlow's C++ headers. The compiler then writes
# TensorFlow's own layout of classes, its templates, and the mangled names of its
# functions into your library. They may change with every release, and TensorFlow's
# [promise](https://www.tensorflow.org/guide/versions) leaves the C++ interface out. So
# such a library works with the version that it was compiled for. TensorFlow Text, for
# one, is released anew for every TensorFlow.
#
# Our library uses TensorFlow's C API instead, which was
# [designed](https://github.com/tensorflow/community/blob/master/rfcs/20190814-kernel-and-op-registration.md)
# for ops that outlive a release. It consists of functions with plain names, and passes
# numbers, and pointers to things that the library never looks into. C has one binary
# interface per platform, so a call is right as long as the function exists.
# `tensorflow.h` declares the ones that we need, so the build needs no TensorFlow. Where
# are they when the library runs? In `libtensorflow_framework.so.2`, which `import
# tensorflow` has loaded. `CMakeLists.txt` links an empty library of that name in its
# place.
#
# **Predict, then run:** how many functions does an op need?

# %%
library = next(site.glob("own_op/libops.*")).read_bytes()
functions = sorted(set(re.findall(rb"\bTF_\w+", library)))
cpp_names = set(re.findall(rb"_ZNK?\d+(?:tensorflow|tsl|absl)\w*", library))
print(len(functions), "functions of the C API, for example", functions[:3])
print(len(cpp_names), "names of TensorFlow's C++ classes")
lesson.claim(6, "C++ names of TensorFlow in the library", len(cpp_names), "==", 0)
lesson.claim(6, "functions of the C API in the library", len(functions), ">=", 20)

# %% [markdown]
# One file, built once, has passed the folder's tests with TensorFlow 2.16 and with
# 2.21.
#
# The C API has limits. It gives no access to TensorFlow's threads, which is why
# `Parallel` starts its own. A shape function sees shapes, but no values. And a model
# with the op cannot be compiled by XLA.
#
# ## 8. The shape function
#
# Keras and `tf.function` build graphs before there are numbers. They ask each op for
# the shape of its result, which may have unknown sizes.

# %%
print(course.excerpt(folder / "csrc/ops.cc", "void InferShapes"))

graph = tf.function(ops.rms_norm).get_concrete_function(
    tf.TensorSpec((None, None, 64)), tf.TensorSpec((64,))
)
print("shape in the graph:", graph.output_shapes)
shape = graph.output_shapes.as_list()
lesson.claim(7, "shape in a graph", shape, "==", [None, None, 64])

# %% [markdown]
# The result has the shape of `x`, known or not. Without a shape function it would be
# unknown, and a `Dense` layer that follows could not make its weights.
#
# ## 9. The gradient
#
# Write $r = 1/\sqrt{\mathrm{mean}(x^2) + \varepsilon}$ and $g_i = s_i\,\partial y_i$.
# Since $r$ depends on all numbers of the row, a change of one $x_i$ changes every
# $y_j$:
#
# $$\partial x_i = r\,\Big(g_i - x_i\,r^2\,\frac{1}{n}\sum_j g_j x_j\Big), \qquad
#   \partial s_i = \sum_{\text{rows}} \partial y_i\,x_i\,r$$
#
# A second op computes both. Python tells TensorFlow that it belongs to the first:

# %%
print(course.excerpt(folder / "src/own_op/ops.py", "@tf.RegisterGradient"))

# %% [markdown]
# Is it right? Compare it with the gradient that TensorFlow derives from the formula, in
# float64. Float32 cannot be exact, so the question is whether the op errs more than the
# formula in float32 does.


# %%
def with_gradients(function, x, scale, dy, **options):
    with tf.GradientTape() as tape:
        tape.watch((x, scale))
        y = function(x, scale, **options)
    return [y, *tape.gradient(y, (x, scale), dy)]


def random_inputs(columns):
    shapes = ((100, columns), (columns,), (100, columns))
    return [tf.constant(rng.normal(size=shape), tf.float32) for shape in shapes]


# %%
columns = [1, 2, 10, 100, 1000, 5000]
errors = {"op": [], "formula in float32": []}
for n in columns:
    inputs = random_inputs(n)
    exact = with_gradients(formula, *(tf.cast(t, tf.float64) for t in inputs))
    for name, f in (("op", ops.rms_norm), ("formula in float32", formula)):
        pairs = zip(with_gradients(f, *inputs), exact, strict=True)
        errors[name].append([np.abs(a.numpy() - b.numpy()).max() for a, b in pairs])
errors = {name: np.array(found) for name, found in errors.items()}

# %%
lesson.show("errors", draw.errors(columns, errors))

# %% [markdown]
# The op is no worse than the formula, and better where many numbers are added: its sums
# are in float64. The test takes the error of float32 as the measure, so it needs no
# tolerance that somebody has guessed.

# %%
ulp = np.finfo("float32").eps  # of numbers of size 1; the formula can be right by luck
excess = errors["op"] - 2 * errors["formula in float32"]
lesson.claim(3, "error beyond twice that of float32", excess.max(), "<=", 8 * ulp)

# %% [markdown]
# What does a training step cost, forward and backward?


# %%
def training_step(function):
    return tf.function(lambda x, scale, dy: with_gradients(function, x, scale, dy))


dy = tf.constant(rng.normal(size=many.shape), tf.float32)
chain, op = training_step(formula), training_step(ops.rms_norm)
ways = {
    "7  training, Keras's ops": lambda: chain(many, scale, dy),
    "8  training, our ops": lambda: op(many, scale, dy),
}
measure("RMS normalisation, float32", ways, 2048 * 512)

# %% [markdown]
# The gradient of the formula is a longer chain of ops than the formula itself, and each
# of them goes through memory. So the op saves more time per number than it did forward.
# As a ratio it gains less, because our gradient op reads `x` and `dy` twice.
#
# ## 10. The same bits
#
# The gradient of the scale is a sum over all rows. If each thread summed the rows that
# it has, the order of the sum, and so its last bits, would depend on the number of
# threads. **Predict, then run:** how can threads share this sum and leave its order
# alone?

# %%
different = 0
inputs = (many, scale, dy)
alone = with_gradients(ops.rms_norm, *inputs, threads=1)
for threads in (2, 3, 7):
    shared = with_gradients(ops.rms_norm, *inputs, threads=threads)
    for one, other in zip(alone, shared, strict=True):
        different += one.numpy().tobytes() != other.numpy().tobytes()
print("results with other bits:", different, "of 9")
lesson.claim(4, "results that depend on the number of threads", different, "==", 0)

# %% [markdown]
# The threads share the columns: each adds up some columns, through all rows, from the
# first to the last. `RmsNormGrad` in `kernels.h` does so in its second half.
#
# ## 11. Wrong input
#
# A kernel reads where it is told to. If a shape is wrong and nobody checks it, the
# program dies, or goes on with wrong numbers. What does a user of your package see
# instead?

# %%
bad = {
    "`x`": [
        lambda: core.alternating_sum(np.ones((2, 3))),
        lambda: core.alternating_sum(np.array(1)),
        lambda: ops.rms_norm(tf.ones((2, 3), tf.float64), tf.ones(3)),
        lambda: ops.rms_norm(tf.constant(1.0), tf.ones(1)),
    ],
    "`scale`": [lambda: ops.rms_norm(tf.ones((2, 3)), tf.ones(4))],
}

# %%
unnamed = 0
for argument, calls in bad.items():
    for call in calls:
        try:
            call()
            message = "no error"
        except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
            message = f"{type(error).__name__}: {error}"
        unnamed += argument not in message
        print(message)
lesson.claim(5, "wrong inputs without an error that names them", unnamed, "==", 0)

# %% [markdown]
# NaN is not a wrong input. It spreads over its own row, as in the formula, and leaves
# the other rows alone.

# %%
y = ops.rms_norm(tf.constant([[3.0, 4.0], [np.nan, 1.0]]), tf.ones(2))
print(y.numpy())
print("of no rows:", ops.rms_norm(tf.ones((0, 2)), tf.ones(2)).shape)

# %% [markdown]
# ## 12. A Keras layer
#
# The layer keeps the scale as a weight and calls the op. `supports_jit = False` tells
# Keras not to compile a model with XLA, which has no kernel for the op.

# %%
from own_op import layers

print(course.excerpt(folder / "src/own_op/layers.py", "class RmsNorm"))

# %% [markdown]
# **Predict, then run:** you train two models that start with equal weights, one with
# the layer and one with the formula. Will their losses differ?


# %%
@keras.saving.register_keras_serializable("tutorial")
class Formula(layers.RmsNorm):
    def call(self, inputs):
        return formula(inputs, self.scale, self.epsilon)


def build_model(norm):
    keras.utils.set_random_seed(settings.seed)
    parts = [keras.layers.Dense(64, "relu"), norm, keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((20,)), *parts])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


# %%
data = rng.normal(size=(4000, 20)).astype("float32")
target = np.sin(data[:, :1]) * data[:, 1:2]
models = {"layer with our op": build_model(layers.RmsNorm())}
models["formula"] = build_model(Formula())
losses = {}
for name, model in models.items():
    keras.utils.set_random_seed(settings.seed)  # the same order of examples
    history = model.fit(data, target, batch_size=100, epochs=settings.epochs, verbose=0)
    losses[name] = history.history["loss"]

# %%
lesson.show("training", draw.losses(losses))

# %% [markdown]
# The curves lie on each other: the two models start with equal weights, see the same
# examples, and differ by rounding alone.

# %%
one, other = (np.array(found) for found in losses.values())
difference = np.max(np.abs(one / other - 1))
lesson.claim(7, "relative difference of losses", difference, "<=", 0.01)
lesson.claim(7, "last loss over the first", one[-1] / one[0], "<=", 0.8)

# %% [markdown]
# The model is saved like any other. To load it, import `own_op.layers` first.

# %%
file = site / "model.keras"
models["layer with our op"].save(file)
loaded = keras.models.load_model(file)
before = models["layer with our op"].predict(data, verbose=0)
difference = np.abs(loaded.predict(data, verbose=0) - before).max()
print("largest difference after loading:", difference)
lesson.claim(7, "difference after loading", difference, "==", 0)

# %% [markdown]
# ## 13. Yours
#
# Copy the folder, give it a name, and see its tests pass:
#
# ```
# cp -r tutorials/05_your_own_op fast_norm && cd fast_norm
# mv src/own_op src/fast_norm
# mv tests/test_own_op.py tests/test_fast_norm.py
# perl -pi -e 's/own_op/fast_norm/g; s/OwnOp/FastNorm/g; s/own-op/fast-norm/g' \
#     $(grep -rlE --exclude=README.md 'own_op|OwnOp|own-op' .)
# pip install '.[test]' && pytest
# ```
#
#  Put your computation into `kernels.h`, its inputs and outputs into `ops.cc`, and a
# formula in float64 into the tests. Change one thing at a time, install again, and run
# the tests. A process that has loaded a library keeps it, so restart a notebook's
# kernel after each change. `pip wheel . --no-deps` makes a file that you can give to
# others. It works with one version of Python, because of the module `core`, and with
# any TensorFlow from 2.16 on. For PyPI it must become a manylinux wheel: `auditwheel
# repair --exclude libtensorflow_framework.so.2 own_op-*.whl`.

# %% [markdown]
# ## All results

# %%
lesson.finish(ns_per_number=times)

# %% [markdown]
# ## Conclusion
#
# The loop in Python was slow because of Python, not because it is a loop. What
# surrounds the kernel in C++ is little: a function that checks an array, a definition
# of an op, the shape of its result, a gradient. An op in place of a chain of
# TensorFlow's ops saves the most time in training, where the chain is longest. And
# through the C API the library is built once, and works with every TensorFlow since
# 2.16.
#
# ## Exercises
#
# 1. Let the kernel compute $h_t = \max(0, x_t - h_{t-1})$, and write its test first.
#    How much slower is it than the alternating sum? Can you write it in NumPy without a
#    loop over time?
# 2. Give one row of ten million numbers to `alternating_sum`. How many threads work?
#    Cut the row into pieces, so that all of them do. Which sign does the sum of each
#    piece get?
# 3. Add `-march=native` to the options in `CMakeLists.txt`. Which bars get shorter, and
#    on which machines can you no longer use the wheel?
#
# ## References
#
# - TensorFlow, [Create an op](https://www.tensorflow.org/guide/create_op): the same in
#   TensorFlow's C++ API, with GPU kernels.
# - TensorFlow, [version compatibility](https://www.tensorflow.org/guide/versions): it
#   promises `c_api.h` of the C API, but neither `ops.h` and `kernels.h`, which we use,
#   nor the C++ API.
# - [pybind11](https://pybind11.readthedocs.io) and
#   [scikit-build-core](https://scikit-build-core.readthedocs.io): from C++ to a wheel.
# - B. Zhang and R. Sennrich, [Root mean square layer
#   normalization](https://arxiv.org/abs/1910.07467), 2019.
