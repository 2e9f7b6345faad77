# %% [markdown]
r"""# CNN or RNN for images?

*An image is a grid of pixels, and it is a sequence of rows. Which net should read it?*

Run time: 18 min on 2 CPU cores, `--quick` 1.5 min. Download: 30 MB or none.

Three nets learn to name the garments of Fashion-MNIST: a convolutional net (CNN), a
recurrent net (GRU) that reads an image row by row, and a bidirectional GRU, which reads
it from both ends: what does a net gain that need not go by the last state alone, and
what does it lose? They have equally many parameters and train for equally many seconds.
Then each shows what it can do and the other cannot, or not as well.

Claims, checked by `check_claims()` when the script ends:

1. With parameters equal within 5 % and equal seconds of training, the CNN names 0.92 of
   the test images, the better RNN 0.88.
2. CNN: shifting an image by 8 pixels shifts the features by 1 and changes them by less
   than 1e-5, wherever no border is near. Images shifted by 4 pixels sideways: the CNN
   is right more often than the GRU by at least 0.1.
3. For images of 224 rows, a training step of the CNN takes at most half the time of a
   GRU that TensorFlow computes row by row. A kernel that does all rows in one call at
   least halves the time of that GRU.
4. CNN: trained on the fewest images, it is right at least as often as the GRU.
5. GRU: it answers after every row and carries the same few numbers from row to row;
   read so, it says what it says of the image at once. After 14 of 28 rows it is right
   in half the cases, and more often than the CNN on the same rows.
6. GRU: no number of rows needs another parameter. The same holds for the CNN, but not
   with a dense read-out, which refuses every height but its own.

```
python tutorials/01_cnn_vs_rnn.py --out runs/cnn_vs_rnn
```
"""

# %%
import os

# Before Keras starts a backend that may not even be installed.
if os.environ.get("KERAS_BACKEND", "") not in ("", "tensorflow"):
    os.write(2, b"error: this program needs KERAS_BACKEND=tensorflow\n")
    raise SystemExit(2)

from dataclasses import dataclass, replace

import keras
import numpy as np

import hw3tf
from hw3tf.course import tutorial
from hw3tf.course.data import load_images, shift_images, stretch_images
from hw3tf.course.plots import plot_confusion, plot_panels
from hw3tf.course.training import TimeBudget, seconds_per_step
from hw3tf.course.tutorial import claim, conclude, number, run


@dataclass(frozen=True)
class Settings:
    """What can be changed; the defaults meet the claims."""

    seconds: float = 240.0  # of training, for each net
    short_seconds: float = 20.0  # the same, on few images
    step_heights: tuple = (14, 28, 56, 112, 224)  # rows of images in timed steps
    few_images: tuple = (250, 1000, 4000)
    batch_size: int = 128
    num_images: int | None = None  # of the training set; None = all
    num_tested: int | None = None  # of the test set
    num_probed: int = 2000  # test images that are shifted, cut and stretched


QUICK = Settings(
    seconds=6,
    short_seconds=2,
    step_heights=(14, 224),
    few_images=(100, 400),
    batch_size=64,
    num_images=6000,
    num_tested=1000,
    num_probed=400,
)
HEIGHTS = (14, 21, 28, 35, 42, 49, 56)

# %% [markdown]
# ## The nets
#
# Images are arrays of rows, 28 numbers each. Every net returns *readings*: scores of
# the ten classes, `(batch, readings, 10)`. The CNN and the bidirectional GRU give one
# per image, the GRU one after every row: the same read-out looks at its state each
# time. The CNN's read-out is the mean over all positions. A dense read-out, which many
# CNNs have, is here for comparison. `hw3tf.layers.GRU` is Keras's layer with the loop
# over the rows in one call of a C++ kernel.


# %%
def build_cnn(readout="mean", height=None):
    """Four convolutions. Images (batch, height, width) -> readings (batch, 1, 10)."""
    layers = keras.layers
    images = keras.Input((height, 28 if height else None), name="images")
    x = layers.Rescaling(1 / 255)(images)[..., None]
    for filters, halve in ((16, True), (48, True), (96, True), (112, False)):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        if halve:
            x = layers.MaxPooling2D(padding="same")(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    if readout == "mean":
        x = layers.GlobalAveragePooling2D(name="mean")(x)
    else:
        x = layers.Flatten()(x)
    x = layers.Dropout(0.1)(x)
    return keras.Model(images, layers.Dense(10, name="readout")(x)[:, None])


def build_gru(units=123, layer=hw3tf.layers.GRU):
    """Two GRUs. Images (batch, rows, 28) -> readings (batch, rows, 10)."""
    images = keras.Input((None, 28), name="images")
    x = keras.layers.Rescaling(1 / 255)(images)
    for _ in range(2):
        x = layer(units, return_sequences=True)(x)
        x = keras.layers.Dropout(0.1)(x)
    return keras.Model(images, keras.layers.Dense(10, name="readout")(x))


def build_bidirectional(units=142):
    """A GRU down, one up. Images (batch, rows, 28) -> readings (batch, 1, 10)."""
    images = keras.Input((None, 28), name="images")
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.Bidirectional(hw3tf.layers.GRU(units))(x)
    x = keras.layers.Dropout(0.1)(x)
    return keras.Model(images, keras.layers.Dense(10, name="readout")(x)[:, None])


NETS = {"CNN": build_cnn, "GRU": build_gru, "bidirectional": build_bidirectional}

# %% [markdown]
# ## Training for equal times
#
# `TimeBudget` ends training when the seconds are over and lets the learning rate rise
# and fall with the clock, so no net is stopped in the middle of its schedule. The GRU
# is asked after every row; the loss weighs the answer after row $t$ by $t^2$, because
# with few rows it can only guess. A garment seen in a mirror is a garment: the CNN
# trains on the mirror images, too, and when it is tested, it looks at both. In the RNNs
# left and right share no weight; they would have to learn every garment twice, which
# took more time than there is. Digits are not mirrored.

# %%
LEARNING_RATE = 3e-3


def loss_of_readings(labels, logits):
    """Cross-entropy with targets smoothed by 0.1, later readings weighted more."""
    ops = keras.ops
    targets = 0.9 * ops.one_hot(ops.reshape(labels, [-1]), 10) + 0.01
    each = -ops.sum(targets[:, None] * ops.log_softmax(logits), axis=-1)
    weights = (ops.arange(ops.shape(logits)[1], dtype="float32") + 1) ** 2
    return ops.sum(each * weights, axis=1) / ops.sum(weights)


def predict(net, images, mirror=False):
    """Classes, one per reading: (images, readings); by image and mirror image."""
    logits = net.predict(images, batch_size=500, verbose=0)
    if mirror:
        logits = logits + net.predict(images[:, :, ::-1], batch_size=500, verbose=0)
    return logits.argmax(axis=-1)


def accuracy(net, images, labels, mirror=False):
    """Of the last reading."""
    return float(np.mean(predict(net, images, mirror)[:, -1] == labels))


def may_mirror(name, data):
    return name == "CNN" and data.name == "fashion_mnist"


def hold_out(data, settings, mirror=False, number=None):
    """Images and labels for training, `number` of them or all, and 1 in 12 held out."""
    order = np.random.default_rng(0).permutation(len(data.train_images))
    order = order[: settings.num_images]
    held_out, used = np.split(order, [len(order) // 12])
    x, y = data.train_images[used[:number]], data.train_labels[used[:number]]
    if mirror:
        x, y = np.concatenate([x, x[:, :, ::-1]]), np.concatenate([y, y])
    return x, y, data.train_images[held_out], data.train_labels[held_out]


def plan(name, data, settings, seed, number=None, folder=None):
    """Images and labels to train on, `number` of them or all, and the `TimeBudget`."""
    mirror = may_mirror(name, data)
    x, y, *held_out = hold_out(data, settings, mirror, number)
    seconds = settings.short_seconds if number else settings.seconds
    images = f"{len(y):,} images of {data.name}"
    budget = TimeBudget(
        seconds,
        LEARNING_RATE,
        validate=lambda net: accuracy(net, *held_out, mirror),
        num_validations=1 if number else 10,
        checkpoint=folder and folder / f"{name}-{seed}.npz",
        purpose=f"{name}, seed {seed}, {images}, {seconds:g} s",
    )
    return x, y, budget


def train(name, data, settings, seed, number=None, folder=None, resume=False):
    """Returns the trained net and its `TimeBudget`."""
    keras.utils.set_random_seed(seed)
    x, y, budget = plan(name, data, settings, seed, number, folder)
    net = NETS[name]()
    net.compile(keras.optimizers.Adam(), loss_of_readings, jit_compile=False)
    budget.fit(net, x, y, settings.batch_size, resume)
    return net, budget


# %% [markdown]
# ## First benefit of the CNN: what moves, moves through
#
# A convolution is $(x * k)(p) = \sum_q k(q)\,x(p + q)$. Let $S_s$ shift an image by
# $s$: $(S_s x)(p) = x(p - s)$. Then
#
# $$(S_s x * k)(p) = \sum_q k(q)\,x(p + q - s) = (x * k)(p - s) = S_s(x * k)(p)$$
#
# Normalization and ReLU act on every position alike and commute with $S_s$ as well.
# Pooling by 2 does if $s$ is even; after three of them $S_8$ at the input has become
# $S_1$. The mean over positions does not see that: the CNN is invariant to shifts by
# multiples of 8 as long as nothing leaves the image, and in between it is nearly so.
#
# The GRU computes $h_t = f(W x_t, h_{t-1})$. Shifted to the right, the same row meets
# other columns of $W$, and nothing ties those to the first ones. Shifted down, it meets
# the same $W$, later: in time a recurrence is a convolution's sister, and only what the
# empty rows before leave in the state makes a difference.


# %%
def equivariance_error(cnn, images, pixels):
    """How far the features of images that moved down and right by 0..8 pixels are from
    the features, moved: relative to their size, in the middle of a larger frame."""
    features = keras.Model(cnn.input, cnn.get_layer("mean").input)
    frame = np.pad(images, ((0, 0), (34, 34), (34, 34)))
    still = features.predict(frame, verbose=0)  # 12 x 12 positions
    moved = features.predict(shift_images(frame, pixels, pixels), verbose=0)
    by = pixels // 8
    still, moved = still[:, 3:8, 3:8], moved[:, 3 + by : 8 + by, 3 + by : 8 + by]
    return float(np.linalg.norm(moved - still) / np.linalg.norm(still))


def measure_shifts(nets, images, labels):
    """Accuracy after shifts by 0..6 pixels: {net: (sideways, up or down)}."""

    def one(net, n, sideways):
        ways = [(0, n), (0, -n)] if sideways else [(n, 0), (-n, 0)]
        return np.mean([accuracy(net, shift_images(images, *w), labels) for w in ways])

    return {
        name: [[one(net, n, way) for n in range(7)] for way in (True, False)]
        for name, net in nets.items()
    }


# %% [markdown]
# ## Second benefit of the CNN: all positions at once
#
# Every position of a layer of the CNN can be computed when the layer below is there:
# its longest chain of dependent steps is its number of layers, for any height $T$:
# $O(1)$. In the GRU $h_t$ waits for $h_{t-1}$: the chain has $T$ links. On $p$
# processors
#
# $$\text{time} \ge \max\left(\frac{\text{work}}{p},\ \text{chain} \times
#   \text{time of a link}\right)$$
#
# The work of both grows with $T$, so on two cores both curves rise in the end. But the
# CNN does its work in large pieces, which keep processors busy; the GRU does a small
# one per row. So the time of a link counts. `keras.layers.GRU` computes each row by
# dozens of small operations of TensorFlow, which take longer to start than to run, and
# processors wait. The kernel of `hw3tf.layers.GRU` does the same arithmetic with short
# links, and on two cores it is the work that takes the time. The more processors there
# are, the more the chain counts again.


# %%
def measure_steps(heights):
    """Seconds of a training step on 8 images, per height in rows, of CNN and GRUs."""
    lines, images = {}, [np.zeros((8, height, 28), "uint8") for height in heights]
    for name in ("CNN", "GRU", "GRU, row by row"):
        net = NETS[name]() if name in NETS else build_gru(layer=keras.layers.GRU)
        net.compile(keras.optimizers.Adam(), loss_of_readings, jit_compile=False)
        lines[name] = [seconds_per_step(net, x, np.zeros(8, "int32")) for x in images]
    return {"x": heights, "lines": lines}


# %% [markdown]
# A third benefit follows from the first: who need not learn every shape at every place
# needs fewer examples. CNN and GRU train on a few images, for equal times.


# %%
def measure_few_images(data, settings, seed, test):
    """Test accuracy after training on few images, of CNN and GRU."""
    lines = {
        name: [
            accuracy(train(name, data, settings, seed, number)[0], *test)
            for number in settings.few_images
        ]
        for name in ("CNN", "GRU")
    }
    return {"x": settings.few_images, "lines": lines}


# %% [markdown]
# ## First benefit of the RNN: an answer after every row
#
# The state $h_t$ is all that the GRU knows of rows $1 \dots t$, and its read-out says
# at any time what it thinks: for a scanner or a sensor an answer before the end, from
# memory that does not grow. The CNN keeps the image and computes again when a row
# comes; the bidirectional GRU waits for the last row before half of it begins. Below,
# the CNN is given the rows so far and background for the rest.


# %%
def read_row_by_row(gru, images):
    """Yields, after each row, the readings (batch, 10) and the list of states that is
    carried to the next one; nothing else is kept."""
    layers = [layer for layer in gru.layers if isinstance(layer, keras.layers.GRU)]
    states = [keras.ops.zeros((len(images), layer.units)) for layer in layers]
    for row in np.moveaxis(images, 1, 0):
        x = keras.ops.cast(row, "float32") / 255
        for i, layer in enumerate(layers):
            x, (states[i],) = layer.cell(x, [states[i]])
        yield gru.get_layer("readout")(x), states


def measure_anytime(nets, images, labels):
    """Accuracy after 1, 2, ... rows; by how much reading row by row differs from
    reading at once; and the numbers per image that are carried from row to row."""
    right = predict(nets["GRU"], images) == labels[:, None]
    cut = []
    for rows in range(1, 29):
        some = np.where(np.arange(28)[:, None] < rows, images, 0)
        cut.append(accuracy(nets["CNN"], some, labels))
    few = images[:16]
    at_once, off, memory = nets["GRU"].predict(few, verbose=0), [], set()
    for t, (logits, states) in enumerate(read_row_by_row(nets["GRU"], few)):
        off.append(float(np.abs(logits - at_once[:, t]).max()))
        memory.add(sum(state.shape[1] for state in states))
    lines = {"GRU": right.mean(axis=0), "CNN, the rest empty": cut}
    curves = {"x": list(range(1, 29)), "lines": lines}
    return {"curves": curves, "off by": max(off), "memory": sorted(memory)}


# %% [markdown]
# ## Second benefit of the RNN: any height, with the same parameters
#
# A GRU of $U$ units on rows of $D$ numbers has $3(DU + U^2 + 2U)$ parameters, for any
# number of rows: weights are shared over time. That is not its privilege. A convolution
# shares its weights over positions, with the same effect. What grows with the height,
# and refuses another one, is a dense read-out. The mean over positions does not. So the
# question is what nets trained on 28 rows make of images stretched to 14 to 56 rows.


# %%
def measure_heights(nets, images, labels):
    """Accuracy of every net on stretched images."""
    lines = {
        name: [accuracy(net, stretch_images(images, h), labels) for h in HEIGHTS]
        for name, net in nets.items()
    }
    return {"x": HEIGHTS, "lines": lines}


def count_parameters(heights):
    """Per net and height; the nets that take any height are built once."""
    lines = {n: [build().count_params()] * len(heights) for n, build in NETS.items()}
    dense = [build_cnn("dense", height).count_params() for height in heights]
    return {"x": heights, "lines": {**lines, "CNN, dense read-out": dense}}


def dense_readout_refuses(height):
    """Whether a CNN with a dense read-out for 28 rows refuses another height."""
    try:
        build_cnn("dense", 28)(np.zeros((1, height, 28)))
    except ValueError:
        return True
    return False


# %% [markdown]
# ## Pictures


# %%
def panel(measured, title, xlabel, ylabel="accuracy", **names):
    """`measured` holds `x` and `lines`."""
    return {**measured, "title": title, "xlabel": xlabel, "ylabel": ylabel, **names}


def draw_learning(budgets, path):
    """Accuracy on held out images by seconds of training, the mean over the seeds."""
    curves = {n: np.mean([b.curve for b in of], axis=0) for n, of in budgets.items()}
    lines = {name: curve[:, 1] for name, curve in curves.items()}
    measured = {"x": curves["CNN"][:, 0], "lines": lines}
    title, ylabel = "Equal parameters, equal time", "accuracy on held out images"
    plot_panels(path, panel(measured, title, "seconds of training", ylabel))


def draw(results, out):
    """The pictures of what was measured."""
    share, log = {"ylim": (0, 1)}, {"xscale": "log"}
    shifts = [
        panel(
            {"x": range(7), "lines": {n: y[i] for n, y in results["shifts"].items()}},
            f"Test images shifted {way}",
            "pixels",
            **share,
        )
        for i, way in enumerate(("sideways", "up or down"))
    ]
    plot_panels(out / "shifts.png", *shifts)
    title, both = "A training step on 8 images", {**log, "yscale": "log"}
    plot_panels(
        out / "steps_and_samples.png",
        panel(results["steps"], title, "rows", "seconds", **both),
        panel(results["few"], "Few training images, equal time", "images", **log),
    )
    curves, sizes = results["anytime"]["curves"], results["height parameters"]
    plot_panels(
        out / "rows_and_heights.png",
        panel(curves, "An answer after every row", "rows read", **share),
        panel(results["heights"], "Stretched images", "rows", **share),
        panel(sizes, "Parameters", "rows", "parameters", ylim=(0, None), **log),
    )


# %% [markdown]
# ## The claims


# %%
@dataclass(frozen=True)
class Bars:
    """Least accuracies, and differences of accuracy, that a run has to show."""

    cnn: float
    rnn: float  # the better one
    shift: float  # CNN minus GRU, four pixels sideways
    few: float  # CNN minus GRU, fewest images
    half: float  # GRU after 14 rows
    ahead: float  # GRU minus CNN, after 14 rows


BARS = {
    "fashion_mnist": Bars(0.92, 0.88, 0.1, 0.0, 0.5, 0.0),
    "mnist": Bars(0.99, 0.98, 0.1, 0.0, 0.5, 0.0),
    "digits": Bars(0.97, 0.90, 0.1, 0.0, 0.5, 0.0),
}
# Seconds of training on a busy machine: bars that hold there, and tell a net that
# learned from one that did not.
QUICK_BARS = {
    "fashion_mnist": Bars(0.75, 0.6, 0.1, -0.05, 0.3, -1.0),
    "mnist": Bars(0.9, 0.7, 0.1, -0.05, 0.2, -1.0),
    "digits": Bars(0.95, 0.7, 0.3, -0.05, 0.2, -1.0),
}


def check_claims(results, bars):
    """Raises AssertionError if the run contradicts the text above."""
    sizes = results["parameters"].values()
    claim("parameters of the largest net", max(sizes), "<=", 1.05 * min(sizes))
    times = np.concatenate(list(results["seconds"].values()))
    claim("seconds of training", max(times), "<=", min(times) + 1)  # and a last step
    means = {name: np.mean(found) for name, found in results["accuracy"].items()}
    claim("accuracy of the CNN", means["CNN"], ">=", bars.cnn)
    rnn = max(means["GRU"], means["bidirectional"])
    claim("accuracy of the better RNN", rnn, ">=", bars.rnn)
    moved = results["equivariance"]
    claim("features, changed by a shift of 8 pixels", moved[8], "<", 1e-5)
    claim("features, changed by a shift of 4 pixels", moved[4], ">", 0.01)
    cnn, gru = (results["shifts"][name][0][4] for name in ("CNN", "GRU"))
    claim("CNN ahead of the GRU, 4 pixels sideways", cnn - gru, ">=", bars.shift)
    cnn, gru, slow = (line[-1] for line in results["steps"]["lines"].values())
    claim("a step of the GRU row by row, in steps of the CNN", slow / cnn, ">=", 2)
    claim("the same, in steps of the GRU", slow / gru, ">=", 2)
    cnn, gru = (results["few"]["lines"][name][0] for name in ("CNN", "GRU"))
    claim("CNN ahead of the GRU, fewest images", cnn - gru, ">=", bars.few)
    anytime = results["anytime"]
    claim("reading row by row, off by", anytime["off by"], "<", 1e-4)
    claim("sizes of the state", len(anytime["memory"]), "==", 1)
    gru, cnn = (line[13] for line in anytime["curves"]["lines"].values())
    claim("accuracy of the GRU after 14 rows", gru, ">=", bars.half)
    claim("GRU ahead of the CNN after 14 rows", gru - cnn, ">=", bars.ahead)
    for name, counts in results["height parameters"]["lines"].items():
        grows, dense = bool(counts[0] < counts[-1]), name == "CNN, dense read-out"
        claim(f"parameters grow with the rows, {name}", grows, "==", dense)
    claim("refused heights", results["refused"], "==", [h != 28 for h in HEIGHTS])
    print("All claims hold.")


# %% [markdown]
# ## Conclusion
#
# The CNN is the better reader of images that lie there as a whole: it knows that a
# shirt two pixels to the right is a shirt, it needs fewer examples to know a shirt, and
# all of its positions can be computed at once. The GRU knows the same of time, and of
# nothing else: shifted down an image loses little, shifted sideways it is lost. What it
# has alone is its state: an answer after every row, at a cost per row that does not
# depend on the rows before. The bidirectional GRU pays for its second look with just
# that. And sharing weights, often told as the RNN's benefit, is what both do; only a
# dense read-out does not.
#
# ## Exercises
#
# 1. Train the CNN on images cut after a random row. How much of the GRU's lead after 14
#    rows is left, and what does the CNN pay for it on whole images?
# 2. Let the GRU read columns. Which of the two panels of shifts changes, and how?
# 3. Train on images shifted at random by up to 4 pixels. Which net gains more, on
#    shifted and on still images, if the seconds stay the same?
#
# ## References
#
# - H. Xiao, K. Rasul and R. Vollgraf,
#   [Fashion-MNIST](https://arxiv.org/abs/1708.07747), 2017.
# - K. Cho et al., [Learning phrase representations using RNN
#   encoder-decoder](https://arxiv.org/abs/1406.1078), 2014: the GRU.
# - T. Cohen and M. Welling, [Group equivariant convolutional
#   networks](https://arxiv.org/abs/1602.07576), 2016: what else may move.
# - R. Zhang, [Making convolutional networks shift-invariant
#   again](https://arxiv.org/abs/1904.11486), 2019: what pooling breaks in between.


# %%
def parse_arguments(argv):
    parser = tutorial.argument_parser(
        "Compare a CNN and RNNs of equal size and training time on small images.",
        out="runs/cnn_vs_rnn",
        quick="fewer images and seconds: a minute and a half",
        seed="of weights and of the order of images",
    )
    add = parser.add_argument
    sets = ["auto", "fashion_mnist", "mnist", "digits"]
    what = "auto: Fashion-MNIST if it is prepared or can be downloaded, else digits"
    add("--data", choices=sets, default="auto", help=what)
    add("--seeds", type=number(1, 1000), default=1, help="trainings per net")
    add("--seconds", type=number(0.1, 1e6, float), help="of training per net")
    add("--resume", action="store_true", help="go on from the checkpoints in --out")
    return parser.parse_args(argv)


def train_and_test(data, settings, args, test):
    """Every net from every seed. Returns the nets of the first one, and the results."""
    folder, trained = args.out / "checkpoints", {name: [] for name in NETS}
    seeds = range(args.seed, args.seed + args.seeds)
    if args.resume:  # hours before the last one is needed
        for seed, name in [(seed, name) for seed in seeds for name in NETS]:
            plan(name, data, settings, seed, None, folder)[-1].check_checkpoint()
    for seed in seeds:
        for name, runs in trained.items():  # in turn: what slows one slows all
            runs.append(train(name, data, settings, seed, None, folder, args.resume))
    results = {"seconds": {}, "accuracy": {}}
    for name, runs in trained.items():
        found = [accuracy(net, *test, may_mirror(name, data)) for net, _ in runs]
        results["accuracy"][name] = found
        results["seconds"][name] = [budget.elapsed for _, budget in runs]
        print(f"{name}: test accuracy {np.mean(found):.4f}, {np.round(found, 4)}")
    budgets = {name: [budget for _, budget in runs] for name, runs in trained.items()}
    draw_learning(budgets, args.out / "learning_curves.png")
    return {name: runs[0][0] for name, runs in trained.items()}, results


def main(argv=None):
    args = parse_arguments(argv)
    settings = QUICK if args.quick else Settings()
    settings = replace(settings, seconds=args.seconds or settings.seconds)
    tutorial.check_start(args, "sklearn")
    from sklearn.metrics import confusion_matrix  # which may have been missing

    data = load_images(args.data)
    print(f"Data: {data.name} - {data.origin}")
    counts = {name: build().count_params() for name, build in NETS.items()}
    print("Parameters:", ", ".join(f"{n} {count:,}" for n, count in counts.items()))

    x, y = (a[: settings.num_tested] for a in (data.test_images, data.test_labels))
    nets, results = train_and_test(data, settings, args, (x, y))
    results |= {"data": data.name, "parameters": counts}
    said = {n: predict(net, x, may_mirror(n, data))[:, -1] for n, net in nets.items()}
    matrices = {n: confusion_matrix(y, c, labels=range(10)) for n, c in said.items()}
    plot_confusion(matrices, data.class_names, args.out / "confusion.png")

    probed = x[: settings.num_probed], y[: settings.num_probed]
    results["equivariance"] = {
        n: equivariance_error(nets["CNN"], x[:20], n) for n in (1, 2, 4, 8)
    }
    results["shifts"] = measure_shifts(nets, *probed)
    results["steps"] = measure_steps(settings.step_heights)
    results["few"] = measure_few_images(data, settings, args.seed, (x, y))
    results["anytime"] = measure_anytime(nets, *probed)
    results["heights"] = measure_heights(nets, *probed)
    results["height parameters"] = count_parameters((28, 56, 112, 224))
    results["refused"] = [dense_readout_refuses(height) for height in HEIGHTS]
    draw(results, args.out)
    print(f"Pictures are in {args.out}")
    bars = (QUICK_BARS if args.quick else BARS)[data.name]
    conclude("01_cnn_vs_rnn", results, lambda: check_claims(results, bars), args)
    return results


if __name__ == "__main__":
    run(main)
