# %% [markdown]
r"""# What does this recurrent net compute?

*One hidden unit, two weights, exact integers: a question answered.*

Run time: 1 min on 2 CPU cores, `--quick` 20 s. Download: none.

**Question 2.** A recurrent net reads a sequence of integers of even length. It has one
hidden unit without bias and without activation. The input weight is 1, the recurrent
weight -1. When the sequence ends, the net puts out the logistic function of 1000 times
its state. Which function of the sequence does it compute?

You will read the answer off a picture, derive it in three lines, and then test it on
many sequences. These are the claims. Each is judged in the cell that tests it.

1. The last state is $h_n = w \sum_t u^{n-t} x_t$, for any integer weights $w$ and $u$.
2. With $w = 1$ and $u = -1$ it is the sum at the even positions minus the sum at the
   odd ones, exactly: for every sequence of length 2, 4 and 6 over -3..3, and for random
   ones of up to 10,000 numbers.
3. The output is 1 where the even positions sum up to more, 0 where they sum up to less,
   and 0.5 in a tie, for the same sequences.
4. With an odd length the two sums change sides, and the answer is the opposite.
5. In float32, a state that grows by 1001 a step is exact up to $2^{24}$ and wrong at
   every later step, while one that grows by 1000 or 1024 is exact for 20,000 steps. For
   one sequence of four float32 numbers, float32 sees a tie that does not exist.
6. An int32 state that overflows raises an error that names the step. With `"wrap"` it
   is what two's complement says, with `"saturate"` the nearest int32.

Run the cells from top to bottom and change what you like. As a program:

```
python tutorials/02_integer_recurrence.py --out runs/integer_recurrence
```
"""

# %%
import os
import subprocess
import sys

backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # or jax, or torch
os.environ |= {"JAX_ENABLE_X64": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
print(f"Loading Keras on {backend} takes a few seconds.", flush=True)
try:
    import hw3tf
except ImportError as error:
    if "ipykernel" not in sys.modules:
        raise SystemExit(f"{error}: pip install '.[tutorials]'") from None
    print("Installing hw3tf takes minutes and needs a C++17 compiler.", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "..[tutorials]"]
    subprocess.run(pip, check=True)
    import hw3tf

# %%
import itertools
import re

import keras
import numpy as np

from hw3tf.course.lesson import Lesson
from hw3tf.course.plots import recurrence as draw

to_numpy = keras.ops.convert_to_numpy  # of tensors of any backend

# %% [markdown]
# ## Settings
#
# Where there are two values, the left one is that of this notebook, the right one that
# of a full run: `lesson.settings(full=True, ...)`, or the program without `--quick`.
# Try a recurrent weight of 1, 0 or 2, run all cells, and read which claims break.
#
# The same cells run with Keras on JAX and on PyTorch: set `KERAS_BACKEND` to `jax` or
# `torch` before the notebook is started.

# %%
lesson = Lesson("02_integer_recurrence", claims=6)
settings = lesson.settings(
    input_weight=1,
    recurrent_weight=-1,
    gain=1000,
    num_sequences=(100_000, 1_000_000),
    longest=10_000,
    seed=0,
)

# %% [markdown]
# ## The net
#
# With the input $x_t$ at step $t$ and the state $h_t$:
#
# $$h_0 = 0, \qquad h_t = w\,x_t + u\,h_{t-1}, \qquad
#   y = \sigma(1000\,h_n) = \frac{1}{1 + e^{-1000\,h_n}}$$
#
# The question leaves two things open. We assume that the first state is 0, and that the
# output is read once, after the last number.
#
# `IntegerRNN` computes the states in integers, without rounding. `Logistic` computes
# the output.


# %%
def net(w, u, **options):
    """One hidden unit: integers (batch, timesteps, 1) -> states (batch, 1)."""
    return hw3tf.layers.IntegerRNN(
        1,
        use_bias=False,
        kernel_initializer=keras.initializers.Constant(w),
        recurrent_initializer=keras.initializers.Constant(u),
        **options,
    )


layer = net(settings.input_weight, settings.recurrent_weight, dtype="int64")
output = hw3tf.layers.Logistic(gain=settings.gain)

# %% [markdown]
# Feed it four numbers. Change them and run the cell again.
#
# **Predict, then run:** the net starts at 0, reads 5, 3, 4, 1, and turns its state
# round before it adds the next number. Where does it end?

# %%
x = [5, 3, 4, 1]
h = layer(np.reshape(x, (1, -1, 1)))
print(f"x = {x}: state h = {int(h[0, 0])}, output y = {float(output(h)[0, 0]):g}")

# %% [markdown]
# ## Unrolled over time
#
# One column per step: inputs below, states above, weights in red. The weights and the
# numbers are read from the layer that you have just run.

# %%
lesson.show("unrolled", draw.unrolled(layer, output, x))

# %% [markdown]
# Follow the 5. It enters with the weight 1 and passes three arrows of weight -1, so it
# counts $(-1)^3 = -1$ times. The 3 passes two arrows and counts $+1$ times, the 4
# counts $-1$ times, the 1 counts $+1$ times. The line below the picture adds them up:
# the round boxes (odd positions) are subtracted, the square ones (even positions)
# added.
#
# ## The answer in three lines
#
# Put the recurrence into itself:
#
# $$\begin{aligned}
# h_n &= w\,x_n + u\,h_{n-1} \\
#     &= w\,x_n + u\,w\,x_{n-1} + u^2\,h_{n-2} \\
#     &= w\,x_n + u\,w\,x_{n-1} + u^2\,w\,x_{n-2} + \dots + u^{n-1}\,w\,x_1
#      = w \sum_{t=1}^{n} u^{n-t}\,x_t
# \end{aligned}$$
#
# The last line is the closed form. In Python, with integers of any size:


# %%
def closed_form(x, w, u):
    """The state after the sequence x."""
    n = len(x)
    return w * sum(u ** (n - t) * int(number) for t, number in enumerate(x, 1))


print(closed_form(x, settings.input_weight, settings.recurrent_weight))

# %% [markdown]
# Does the layer agree for other weights, too? Five pairs of weights, a hundred random
# sequences of ten numbers for each:

# %%
rng, wrong = np.random.default_rng(settings.seed), 0
pairs = [(settings.input_weight, settings.recurrent_weight)]
for w, u in [*pairs, (1, 1), (2, 3), (-1, 0), (1, -2)]:
    numbers = rng.integers(-100, 101, (100, 10))
    states = to_numpy(net(w, u, dtype="int64")(numbers[:, :, None]))[:, 0]
    wrong += sum(
        closed_form(n, w, u) != s for n, s in zip(numbers, states, strict=True)
    )
lesson.claim(1, "states of 500 that differ from the closed form", wrong, "==", 0)

# %% [markdown]
# The formula and the layer give the same integers. Now put in the weights of the
# question. With $w = 1$ and $u = -1$ the sign of $x_t$ is $(-1)^{n-t}$, that of its
# distance from the end. If $n$ is even, the distance is even where the position is
# even. Positions count from 1:
#
# $$h_n = \underbrace{x_2 + x_4 + \dots + x_n}_{E}
#       - \underbrace{(x_1 + x_3 + \dots + x_{n-1})}_{O}
# \qquad
# y = \begin{cases} 1 & E > O \\ 1/2 & E = O \\ 0 & E < O \end{cases}$$
#
# > **Answer to question 2.** The net tells whether the numbers at the even positions
# > sum up to more than those at the odd positions: its state is $E - O$, and its output
# > is 1 if $E > O$ and 0 if $E < O$. In a tie it is 1/2.
#
# The output is so sharp because of the gain. A state of $-1$ gives
# $1/(1 + e^{1000})$, about $10^{-434}$. No float is that small: float64 ends at
# $5 \cdot 10^{-324}$. So every integer but 0 gives exactly 0 or 1.
#
# **Predict, then run:** for which of these three sequences is the output 1/2?


# %%
def even_minus_odd(x):
    """E - O of sequences (batch, timesteps) -> (batch,). Python counts from 0."""
    return x[:, 1::2].sum(axis=1, dtype="int64") - x[:, ::2].sum(axis=1, dtype="int64")


cases = np.array([(3, 5, 1, 4), (3, 5, 4, 2), (5, 3, 4, 1)])
h = layer(cases[:, :, None])
three = to_numpy(output(h))[:, 0].tolist()
for case, state, y in zip(cases.tolist(), to_numpy(h)[:, 0], three, strict=True):
    even, odd = sum(case[1::2]), sum(case[::2])
    print(f"{case}: E = {even}, O = {odd}, state {state}, output {y:g}")
lesson.claim(3, "outputs of the three", three, "==", [1.0, 0.5, 0.0])

# %% [markdown]
# In the second, $5 + 2 = 3 + 4$. A tie belongs to neither class. If you need a yes or a
# no, you decide: `y > 0.5` counts a tie as no, `y >= 0.5` counts it as yes. The net
# itself leaves that open.
#
# ## All short sequences in one picture
#
# There are $7^4 = 2401$ sequences of four numbers from -3 to 3. Each becomes a point at
# $(O, E)$. **Predict, then run:** what does the border between the two answers look
# like?


# %%
def all_sequences(length):
    """Every sequence over -3..3: (7**length, length)."""
    return np.array(list(itertools.product(range(-3, 4), repeat=length)), "int64")


four = all_sequences(4)
outputs = to_numpy(output(layer(four[:, :, None])))[:, 0]
sums = four[:, ::2].sum(axis=1), four[:, 1::2].sum(axis=1)  # O and E
lesson.show("plane", draw.plane(*sums, outputs))

# %% [markdown]
# The border is the diagonal, and the ties lie on it. Nothing but the two sums matters:
# many sequences share a point, and the net gives all of them the same output. There are
# as many above the diagonal as below it, since swapping neighbours swaps $E$ and $O$.
#
# ## Tested: all short sequences
#
# The next function counts the sequences that contradict the answer. `sign=-1` is for
# odd lengths, which come in a moment.


# %%
def count_wrong(x, sign=1):
    """How many states and how many outputs contradict `sign` times E - O."""
    wanted = sign * even_minus_odd(x)
    try:
        states = layer(x[:, :, None])
    except OverflowError:  # with other weights the states may not fit into 64 bits
        return np.array([len(x), len(x)])
    wrong = to_numpy(states)[:, 0] != wanted
    wrong_outputs = to_numpy(output(states))[:, 0] != (np.sign(wanted) + 1) / 2
    return np.array([wrong.sum(), wrong_outputs.sum()])


# %%
short = sum(count_wrong(all_sequences(n)) for n in (2, 4, 6))
num_short = 7**2 + 7**4 + 7**6
lesson.claim(2, f"wrong states of {num_short:,} short sequences", short[0], "==", 0)
lesson.claim(3, f"wrong outputs of {num_short:,} short sequences", short[1], "==", 0)

# %% [markdown]
# ## Why the length must be even
#
# **Predict, then run:** the net reads one number, 5. What does it answer? And what is
# its state after 5, 3, 4?

# %%
for sequence in ([5], [5, 3, 4]):
    h = layer(np.reshape(sequence, (1, -1, 1)))
    print(f"{sequence}: state {int(h[0, 0])}, output {float(output(h)[0, 0]):g}")
turned = sum(count_wrong(all_sequences(n), sign=-1) for n in (1, 3, 5))
num_odd = 7 + 7**3 + 7**5
lesson.claim(4, f"states of {num_odd:,} that are not O - E", turned[0], "==", 0)
lesson.claim(4, f"outputs of {num_odd:,} that are not opposite", turned[1], "==", 0)

# %% [markdown]
# The signs are counted from the end. With an odd length the last position is odd, so
# the odd positions are added and the even ones subtracted: $h_n = O - E$. A net that
# must work for both kinds of length would have to know the length.
#
# ## Tested: long sequences at random
#
# Half of the sequences have fewer than 150 numbers, and the longest have 10,000. Their
# numbers are bytes, from -128 to 127.

# %%
rng, random, batch_size = np.random.default_rng(settings.seed), np.zeros(2, int), 1000
num_batches = max(1, settings.num_sequences // batch_size)
pairs = np.exp(rng.uniform(0, np.log(max(1, settings.longest // 2)), num_batches))
lengths = [*(2 * pairs[1:].astype(int)), 2 * max(1, settings.longest // 2)]
for length in lesson.progress(lengths, "random sequences"):
    numbers = np.frombuffer(rng.bytes(batch_size * length), "int8")
    random += count_wrong(numbers.reshape(batch_size, length))
num_random = num_batches * batch_size
lesson.claim(2, f"wrong states of {num_random:,} random sequences", random[0], "==", 0)
lesson.claim(3, f"wrong outputs of {num_random:,} random sequences", random[1], "==", 0)
lesson.claim(2, "length of the longest", max(lengths), "==", 10_000)

# %% [markdown]
# The derivation needs no such test. The layer does: a formula cannot round or overflow,
# but a program can. What happens when it does is the rest of this lesson. From here on
# the weights are 1 and -1, whatever you have set above.
#
# ## Going further: what floats get wrong
#
# A float32 has 24 binary digits. It holds every integer up to $2^{24} =
# 16{,}777{,}216$, beyond it only the even ones, beyond $2^{25}$ only the multiples of
# 4, and so on.
#
# The sequence $-s, s, -s, s, \dots$ makes the state grow by $s$ a step:
# $h_t = \pm s\,t$. Keras's `SimpleRNN` reads it in float32, `IntegerRNN` in int64.
# **Predict, then run:** a state grows by 1001 a step. At which step does float32 make
# its first mistake? Is a later step right again?


# %%
def alternating(step, timesteps):
    """The sequence -step, step, -step, ...: (1, timesteps)."""
    return np.where(np.arange(timesteps) % 2, step, -step)[None].astype("int64")


def exact_states(x):
    """The states at every step, in int64: (timesteps,)."""
    return net(1, -1, dtype="int64", return_sequences=True)(x[:, :, None])[0, :, 0]


simple = keras.layers.SimpleRNN(1, activation=None, return_sequences=True)
float_net = keras.Sequential([keras.Input((None, 1)), simple])
simple.set_weights([np.ones((1, 1)), -np.ones((1, 1)), np.zeros(1)])


# %%
def float_states(x):
    """The states at every step, in float32: (timesteps,)."""
    return float_net.predict(x[:, :, None].astype("float32"), verbose=0)[0, :, 0]


errors = {}
for step in (1001, 1000, 1024, 999):
    growing = alternating(step, 20_000)
    exact = to_numpy(exact_states(growing))
    errors[step] = float_states(growing).astype("float64") - exact
    share = np.mean(errors[step][np.abs(exact) > 2**24] != 0)
    print(f"steps of {step}: {share:.2%} of the states beyond 2**24 are wrong")
first_wrong = int(np.argmax(errors[1001] != 0)) + 1
print(f"with steps of 1001 the first wrong state is number {first_wrong:,}")
growing = to_numpy(exact_states(alternating(1001, 20_000)))
lesson.show("floats", draw.floats(growing, errors))

# %% [markdown]
# Step 16,761 is the first whose state, $16{,}761 \cdot 1001$, is beyond $2^{24}$, and
# it is odd: there is no such float32. The rounded state is the start of the next step,
# so the error stays and grows.
#
# Not every large state is wrong. A state that grows by 1000 is a multiple of 8 at every
# step, and $1000\,t = 8 \cdot 125\,t$ fits into 24 digits as long as $125\,t$ does. For
# steps of 1024 that is $2^{10}\,t$, exact for as long as $t$ is. With steps of 999 one
# of the states beyond $2^{24}$ happens to be right: so "wrong from there on" is true of
# 1001 and not of every step.

# %%
beyond = np.abs(growing) > 2**24
within, after = errors[1001][~beyond], errors[1001][beyond]
lesson.claim(
    5, "steps of 1001, wrong states within 2**24", np.sum(within != 0), "==", 0
)
lesson.claim(5, "steps of 1001, right states beyond 2**24", np.sum(after == 0), "==", 0)
for step in (1000, 1024):
    wrong = np.sum(errors[step] != 0)
    lesson.claim(5, f"steps of {step}, wrong states of 20,000", wrong, "==", 0)

# %% [markdown]
# Nor does it take a long sequence. **Predict, then run:** every number of
# $(0,\ 2^{24},\ -1,\ -2^{24})$ is a float32. Which sum is larger, and what does float32
# say?

# %%
large = np.array([[0, 2**24, -1, -(2**24)]])
exact_four, float_four = int(exact_states(large)[-1]), float(float_states(large)[-1])
print(f"exact states:   {to_numpy(exact_states(large)).tolist()}")
print(f"float32 states: {[int(h) for h in float_states(large)]}")
lesson.claim(5, "E - O of the four numbers, exact", exact_four, "==", 1)
lesson.claim(5, "the same in float32", float_four, "==", 0.0)

# %% [markdown]
# The even positions sum up to 0, the odd ones to -1: $E > O$ by 1. In float32 the state
# of step 3, $-2^{24} - 1$, becomes $-2^{24}$. The 1 is lost, and the net reports a tie.
# It gives no sign of doubt.
#
# ## Going further: where integers end
#
# An int32 ends at $2^{31} - 1$. What comes after it has to be decided: `IntegerRNN`
# raises an error by default, and with `overflow="wrap"` or `"saturate"` it goes on.
# The state below grows by $10^8$ a step. **Predict, then run:** where do the three
# curves part?


# %%
def int32_states(x, overflow):
    """The states at every step, in int32: (timesteps,)."""
    small = net(1, -1, dtype="int32", overflow=overflow, return_sequences=True)
    return to_numpy(small(x[:, :, None].astype("int32")))[0, :, 0]


steep = alternating(10**8, 40)
by_policy = {"exact": to_numpy(exact_states(steep))}
by_policy |= {policy: int32_states(steep, policy) for policy in ("wrap", "saturate")}
lesson.show("overflow", draw.policies(by_policy))

# %% [markdown]
# Up to step 21 all three agree. Then the wrapped state jumps to the other end of the
# range and has the wrong sign: the net would give the opposite answer. The saturated
# state stays at the end of the range. Here it keeps the sign, but it no longer knows
# how far beyond it was. The default stops:

# %%
message = "no error"
try:
    int32_states(steep, "raise")
except OverflowError as error:
    message = re.search(r"the recurrence .* timestep \d+", str(error))[0]
print(message)
first = np.argmax(np.abs(by_policy["exact"]) > 2**31 - 1)
named = message.rpartition(" ")[2]
lesson.claim(6, "timestep that the error names, from 0", named, "==", str(first))

# %% [markdown]
# Programs count from 0, so timestep 21 is the 22nd step. The other two policies are
# judged against Python's integers, which do not overflow:

# %%
wrapped = (by_policy["exact"] + 2**31) % 2**32 - 2**31
wrong = np.sum(by_policy["wrap"] != wrapped)
lesson.claim(6, "wrapped states that are not two's complement", wrong, "==", 0)
state, nearest = 0, []
for number in steep[0].tolist():
    state = min(max(number - state, -(2**31)), 2**31 - 1)
    nearest.append(state)
wrong = np.sum(by_policy["saturate"] != nearest)
lesson.claim(6, "saturated states that are not the nearest", wrong, "==", 0)

# %% [markdown]
# ## All results

# %%
lesson.finish(
    sequences=num_short + num_odd + num_random,
    wrong=int(sum(map(max, (short, turned, random)))),
    longest=max(lengths),
    float32_wrong_from_step=first_wrong,
    int32_error=message,
)

# %% [markdown]
# ## Conclusion
#
# The net compares two sums. Three lines of substitution prove it, and no sequence
# contradicted it. The proof is about integers, and a program computes with what it has:
# a float32 state counts up to $2^{24}$ and may then be wrong without a sign of it; an
# int32 state ends at $2^{31} - 1$. Integers that raise an error at their end never give
# a wrong answer.
#
# ## Exercises
#
# 1. Which weights make a net that tells whether the *last* number of a sequence is
#    positive? Which make one that tells whether the sum of all numbers is? Set them
#    above, write the closed form in place of `even_minus_odd`, and run the tests.
# 2. With $u = 2$ the net reads binary digits. For a sequence of ones, at which length
#    does an int64 state overflow, and at which does a float32 state stop being exact?
# 3. Let a `keras.layers.SimpleRNN` of one linear unit learn the alternating sum from
#    examples, then convert it by `IntegerRNN.from_simple_rnn`. How close to 1 and -1
#    must its weights be to round to them, and what would 0.999 do to long sequences?
#
# ## References
#
# - J. L. Elman, [Finding structure in time](https://doi.org/10.1207/s15516709cog1402_1),
#   1990: the recurrent net of one hidden layer.
# - D. Goldberg, [What every computer scientist should know about floating-point
#   arithmetic](https://doi.org/10.1145/103162.103163), 1991: why $2^{24}$.
# - G. E. Blelloch, [Prefix sums and their
#   applications](https://www.cs.cmu.edu/~guyb/papers/Ble93.pdf), 1993: a linear
#   recurrence cut over time, as the kernel does with long sequences.
