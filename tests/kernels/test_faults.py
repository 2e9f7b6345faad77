"""Faults around a call: memory that runs out, forks, exits, signals."""

import os
import pathlib
import shutil
import subprocess
import sys
import textwrap

import processes
import pytest
from checks import run_python

TESTS = pathlib.Path(__file__).parents[1]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="a matter of Linux")

START = """
import multiprocessing, os, sys, threading, time, warnings
import numpy as np
from hw3tf import _core
rng = np.random.default_rng(0)
def arrays(batch=2, length=150, heads=2, size=32, dtype="float32"):
    shape = (batch, length, heads, size)
    return [rng.standard_normal(shape).astype(dtype) for _ in range(3)]
def equal(first, second):
    return all(np.array_equal(x, y) for x, y in zip(first, second, strict=True)
               if x is not None)
def attention(query, key, value, **options):
    options = {"scale": 0.2} | options
    results = _core.attention_forward(query, key, value, **options)
    grads = _core.attention_backward(
        query, key, value, *results[:2], value, **options)
    return [*results, *grads]
"""


def run(code, **environment):
    return run_python(START + textwrap.dedent(code), timeout=900, **environment)


@pytest.fixture(scope="module")
def allocator(tmp_path_factory):
    """The library of failing_allocator.cc."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    library = tmp_path_factory.mktemp("allocator") / "failing_allocator.so"
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-o", library]
    source = TESTS / "helpers/failing_allocator.cc"
    subprocess.run([compiler, *flags, source, "-ldl"], check=True)
    return library


@pytest.fixture(
    params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["spread", "every"]
)
def sweep(request):
    """The code of SWEEP, for a spread of the allocations or for every one."""
    return f"EVERY = {request.param}\n" + SWEEP


# Fails one allocation after the other, until a call needs no more of them: each of the
# first ten, further on one in so many.
SWEEP = """
import ctypes
allocator = ctypes.CDLL(None)
allocator.hw3tf_failed.restype = ctypes.c_long
def sweep(call, errors, size=1, ours=True, most=2000):
    want = call()
    refused, k = 0, 0
    while k < most:
        k += 1 if EVERY else 1 + k // 10
        allocator.hw3tf_fail(ctypes.c_size_t(size), ctypes.c_long(k), int(ours))
        try:
            got = call()
        except errors as error:
            got = None
        failed = allocator.hw3tf_failed()
        if not failed:
            assert equal(got, want)
            return refused
        refused += got is None
        assert got is None or equal(got, want)
        assert equal(call(), want), f"after failure {k}"
    raise AssertionError("more allocations than a call can need")
"""


# Attention by the op, and its gradients.
OP = """
import tensorflow as tf
from hw3tf import ops
x = [tf.constant(a) for a in arrays()]
def both():
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = ops.dot_product_attention(*x, is_causal=True)
    return [y, *tape.gradient(y, x)]
"""


@LINUX
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_module_without_memory_raises_and_goes_on(dtype, allocator, sweep):
    """Allocations of ours fail once each; bias and lengths, so that there are
    many; every call with one thread more, so that making threads fails, too."""
    code = """
    import ml_dtypes
    x = arrays(dtype=ml_dtypes.bfloat16 if DTYPE == "bfloat16" else DTYPE)
    bias = np.zeros((1, 2, 150, 1), "float64" if DTYPE == "float64" else "float32")
    lengths = np.array([150, 7], "int32")
    threads = 1
    def call():
        global threads
        threads = min(threads + 1, 60)
        _core.set_num_threads(threads)
        return attention(*x, bias=bias, key_lengths=lengths)
    print(sweep(call, MemoryError) > 5, sweep(call, MemoryError, 4000, False) > 5)
    """
    code = sweep + f"DTYPE = {dtype!r}\n" + textwrap.dedent(code)
    assert run(code, LD_PRELOAD=allocator) == "True True\n"


@LINUX
def test_recurrence_without_memory_raises_and_goes_on(allocator, sweep):
    code = """
    for features, units, length in ((1, 1, 40000), (2, 3, 5000), (8, 40, 300)):
        weights = (rng.integers(-1, 2, shape) for shape in
                   ((features, units), (units, units)))
        x = rng.integers(-9, 9, (3, length, features))
        w, u = weights
        threads = 1
        def call():
            global threads
            threads = min(threads + 1, 60)
            _core.set_num_threads(threads)
            return [_core.integer_rnn(x, w, u, overflow="wrap")]
        print(sweep(call, MemoryError) > 0)
    """
    code = sweep + textwrap.dedent(code)
    assert run(code, LD_PRELOAD=allocator) == "True\n" * 3


@LINUX
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "simple_rnn"])
def test_recurrent_layers_without_memory_raise_and_go_on(cell, dtype, allocator, sweep):
    """Few rows, whose units the threads share, and many; masks and dropout."""
    code = """
    import ml_dtypes
    dtype = ml_dtypes.bfloat16 if DTYPE == "bfloat16" else DTYPE
    forward = getattr(_core, CELL + "_forward")
    backward = getattr(_core, CELL + "_backward")
    gates = {"lstm": 4, "gru": 3, "simple_rnn": 1}[CELL]
    for batch in (2, 40):
        shapes = [(batch, 30, 20), (20, gates * 40), (40, gates * 40)]
        x = [(0.1 * rng.standard_normal(shape)).astype(dtype) for shape in shapes]
        options = {
            "mask": rng.random((batch, 30)) < 0.8,
            "input_dropout": np.ones((1, batch, 20), dtype),
            "return_sequences": True,
        }
        threads = 1
        def call():
            global threads
            threads = min(threads + 1, 60)
            _core.set_num_threads(threads)
            results = forward(*x, **options, keep=True)
            outputs, kept = results[0], results[-1]  # with gaps that hold anything
            return [*results[:-1], *backward(
                *x, outputs, kept, grad_outputs=outputs, **options)]
        print(sweep(call, MemoryError) > 5, sweep(call, MemoryError, 4000, False) > 5)
    """
    code = sweep + f"CELL, DTYPE = {cell!r}, {dtype!r}\n" + textwrap.dedent(code)
    assert run(code, LD_PRELOAD=allocator) == "True True\n" * 2


@LINUX
def test_op_without_memory_is_exhausted_and_goes_on(allocator, sweep):
    """Allocations of ours fail once each, and those of 4,000 bytes or more."""
    code = """
    error = tf.errors.ResourceExhaustedError
    call = lambda: [z.numpy() for z in both()]
    print(sweep(call, error) > 5)
    library = ops.load_op_library()
    none = [tf.zeros([0])] + [tf.zeros([0], "bool")] * 3
    none += [tf.zeros([0], "int32")] * 2 + [tf.zeros([0], "int64")] * 2
    numbers = tf.constant([0.2, 0, 0], "float64")
    def bare():
        seed = tf.zeros([], "int64")
        return library.hw3tf_attention(*x, *none, seed, numbers)
    call = lambda: [z.numpy() for z in bare()]
    print(sweep(call, (error, MemoryError), 4000, False) > 2)
    i = tf.constant(rng.integers(-9, 9, (3, 500, 8)))
    w, u = (tf.constant(rng.integers(-1, 2, s)) for s in ((8, 40), (40, 40)))
    call = lambda: [ops.integer_rnn(i, w, u, overflow="wrap").numpy()]
    print(sweep(call, error) > 2)
    weights = [tf.constant(rng.standard_normal(s), "float32")
               for s in ((3, 40, 8), (8, 120), (40, 120))]
    def layer():
        with tf.GradientTape() as tape:
            tape.watch(weights)
            y = ops.gru(*weights)
        return [y, *tape.gradient(y, weights)]
    print(sweep(lambda: [z.numpy() for z in layer()], error) > 5)
    """
    code = sweep + OP + textwrap.dedent(code)
    assert run(code, LD_PRELOAD=allocator) == "True\n" * 4


@LINUX
def test_compiled_op_without_memory_is_an_error_and_goes_on(allocator, sweep):
    """XLA knows one kind of error of a custom call."""
    code = """
    compiled = tf.function(both, jit_compile=True)
    call = lambda: [z.numpy() for z in compiled()]
    print(sweep(call, tf.errors.InternalError) > 5)
    """
    code = sweep + OP + textwrap.dedent(code)
    assert run(code, LD_PRELOAD=allocator) == "True\n"


@LINUX
def test_every_exception_of_ours_is_an_error_and_the_process_goes_on(allocator):
    """Allocations of ours throw std::length_error, std::runtime_error and something
    that is not a std::exception: none may reach the code of TensorFlow."""
    code = """
    import ctypes
    allocator = ctypes.CDLL(None)
    i, w = tf.ones([2, 5, 3], "int64"), tf.ones([3, 3], "int64")
    x = x[:1] * 3
    module = [z.numpy() for z in x]
    y = tf.ones([2, 5, 3])
    for call in (
        lambda: [ops.dot_product_attention(*x).numpy()],
        lambda: [ops.integer_rnn(i, w, w).numpy()],
        lambda: [ops.simple_rnn(y, y[0, :3], y[0, :3]).numpy()],
        lambda: attention(*module),
    ):
        want = call()
        for what in (1, 2, 3):
            allocator.hw3tf_throw(what)
            found = set()
            for k in (1, 2, 3):
                allocator.hw3tf_fail(ctypes.c_size_t(1), ctypes.c_long(k), 1)
                try:
                    call()
                except Exception as error:
                    found.add(type(error).__name__)
                assert allocator.hw3tf_failed() == 1
                assert equal(call(), want)
            print(*found)
    """
    lines = run(OP + textwrap.dedent(code), LD_PRELOAD=allocator).splitlines()
    op = ["ResourceExhaustedError", "InternalError", "InternalError"]
    assert lines == [*op, *op, *op, "MemoryError", "RuntimeError", "RuntimeError"]


@LINUX
def test_fork_with_a_live_pool():
    """Children of a process whose pool is at work in another thread meanwhile."""
    code = """
    warnings.simplefilter("ignore")
    x = arrays()
    want, done = attention(*x), threading.Event()
    def work():
        while not done.is_set():
            attention(*x)
    _core.set_num_threads(4)
    busy = threading.Thread(target=work)
    busy.start()
    def child(_):
        return equal(attention(*x), want)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        print(all(pool.map_async(child, range(12)).get(timeout=200)))
    done.set()
    busy.join()
    """
    assert run(code) == "True\n"


def test_tf_data_maps_the_op_and_python_workers_call_it():
    """In the threads of tf.data, as a graph and as Python, with a pool at work."""
    code = """
    import tensorflow as tf
    from hw3tf import ops
    x = rng.standard_normal((24, 2, 50, 2, 16)).astype("float32")
    want = [attention(a, a, a)[0] for a in x]
    _core.set_num_threads(4)
    def graph(a):
        return ops.dot_product_attention(a, a, a, scale=0.2)
    def python(a):
        return tf.numpy_function(lambda b: attention(b, b, b)[0], [a], tf.float32)
    for function in (graph, python):
        data = tf.data.Dataset.from_tensor_slices(x)
        got = list(data.map(function, num_parallel_calls=6).as_numpy_iterator())
        print(equal(got, want))
    """
    assert run(code) == "True\nTrue\n"


@LINUX
def test_keras_data_sets_fork_workers_beside_a_live_pool():
    code = """
    import keras
    warnings.simplefilter("ignore")
    x = rng.standard_normal((6, 1, 50, 2, 16)).astype("float32")
    want = [attention(a, a, a)[0] for a in x]
    class Data(keras.utils.PyDataset):
        def __len__(self):
            return len(x)
        def __getitem__(self, i):
            process = np.full((1, 1), os.getpid())
            return ((attention(x[i], x[i], x[i])[0], process),)
    inputs = [keras.Input((50, 2, 16)), keras.Input((1,), dtype="int32")]
    model = keras.Model(inputs, inputs)
    _core.set_num_threads(4)
    attention(*arrays())
    data = Data(workers=2, use_multiprocessing=True)
    got, processes = model.predict(data, verbose=0)
    print(equal(got, np.concatenate(want)), os.getpid() in processes)
    """
    assert run(code) == "True False\n"


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "os._exit(0)"])
def test_interpreter_ends_while_calls_run(end):
    """Daemon threads are in the kernel when the interpreter is done; the work of
    each would take seconds."""
    code = f"""
    big, small = arrays(4, 2000), arrays()
    _core.set_num_threads(4)
    def work(x):
        while True:
            attention(*x)
    for x in (big, small, small):
        threading.Thread(target=work, args=(x,), daemon=True).start()
    time.sleep(0.5)
    print("end", flush=True)
    {end}
    """
    assert run(code) == "end\n"


def test_interpreter_ends_while_tensorflow_runs_the_op():
    code = """
    import tensorflow as tf
    from hw3tf import ops
    x = [tf.constant(a) for a in arrays(4, 1000)]
    def work():
        while True:
            ops.dot_product_attention(*x)
    threading.Thread(target=work, daemon=True).start()
    time.sleep(1)
    print("end", flush=True)
    os._exit(0)
    """
    assert run(code) == "end\n"


@LINUX
def test_many_threads_at_once_and_many_calls():
    """The short form of stress.py; `nox -s fuzz` runs the long one."""
    command = [TESTS / "helpers/stress.py", "--seconds", "1", "--calls", "20000"]
    done = processes.run(command, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert " 0 failed" in done.stdout


@LINUX
def test_control_group_limits_the_number_of_threads():
    """A third of a processor is one thread, of as many processors as there are. Where
    this may not make a group, processors_test.cc alone shows it."""
    roots = [pathlib.Path("/sys/fs/cgroup/cpu"), pathlib.Path("/sys/fs/cgroup")]
    group = next((root for root in roots if root.is_dir()), roots[1]) / "hw3tf_test"
    try:
        group.mkdir()
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text("33000 100000")
        else:
            (group / "cpu.cfs_quota_us").write_text("33000")
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    # The kernels look when they are first called: after the imports, which would take
    # a third of a processor long.
    code = f"""
import os
open({str(group / "cgroup.procs")!r}, "w").write("0")
from hw3tf import _core
print(_core.num_threads())
"""
    try:
        assert run_python(code, HW3TF_NUM_THREADS=None) == "1\n"
    finally:
        group.rmdir()


@LINUX
def test_affinity_is_the_number_of_threads():
    """Of a process that may use one processor, and of one that may use them all. The
    kernels look when they are first called, after the fork."""
    code = """
    attention(*arrays())
    pools = len(os.listdir("/proc/self/task"))
    print(_core.num_threads(), len(os.sched_getaffinity(0)), pools)
    """
    own = {"HW3TF_NUM_THREADS": None}
    pinned = "import os\nos.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    threads, processors, tasks = map(
        int, run_python(pinned + START + textwrap.dedent(code), **own).split()
    )
    assert threads == processors == 1
    threads, processors, more = map(int, run(code, **own).split())
    assert threads == processors == len(os.sched_getaffinity(0))
    assert more - tasks == threads - 1


@LINUX
def test_interrupt_is_honoured_when_the_kernel_returns():
    code = """
    import signal
    # A shell's background processes are told to ignore it, and their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    x = arrays(2, 1500)
    if os.fork() == 0:  # another process sends it
        time.sleep(0.3)
        os.kill(os.getppid(), signal.SIGINT)
        os._exit(0)
    try:
        while True:
            attention(*x)
    except KeyboardInterrupt:
        print(equal(attention(*x), attention(*x)))
    """
    assert run(code) == "True\n"


def test_subinterpreters_are_refused_or_work():
    """NumPy and pybind11 have one state per process: where NumPy loads at all, the
    import of the module is an ImportError or works; nothing crashes."""
    names = ("_interpreters", "_xxsubinterpreters")
    code = f"""
    import importlib
    for name in {names}:
        try:
            interpreters = importlib.import_module(name)
            break
        except ImportError:
            continue
    else:
        print("none")
        sys.exit()
    interpreter = interpreters.create()
    try:
        error = interpreters.run_string(interpreter, "from hw3tf import _core")
        print("refused" if error else "works")
    except Exception as error:
        print("refused")
    print(len(attention(*arrays())))
    """
    first, *rest = run(code).splitlines()
    assert first in ("none", "refused", "works")
    assert first == "none" or rest == ["7"]
