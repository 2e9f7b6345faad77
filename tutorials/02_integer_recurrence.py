# %% [markdown]
r"""# What does this recurrent net compute?

*One hidden unit, three weights, exact integers: a question answered.*

Run time: 30 s on 2 CPU cores, `--quick` 10 s. Download: none.

A recurrent net reads a sequence of integers of even length. It has one hidden unit
without bias and activation, the input weight is 1, the recurrent weight -1. When the
sequence ends, it puts out the logistic function of 1000 times its state. Which
function of the sequence is that?

Claims, checked by `check_claims()` when the script ends:

1. The state is the sum at the even positions minus the sum at the odd ones: for every
   sequence of length 2, 4 and 6 over -3..3, and for a million random ones of up to
   10,000 numbers (`--quick`: twenty thousand), exactly.
2. The output is 1 where the even positions sum up to more, 0 where they sum up to
   less, and 0.5 in a tie, for the same sequences.
3. With an odd length the state is the other difference: the answer is turned round.
4. In float32 the same net is right as long as its state stays within $2^{24}$; from the
   first state beyond on it is wrong, and there is a sequence of four numbers, each of
   them a float32, for which it sees a tie that is none.
5. An int32 state that overflows raises and names the step; wrapped or saturated on
   demand, it is what two's complement or the nearest number says.

```
python tutorials/02_integer_recurrence.py --out runs/integer_recurrence
```
"""

# %%
import os

# Before Keras starts a backend that may not even be installed.
if os.environ.get("KERAS_BACKEND", "") not in ("", "tensorflow"):
    os.write(2, b"error: this program needs KERAS_BACKEND=tensorflow\n")
    raise SystemExit(2)

import itertools
import re
from dataclasses import dataclass, replace

import keras
import numpy as np

import hw3tf
from hw3tf.course import plots
from hw3tf.course.tutorial import argument_parser, check_start, claim, conclude, run

EXAMPLE = (5, 3, 4, 1)


@dataclass(frozen=True)
class Settings:
    """What can be changed; the defaults meet the claims."""

    num_sequences: int = 1_000_000
    longest: int = 10_000
    batch_size: int = 1000
    seed: int = 0


QUICK = Settings(num_sequences=20_000)


# %% [markdown]
# ## The net
#
# With the input $x_t$ at step $t$ and the state $h_t$, starting from $h_0 = 0$:
#
# $$h_t = w\,x_t + u\,h_{t-1}, \qquad w = 1, \quad u = -1$$
#
# $$y = \sigma(1000\,h_n) = \frac{1}{1 + e^{-1000\,h_n}}$$
#
# `IntegerRNN` computes the first line without rounding, `Logistic` the second. Its
# gain of 1000 is so steep that every integer but 0 gives a flat 0 or 1: what is missing
# is $e^{-1000}$ or less, some $10^{-434}$, and no float is that small.


# %%
def recurrent_layer(**options):
    """The hidden unit: integers (batch, timesteps, 1) -> states (batch, 1)."""
    return hw3tf.layers.IntegerRNN(
        1,
        use_bias=False,
        kernel_initializer="ones",
        recurrent_initializer=keras.initializers.Constant(-1),
        **options,
    )


def build_model():
    """The net: integers (batch, timesteps, 1) -> [states, outputs], each (batch, 1)."""
    inputs = keras.Input((None, 1), dtype="int64", name="sequence")
    states = recurrent_layer(dtype="int64")(inputs)
    return keras.Model(inputs, [states, hw3tf.layers.Logistic(gain=1000)(states)])


# %% [markdown]
# ## The answer on paper
#
# Put the recurrence into itself, from the end:
#
# $$h_n = x_n - h_{n-1} = x_n - x_{n-1} + h_{n-2} = \dots
#       = \sum_{t=1}^{n} (-1)^{n-t}\,x_t$$
#
# The sign is that of the distance from the end. If $n$ is even, a distance is even
# where the position is:
#
# $$h_n = \underbrace{x_2 + x_4 + \dots + x_n}_{E}
#       - \underbrace{(x_1 + x_3 + \dots + x_{n-1})}_{O}$$
#
# So the output compares two sums:
#
# $$y = \begin{cases} 1 & E > O \\ 1/2 & E = O \\ 0 & E < O \end{cases}$$
#
# **The net tells whether the numbers at even positions sum up to more than those at
# odd ones**, and nothing else: sequences with the same $E - O$ are one to it.
#
# If $n$ is odd, the positions change sides: $h_n = O - E$, and the net says the
# opposite of what it says for even lengths. That the length is even is not decoration.


# %%
def even_minus_odd(x):
    """The closed form; positions count from 1. (batch, timesteps) -> (batch,)."""
    return x[:, 1::2].sum(axis=1, dtype="int64") - x[:, ::2].sum(axis=1, dtype="int64")


def answers(difference):
    """1, 0.5 or 0 for a positive, zero or negative difference."""
    return (np.sign(difference) + 1) / 2


# %% [markdown]
# ## The answer, checked
#
# Small sequences: all of them. Long ones: at random, as many of length 10 to 100 as
# of 1000 to 10,000. Their numbers are bytes, -128 to 127, which the kernel reads as
# they are.


# %%
def count_wrong(x, layer, sign=1):
    """How many sequences (batch, timesteps) contradict `sign` times the closed form,
    in the state or in the output."""
    states = layer(x[:, :, None])
    outputs = hw3tf.layers.Logistic(gain=1000)(states)
    want = sign * even_minus_odd(x)
    right = (states[:, 0] == want) & (outputs[:, 0] == answers(want))
    return int(np.sum(~right.numpy()))


def check_small(lengths, sign=1):
    """All sequences over -3..3: (how many there are, how many are wrong)."""
    layer, number, wrong = recurrent_layer(dtype="int64"), 0, 0
    for length in lengths:
        x = np.array(list(itertools.product(range(-3, 4), repeat=length)), "int64")
        number, wrong = number + len(x), wrong + count_wrong(x, layer, sign)
    return number, wrong


def check_random(settings):
    """Random sequences of even length: (how many, how many are wrong, the longest)."""
    rng = np.random.default_rng(settings.seed)
    layer, wrong, size = recurrent_layer(dtype="int64"), 0, settings.batch_size
    num_batches = settings.num_sequences // size
    lengths = np.exp(rng.uniform(0, np.log(settings.longest // 2), num_batches))
    lengths = [*(2 * lengths[1:].astype(int)), settings.longest]
    for length in lengths:
        x = np.frombuffer(rng.bytes(size * length), "int8").reshape(size, length)
        wrong += count_wrong(x, layer)
    return num_batches * size, wrong, max(lengths)


# %% [markdown]
# ## What floats get wrong
#
# A float32 has 24 binary digits: it holds every integer up to $2^{24}$ and beyond it
# only the even ones, then the multiples of 4, and so on. Keras's own `SimpleRNN` with
# our weights reads $x_t = (-1)^t \cdot 1001$, which makes $h_t = (-1)^t \cdot 1001\,t$:
# at step 16,761 that is beyond $2^{24}$ and odd.
#
# Nor do large inputs have to be many. Of $x = (0,\ 2^{24},\ -1,\ -2^{24})$ every
# number is a float32, but the state $-2^{24} - 1$ at step 3 is none. It becomes
# $-2^{24}$, and what should be $h_4 = 1$ is 0: a tie, for the float.


# %%
def float_states(x):
    """The states of the same net in float32, by `keras.layers.SimpleRNN`."""
    layer = keras.layers.SimpleRNN(1, activation=None, return_sequences=True)
    layer.build((None, None, 1))
    layer.set_weights([np.ones((1, 1)), -np.ones((1, 1)), np.zeros(1)])
    model = keras.Sequential([keras.Input((None, 1)), layer])
    return model.predict(x[:, :, None].astype("float32"), verbose=0)[:, :, 0]


def alternating(step, timesteps):
    """The sequence -step, step, -step, ...: its state grows by `step`."""
    return np.where(np.arange(timesteps) % 2, step, -step)[None].astype("int64")


def compare_with_floats(timesteps=20_000):
    """Exact and float32 states of a growing sequence, and of four numbers."""
    x = alternating(1001, timesteps)
    layer = recurrent_layer(dtype="int64", return_sequences=True)
    exact = layer(x[:, :, None])[0, :, 0].numpy()
    error = float_states(x)[0].astype("float64") - exact
    four = np.array([[0, 2**24, -1, -(2**24)]])
    states = [int(layer(four[:, :, None])[0, -1, 0]), float(float_states(four)[0, -1])]
    return exact, error, states


# %% [markdown]
# ## When even integers end
#
# An int32 reaches from $-2^{31}$ to $2^{31} - 1$. What happens beyond is said, not
# left to chance: `overflow="raise"`, the default, `"wrap"` or `"saturate"`. Here the
# state grows by $10^8$ a step. The first that does not fit is that of the 22nd step,
# timestep 21 for a program, which counts from 0.


# %%
def compare_policies(timesteps=40):
    """States of an int32 layer that overflows under every policy, and the error."""
    x = alternating(10**8, timesteps)[:, :, None]
    options = {"return_sequences": True}
    states = {"exact": recurrent_layer(dtype="int64", **options)(x)[0, :, 0].numpy()}
    for overflow in ("wrap", "saturate"):
        layer = recurrent_layer(dtype="int32", overflow=overflow, **options)
        states[overflow] = layer(x.astype("int32"))[0, :, 0].numpy()
    try:
        recurrent_layer(dtype="int32", **options)(x.astype("int32"))
        message = ""
    except OverflowError as error:
        message = re.search(r"the recurrence .* timestep \d+", str(error))[0]
    return states, message


# %% [markdown]
# ## Pictures


# %%
def draw_unrolled(x, path):
    """The net, one column per step, with its weights and the numbers of `x`."""
    figure, axes = plots.new_figure(1, 1, (11, 3.9))
    axis, last = axes[0, 0], len(x)

    def node(place, text, color, shape="round"):
        box = {"boxstyle": f"{shape},pad=0.5", "fc": color, "ec": "black"}
        axis.text(*place, text, ha="center", va="center", fontsize=12, bbox=box)

    def arrow(start, end, weight, offset):
        gap = 20 if start[0] == end[0] else 36  # in points: half a box
        style = {"arrowstyle": "-|>", "fc": "black", "shrinkA": gap, "shrinkB": gap}
        axis.annotate("", end, start, arrowprops=style)
        middle = np.add(start, end) / 2 + offset
        axis.text(*middle, weight, ha="center", va="center", fontsize=11, color="C3")

    state = 0
    node((0, 1), "$h_0 = 0$", "white")
    for t, value in enumerate(x, 1):
        state = value - state
        look = ("#cfe3f5", "round") if t % 2 else ("#fbe0b8", "square")
        node((t, 0), f"$x_{t} = {value}$", *look)
        node((t, 1), f"$h_{t} = {state}$", "#e8e8e8")
        arrow((t, 0), (t, 1), "1", (0.07, 0))
        arrow((t - 1, 1), (t, 1), "$-$1", (0, 0.09))
    node((last + 1.15, 1), f"$y = {answers(state):g}$", "#d5ecd4")
    arrow((last, 1), (last + 1.15, 1), r"$\sigma(1000\,h)$", (0.05, 0.13))
    even, odd = sum(x[1::2]), sum(x[::2])
    text = (
        f"even positions (square): {' + '.join(map(str, x[1::2]))} = {even}      "
        f"odd positions (round): {' + '.join(map(str, x[::2]))} = {odd}      "
        f"${even} - {odd} = {state}$"
    )
    axis.text((last + 1) / 2, -0.5, text, ha="center", fontsize=11)
    axis.set(xlim=(-0.5, last + 1.7), ylim=(-0.65, 1.45), title="The net, unrolled")
    axis.axis("off")
    plots.save_figure(figure, path)


def draw_floats(exact, error, path):
    figure, axes = plots.new_figure(1, 2, (10, 3.8))
    left, right = axes[0]
    even = np.arange(2, len(exact) + 1, 2)
    left.plot(even, exact[1::2] / 1e6, label="exact state")
    left.axhline(2**24 / 1e6, color="C3", ls="--", label="$2^{24}$")
    left.set(
        ylabel="last state, in millions", title="A state that grows by 1001 a step"
    )
    right.plot(even, error[1::2])
    right.set(title="What float32 makes of it", ylabel="float32 minus exact state")
    beyond = np.argmax(np.abs(exact) > 2**24)
    right.axvline(beyond, color="C3", ls="--", label="beyond $2^{24}$")
    for axis in (left, right):
        axis.set(xlabel="length of the sequence (even)", xticks=range(0, 20_001, 5000))
        axis.grid(alpha=0.3)
        axis.legend()
    plots.save_figure(figure, path)


def draw_policies(states, path):
    figure, axes = plots.new_figure(1, 1, (8, 4.2))
    axis = axes[0, 0]
    even = np.arange(2, len(states["exact"]) + 1, 2)
    for name, style in (("exact", "k:"), ("wrap", "C1s-"), ("saturate", "C0o-")):
        axis.plot(even, states[name][1::2] / 1e9, style, ms=4, label=name)
    for limit, name in ((-(2**31), "$-2^{31}$"), (2**31 - 1, "$2^{31} - 1$")):
        axis.axhline(limit / 1e9, color="C3", ls="--", lw=0.8)
        axis.text(2, limit / 1e9 + 0.1, name, color="C3")
    length = 1 + np.argmax(np.abs(states["exact"]) > 2**31 - 1)
    axis.axvline(length, color="C2", ls="-.", label="raise: OverflowError from here on")
    axis.set(xlabel="length of the sequence (even)", ylabel="last state, in $10^9$")
    axis.set(title="A state that does not fit into int32, by policy")
    axis.grid(alpha=0.3)
    axis.legend()
    plots.save_figure(figure, path)


# %% [markdown]
# ## The claims


# %%
def check_claims(results):
    """Raises AssertionError if the run contradicts the text above."""
    counted = "sequences, and how many are wrong"
    claim(f"short {counted}", results["small"], "==", (7**2 + 7**4 + 7**6, 0))
    claim(f"short odd {counted}", results["odd"], "==", (7 + 7**3 + 7**5, 0))
    number, wrong, longest = results["random"]
    claim("random sequences", number, ">=", 20_000)
    claim("random sequences that are wrong", wrong, "==", 0)
    claim("length of the longest", longest, "==", 10_000)
    claim("outputs of the three examples", results["outputs"], "==", [1.0, 0.5, 0.0])
    exact, error = results["float states"]
    beyond = np.argmax(np.abs(exact) > 2**24)
    claim("float32 states that err within 2**24", np.sum(error[:beyond] != 0), "==", 0)
    claim("float32 states right beyond it", np.sum(error[beyond:] == 0), "==", 0)
    claim("state after four numbers, exact and float", results["four"], "==", [1, 0.0])
    states, message = results["policies"]
    first = np.argmax(np.abs(states["exact"]) > 2**31 - 1)
    named = message.rpartition(" ")[2]
    claim("timestep that the int32 error names", named, "==", str(first))
    wrapped = (states["exact"] + 2**31) % 2**32 - 2**31
    differ = np.sum(states["wrap"] != wrapped)
    claim("wrapped states that are not two's complement", differ, "==", 0)
    state, saturated = 0, []
    for x in alternating(10**8, 40)[0]:
        state = min(max(int(x) - state, -(2**31)), 2**31 - 1)
        saturated.append(state)
    found = states["saturate"].tolist()
    claim("saturated states", found, "==", saturated)
    print("All claims hold.")


# %% [markdown]
# ## Conclusion
#
# The net compares two sums: three lines of substitution say so, and a million
# sequences do not object. They ask the program that runs, not the formula, and programs
# have what formulas leave out. A float32 state counts up to $2^{24}$ and then answers
# wrongly, with the same confidence; an int32 state ends at $2^{31} - 1$, and what comes
# after it has to be decided. Integers with an error in place of a wrong number decide
# it for you.
#
# ## Exercises
#
# 1. Which weights make a net that tells whether the *last* number of a sequence is
#    positive? Which make one that tells whether the sum of all of them is? Check both
#    as the net above was checked.
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


# %%
def show_cases():
    """The net on three sequences, one of each answer; returns the outputs."""
    cases = np.array([(3, 5, 1, 4), (3, 5, 4, 2), EXAMPLE])[:, :, None]
    states, outputs = build_model().predict(cases, verbose=0)
    for x, h, y in zip(cases[:, :, 0], states[:, 0], outputs[:, 0], strict=True):
        even, odd = x[1::2].sum(), x[::2].sum()
        print(f"{x.tolist()}: E = {even}, O = {odd}, h = {h}, y = {y}")
    return outputs[:, 0].tolist()


def main(argv=None):
    parser = argument_parser(
        "Find out which function a small recurrent net computes.",
        out="runs/integer_recurrence",
        quick="fewer random sequences: 10 seconds",
        seed="of the random sequences",
    )
    args = parser.parse_args(argv)
    settings = replace(QUICK if args.quick else Settings(), seed=args.seed)
    check_start(args)

    results = {"outputs": show_cases(), "small": check_small((2, 4, 6))}
    print("{:,} of even length over -3..3: {} wrong".format(*results["small"]))
    results["odd"] = check_small((1, 3, 5), sign=-1)
    print("{:,} of odd length, signs turned round: {} wrong".format(*results["odd"]))
    results["random"] = check_random(settings)
    text = "{:,} random ones of bytes: {} wrong, the longest has {:,} numbers"
    print(text.format(*results["random"]))

    exact, error, results["four"] = compare_with_floats()
    results["float states"] = exact, error
    first_wrong = int(np.argmax(error != 0)) + 1
    print(f"float32 is wrong from step {first_wrong:,} on")
    print("after the four numbers: exactly {}, in float32 {}".format(*results["four"]))
    results["policies"] = compare_policies()
    print(f"int32: {results['policies'][1]}")

    draw_unrolled(EXAMPLE, args.out / "unrolled.png")
    draw_floats(exact, error, args.out / "floats.png")
    draw_policies(results["policies"][0], args.out / "overflow.png")
    print(f"Pictures are in {args.out}")
    number, wrong, longest = results["random"]
    summary = {
        "sequences": results["small"][0] + results["odd"][0] + number,
        "wrong": results["small"][1] + results["odd"][1] + wrong,
        "longest": longest,
        "float32_wrong_from_step": first_wrong,
        "int32_error": results["policies"][1],
    }
    conclude("02_integer_recurrence", summary, lambda: check_claims(results), args)
    return results


if __name__ == "__main__":
    run(main)
