# %% [markdown]
r"""# How attention copies

*Attention without a single weight copies its input. When, and why?*

Run time: 1 min on 2 CPU cores, `--quick` half a minute. Download: none.

Take four orthogonal vectors $a, b, c, d$ of norm $\beta$ and make three tokens of
them: $x_1 = d + b$, $x_2 = a$, $x_3 = c + b$. The simplest self-attention has no
weight matrices: queries, keys and values are the tokens themselves, and nothing is
divided by the root of the dimension. What are the norms of the tokens, and what comes
out for large $\beta$?

Claims, checked by `check_claims()` when the script ends:

1. The norms are $\beta\sqrt 2$, $\beta$, $\beta\sqrt 2$, and the outputs go to
   $x_1, x_2, x_3$: from $\beta = 2.84$ on every copy is good to a thousandth.
2. The kernel gives what the closed form says, for every $\beta$ from 0.1 to 30,
   within 3e-6 of the norm of the token (float32).
3. A fourth token $x_4 = b$, which is only a part of others, is not copied: it becomes
   the average of all tokens that contain it.
4. Dividing the scores by $\sqrt n$, for vectors of $n$ numbers, asks for
   $\beta$ larger by $n^{1/4}$.
5. If the tokens' norms are noisy, a copy fails as often as one norm is more than twice
   another: for noise $e^{\sigma\varepsilon}$ with probability
   $\Phi(-\ln 2/(\sigma\sqrt 2))$.
6. Two heads with the right matrices copy all four tokens, whatever their norms. One of
   these heads alone cannot.
7. A trained layer learns to copy with and without position embeddings; it learns to
   reverse a sequence only with them: without, it stays at what guessing from the bag of
   tokens gives.

```
python tutorials/03_self_attention_copying.py --out runs/self_attention_copying
```
"""

# %%
import os

# Before Keras starts a backend that may not even be installed.
if os.environ.get("KERAS_BACKEND", "") not in ("", "tensorflow"):
    os.write(2, b"error: this program needs KERAS_BACKEND=tensorflow\n")
    raise SystemExit(2)

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import keras
import numpy as np

import hw3tf
from hw3tf.course import plots
from hw3tf.course.tutorial import argument_parser, check_start, claim, conclude, run


@dataclass(frozen=True)
class Settings:
    """What can be changed; the defaults meet the claims."""

    num_noisy: int = 20_000  # sequences with noisy norms
    vocab_size: int = 20
    sequence_length: int = 12  # even: no token stays in its place when reversed
    embed_dim: int = 64
    num_training: int = 100_000  # sequences to copy or reverse
    seed: int = 0


QUICK = Settings(num_noisy=4000, num_training=40_000)


# %% [markdown]
# ## The tokens and the layer
#
# The four directions are drawn at random and made orthogonal: nothing below depends on
# their lying along the axes. The attention is the kernel's, in float32, with one head.


# %%
def directions(size=4, seed=0):
    """Orthogonal unit vectors a, b, c, d: (4, size), float64."""
    noise = np.random.default_rng(seed).normal(size=(size, size))
    return np.linalg.qr(noise)[0][:4]


def make_tokens(abcd):
    """x1, x2, x3 and the extra x4, of `directions` times beta: (4, size)."""
    a, b, c, d = abcd
    return np.stack([d + b, a, c + b, b])


def attend(x, scale=1.0):
    """Self-attention without weight matrices, on the kernel.

    Tokens (..., length, size) -> outputs alike, weights (..., length, length).
    """
    rows = np.reshape(x, (-1, *np.shape(x)[-2:])).astype("float32")[:, :, None]
    y, weights = hw3tf.ops.dot_product_attention(
        rows, rows, rows, scale=scale, return_attention_scores=True
    )
    length = np.shape(x)[-2]
    weights = np.reshape(weights, (*np.shape(x)[:-1], length))
    return np.reshape(y, np.shape(x)), weights


def relative_error(y, x):
    """Distance of every output from its token, in norms of the token."""
    return np.linalg.norm(y - x, axis=-1) / np.linalg.norm(x, axis=-1)


# %% [markdown]
# ## The answer on paper
#
# Orthogonal vectors obey Pythagoras: $|x_1|^2 = |d|^2 + |b|^2 = 2\beta^2$, so
# $|x_1| = |x_3| = \beta\sqrt 2$, while $|x_2| = \beta$. The scores are the products of
# the tokens; $x_1$ and $x_3$ share $b$, and $x_2$ shares nothing:
#
# $$\begin{pmatrix} x_i \cdot x_j \end{pmatrix} = \beta^2
#   \begin{pmatrix} 2 & 0 & 1 \\ 0 & 1 & 0 \\ 1 & 0 & 2 \end{pmatrix}$$
#
# With $\epsilon = e^{-\beta^2}$ the softmax makes of its rows
#
# $$w_1 = \frac{(1,\ \epsilon^2,\ \epsilon)}{1 + \epsilon + \epsilon^2}, \qquad
#   w_2 = \frac{(\epsilon,\ 1,\ \epsilon)}{1 + 2\epsilon}, \qquad
#   w_3 = \frac{(\epsilon,\ \epsilon^2,\ 1)}{1 + \epsilon + \epsilon^2}$$
#
# Every row has one weight that goes to 1 as $\beta$ grows, its own: **each token is
# most like itself**, so $y_i = \sum_j w_{ij} x_j \to x_i$. How good is the copy? With
# $p = \epsilon^2/(1 + \epsilon + \epsilon^2)$, $q = \epsilon/(1 + \epsilon +
# \epsilon^2)$ and $r = \epsilon/(1 + 2\epsilon)$, the parts of the error along
# $d, b, a, c$ are
#
# $$y_1 - x_1 = -(p + q)\,d - p\,b + p\,a + q\,c, \qquad
#   y_2 - x_2 = r\,d + 2r\,b - 2r\,a + r\,c$$
#
# $$\frac{|y_1 - x_1|}{|x_1|} = \sqrt{\frac{(p + q)^2 + 2p^2 + q^2}{2}}, \qquad
#   \frac{|y_2 - x_2|}{|x_2|} = r\sqrt{10}$$
#
# The second is larger. It falls to $10^{-3}$ where $e^{\beta^2} = 1000\sqrt{10} -
# 2$, at $\beta = \sqrt{\ln(1000\sqrt{10} - 2)} = 2.8387$.


# %%
def exact_weights(beta):
    """The three rows of the closed form, float64: (3, 3)."""
    e = math.exp(-(beta**2))
    first, second = 1 + e + e * e, 1 + 2 * e
    return np.array(
        [
            [1 / first, e * e / first, e / first],
            [e / second, 1 / second, e / second],
            [e / first, e * e / first, 1 / first],
        ]
    )


def exact_errors(beta):
    """The two relative errors of the closed form: of x1 and of x2."""
    _, p, q = exact_weights(beta)[0]
    r = exact_weights(beta)[1, 0]
    return math.sqrt(((p + q) ** 2 + 2 * p * p + q * q) / 2), r * math.sqrt(10)


GOOD_COPY = 1e-3
BETA_OF_GOOD_COPY = math.sqrt(math.log(math.sqrt(10) / GOOD_COPY - 2))

# %% [markdown]
# ## The answer, checked
#
# $e^{2 \cdot 30^2}$ does not exist in any float; the kernel subtracts the largest score
# of a row before it exponentiates, as the closed form above does. The kernel's error
# beside it is that of float32: scores of some $\beta^2$, rounded to 24 binary digits.


# %%
def sweep_beta(seed):
    """For beta from 0.1 to 30: weights and errors, of the kernel and on paper."""
    betas, unit = np.geomspace(0.1, 30, 120), directions(seed=seed)
    x = betas[:, None, None] * make_tokens(unit)[:3]
    y, weights = attend(x)
    exact = np.stack([exact_weights(beta) for beta in betas])
    return {
        "beta": betas,
        "norms": np.linalg.norm(x, axis=-1) / betas[:, None],
        "weights": weights,
        "exact weights": exact,
        "errors": relative_error(y, x),
        "exact errors": np.array([exact_errors(beta) for beta in betas]),
        "kernel off by": relative_error(y - exact @ x + x, x),
    }


def find_good_beta(size, scale, seed):
    """The least beta at which the kernel copies x1, x2, x3 to a thousandth."""
    low, high, unit = 0.1, 100.0, directions(size, seed)
    while high - low > 1e-4:
        beta = (low + high) / 2
        x = beta * make_tokens(unit)[:3]
        if relative_error(attend(x, scale)[0], x).max() > GOOD_COPY:
            low = beta
        else:
            high = beta
    return high


# %% [markdown]
# ## What breaks the copy
#
# **A token that is a part of others.** Add $x_4 = b$. Its score with $x_1$ is $b \cdot
# (d + b) = \beta^2$, with $x_3$ the same, with itself $\beta^2$: a tie of three.
# However large $\beta$ is, $y_4 = (x_1 + x_3 + x_4)/3 = b + (c + d)/3$, an average.
# Being like oneself is not enough; others must be less alike: $x_i \cdot x_j <
# |x_i|^2$.
#
# **The scale.** Transformers divide scores by $\sqrt n$. That is $\beta^2/\sqrt n$ in
# place of $\beta^2$, so $\beta$ must be $n^{1/4}$ times as large. For learned
# embeddings of norm 1 a copy has to be learned, too: by matrices that make scores
# large.
#
# **Noise in the norms.** Let token $i$ be $n_i x_i$. Token 1 scores $2 n_1^2 \beta^2$
# with itself and $n_1 n_3 \beta^2$ with token 3. If $n_3 > 2 n_1$, it becomes a copy of
# token 3: in a dot product the loud win. For $n_i = e^{\sigma \varepsilon_i}$ with
# normal $\varepsilon_i$, $\ln n_3 - \ln n_1$ is normal with standard deviation
# $\sigma\sqrt 2$, so that happens with probability $\Phi(-\ln 2 / (\sigma\sqrt 2))$.


# %%
def average_instead_of_copy(beta, seed):
    """With x4 = b: distances of the outputs from the tokens, of y4 from the average of
    the three that contain b, and the weights."""
    x = beta * make_tokens(directions(seed=seed))
    y, weights = attend(x)
    average = relative_error(y[3], x[[0, 2, 3]].mean(axis=0))
    return relative_error(y, x), float(average), weights


def noisy_tokens(sigma, settings, num_tokens, beta=300.0):
    """Sequences of tokens whose norms are noisy: (sequences, num_tokens, 4)."""
    rng = np.random.default_rng(settings.seed)
    noise = np.exp(sigma * rng.normal(size=(settings.num_noisy, num_tokens, 1)))
    return beta * noise * make_tokens(directions(seed=settings.seed))[:num_tokens]


def copied(y, x):
    """The share of tokens that are copied to a hundredth, one number per token."""
    return np.mean(relative_error(y, x) < 1e-2, axis=0)


def expected_copies(sigma):
    """On paper, for x1 and x3."""
    return NormalDist().cdf(math.log(2) / (sigma * math.sqrt(2)))


# %% [markdown]
# ## What repairs it: two heads
#
# Weight matrices may send the tokens elsewhere before they are compared. The four
# tokens $x_1 \dots x_4$ are linearly independent, so one matrix, for queries and keys
# alike, sends them to any four points we like. Take four points of a circle, a quarter
# turn apart. Products of different ones are now 0 or negative, of a point with itself
# positive: every token wins in its own row, **whatever the norms**.
#
# The circle has two dimensions, and a head of an $n$-dimensional model with $n/2$ of
# them has room for two of the four coordinates of a value. It attends to the right
# token and brings back half of it. A second head with the same queries and keys brings
# the other half. Here they are, as weights of `hw3tf.layers.MultiHeadAttention`. The
# values of the first head are the two main directions of the tokens, the best that two
# dimensions can do (Eckart and Young).

# %%
CIRCLE = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])


def heads_that_copy(seed, num_heads=2):
    """A layer of heads of size 2 that copies x1, x2, x3, x4, or half of them."""
    x = make_tokens(directions(seed=seed))
    to_circle = np.linalg.solve(x, CIRCLE)  # x @ to_circle = CIRCLE
    main = np.linalg.svd(x)[2]  # rows: orthonormal, the main directions first
    layer = hw3tf.layers.MultiHeadAttention(num_heads, 2, use_bias=False)
    layer.build((None, None, 4), (None, None, 4))
    same_for_all = np.stack([to_circle] * num_heads, axis=1)
    values = main[: 2 * num_heads].reshape(num_heads, 2, 4)
    layer.set_weights([same_for_all, same_for_all, np.moveaxis(values, 2, 0), values])
    return layer


def compare_heads(beta, seed):
    """Errors of one and of two heads, the least error that rank 2 allows, weights."""
    x = beta * make_tokens(directions(seed=seed))
    results = {}
    for num_heads in (1, 2):
        layer = heads_that_copy(seed, num_heads)
        y, weights = layer(x[None], x[None], return_attention_scores=True)
        results[num_heads] = np.linalg.norm(y[0] - x) / np.linalg.norm(x)
    values = np.linalg.svd(x, compute_uv=False) ** 2
    results["least"] = math.sqrt(values[2:].sum() / values.sum())
    return results, weights[0].numpy()


def count_copies(settings, sigmas):
    """Per sigma: on paper, by attention without weights (x1, x3), by two heads."""
    layer, rows = heads_that_copy(settings.seed), []
    for sigma in sigmas:
        x = noisy_tokens(sigma, settings, 3)
        plain = copied(attend(x)[0], x)[[0, 2]].mean()
        x = noisy_tokens(sigma, settings, 4)
        heads = copied(layer(x, x).numpy(), x).min()
        rows.append((sigma, expected_copies(sigma), plain, heads))
    return np.array(rows)


# %% [markdown]
# ## A layer that learns to copy, and to reverse
#
# Now nobody chooses the matrices. One head of attention reads a sequence of random
# tokens and nothing passes around it: no residual connection. It is trained to say, at
# every position, the token that stands there, or the one that stands there in the
# reversed sequence; each with and without position embeddings.
#
# Without them, attention does not know where it is: swap two tokens and the outputs
# swap. To copy, it need not know. To reverse, it can only guess. It knows the token at
# its own position, and that the answer is one of the $n - 1$ others, each as likely;
# the best guess is the most frequent of them. So nothing without positions can be right
# more often than that token is found among them.


# %%
def build_model(settings, positions):
    """Token ids (batch, length) -> logits (batch, length, vocab_size)."""
    tokens = keras.Input((settings.sequence_length,), dtype="int32")
    if positions:
        sizes = settings.vocab_size, settings.sequence_length, settings.embed_dim
        embedding = hw3tf.layers.TokenAndPositionEmbedding
        x = embedding(*sizes, mask_zero=False)(tokens)  # 0 is a token like any other
    else:
        x = keras.layers.Embedding(settings.vocab_size, settings.embed_dim)(tokens)
    y = hw3tf.layers.MultiHeadAttention(1, settings.embed_dim, name="attention")(x, x)
    return keras.Model(tokens, keras.layers.Dense(settings.vocab_size)(y))


def random_sequences(number, settings, seed):
    size = number, settings.sequence_length
    return np.random.default_rng(seed).integers(0, settings.vocab_size, size, "int32")


def attention_map(model, tokens):
    """Weights of the trained head: (sequences, length, length)."""
    layer = model.get_layer("attention")
    x = keras.Model(model.input, layer.input[0])(tokens)
    return layer(x, x, return_attention_scores=True)[1].numpy()[:, 0]


def best_guess(tokens):
    """How often the most frequent of the other tokens is right, for every position."""
    length = tokens.shape[1]
    same = tokens[:, :, None] == tokens[:, None, :]  # (sequences, who, with whom)
    others = same.sum(axis=2)[:, None] - same  # how often s's token occurs beside t's
    return float(np.mean(others.max(axis=2) / (length - 1)))


def in_words(task, positions):
    return f"{task} {'with' if positions else 'without'} positions"


def train(task, positions, settings):
    """Returns the test accuracy, the share of rows of the map whose largest weight is
    at a token that is right, and the map of the first test sequence."""
    keras.utils.set_random_seed(settings.seed)
    model = build_model(settings, positions)
    batch_size, steps = 100, settings.num_training // 100
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    answer = (lambda x: x) if task == "copy" else (lambda x: x[:, ::-1])
    tokens = random_sequences(settings.num_training, settings, settings.seed)
    print(f"learning to {in_words(task, positions)}")
    model.fit(tokens, answer(tokens), batch_size=batch_size, verbose="auto")
    tokens = random_sequences(2000, settings, settings.seed + 1)
    accuracy = model.evaluate(tokens, answer(tokens), verbose=0)[1]
    maps = attention_map(model, tokens)
    looked_at = np.take_along_axis(tokens, maps.argmax(axis=2), axis=1)
    return accuracy, float(np.mean(looked_at == answer(tokens))), (tokens[0], maps[0])


# %% [markdown]
# ## Pictures


# %%
def draw_beta(sweep, path):
    figure, axes = plots.new_figure(1, 2, (11, 4.2))
    left, right = axes[0]
    beta = sweep["beta"]
    lines = (((0, 0), "-"), ((0, 2), "--"), ((0, 1), ":"), ((1, 1), "-."))
    for (i, j), style in lines:
        name = f"$w_{{{i + 1}{j + 1}}}$"
        (line,) = left.plot(beta, sweep["exact weights"][:, i, j], style, label=name)
        color = line.get_color()
        left.plot(beta[::4], sweep["weights"][::4, i, j], "o", ms=4, color=color)
    left.set(title="Weights: closed form (lines), kernel (dots)", ylabel="weight")
    left.set(xlim=(0.1, 4))
    for i, (name, style) in enumerate((("$x_1$", "-"), ("$x_2$", "-."))):
        exact = sweep["exact errors"][:, i]
        (line,) = right.plot(beta, exact, style, label=f"copy of {name}")
        right.plot(beta[::4], sweep["errors"][::4, i], "o", ms=4, c=line.get_color())
    worst = sweep["kernel off by"].max(axis=1)
    right.plot(beta, worst, "k:", label="kernel minus closed form")
    right.axhline(GOOD_COPY, color="gray", lw=0.8)
    text = rf"$\beta$ = {BETA_OF_GOOD_COPY:.2f}"
    right.axvline(BETA_OF_GOOD_COPY, color="gray", lw=0.8, label=text)
    right.set(xscale="log", yscale="log", ylim=(1e-9, 3), ylabel="norms of the token")
    right.set(title="How far the output is from the token")
    for axis in axes[0]:
        axis.set_xlabel(r"$\beta$, norm of $a, b, c, d$")
        axis.grid(alpha=0.3)
        axis.legend()
    plots.save_figure(figure, path)


def draw_weights(axis, weights, names, title):
    axis.imshow(weights, cmap="Blues", vmin=0, vmax=1.4)
    for i, row in enumerate(weights):
        for j, weight in enumerate(row):
            axis.text(j, i, f"{weight:.2f}", ha="center", va="center")
    axis.set_xticks(range(len(names)), names)
    axis.set_yticks(range(len(names)), names)
    axis.set(title=title, xlabel="looks at", ylabel="query")


def draw_heads(plain, heads, path):
    figure, axes = plots.new_figure(1, 3, (12, 4.2))
    names = [f"$x_{i}$" for i in range(1, 5)]
    draw_weights(axes[0, 0], plain, names, "Without weights: $x_4 = b$ is averaged")
    axis = axes[0, 1]
    turn = np.linspace(0, 2 * np.pi, 100)
    axis.plot(np.cos(turn), np.sin(turn), ":", color="gray")
    for name, point in zip(names, CIRCLE, strict=True):
        axis.annotate("", point, (0, 0), arrowprops={"arrowstyle": "-|>", "fc": "k"})
        axis.text(*(1.2 * point), name, ha="center", va="center", fontsize=13)
    axis.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal")
    axis.set(title="Queries and keys of both heads", xlabel="first", ylabel="second")
    draw_weights(axes[0, 2], heads, names, "Weights of either head")
    plots.save_figure(figure, path)


def draw_scale_and_noise(scaled_betas, copies, path):
    figure, axes = plots.new_figure(1, 2, (11, 4.2))
    left, right = axes[0]
    sizes, betas = zip(*scaled_betas.items(), strict=True)
    line = BETA_OF_GOOD_COPY * np.array(sizes) ** 0.25
    left.loglog(sizes, line, "-", label=r"$2.84\,n^{1/4}$")
    left.loglog(sizes, betas, "ko", ms=5, label="kernel, by bisection")
    left.set(title=r"Scores divided by $\sqrt{n}$: the norm that a copy needs")
    left.set(xlabel="$n$, numbers in a vector", ylabel=r"$\beta$ of a copy to 0.001")
    sigma, expected, plain, heads = copies.T
    right.plot(sigma, expected, "-", label=r"$\Phi(\ln 2/(\sigma\sqrt{2}))$")
    right.plot(sigma, plain, "ko", ms=5, label="kernel, without weights")
    right.plot(sigma, heads, "s--", ms=5, label="kernel, two heads")
    right.set(title="Noisy norms: how many tokens are copied", ylim=(0.5, 1.03))
    right.set(xlabel=r"$\sigma$ of the noise", ylabel="share of tokens")
    for axis in axes[0]:
        axis.grid(alpha=0.3, which="both")
        axis.legend()
    plots.save_figure(figure, path)


def draw_trained(trained, path):
    figure, axes = plots.new_figure(1, 4, (15, 4.9))
    for axis, (case, result) in zip(axes[0], trained.items(), strict=True):
        accuracy, _, (tokens, weights) = result
        axis.imshow(weights, cmap="Greys", vmin=0, vmax=1)
        axis.set_xticks(range(len(tokens)), tokens, fontsize=8)
        axis.set_yticks(range(len(tokens)), tokens, fontsize=8)
        title = f"{in_words(*case)}\n{accuracy:.1%} right"
        axis.set(title=title, xlabel="looks at token")
    axes[0, 0].set_ylabel("token at the query")
    figure.suptitle("Attention of the trained layers, one sequence")
    plots.save_figure(figure, path)


# %% [markdown]
# ## The claims


# %%
def check_claims(results):
    """Raises AssertionError if the run contradicts the text above."""
    sweep, root = results["sweep"], math.sqrt(2)
    claim("norms of the tokens", sweep["norms"], "~", [root, 1, root], 1e-12)
    good = sweep["errors"][sweep["beta"] > BETA_OF_GOOD_COPY]
    claim("worst copy beyond beta = 2.84", good.max(), "<=", GOOD_COPY)
    least = results["good beta"]
    claim("least beta of a good copy", least, "~", BETA_OF_GOOD_COPY, 1e-3)
    claim("error of the kernel, in tokens", sweep["kernel off by"].max(), "<", 3e-6)
    claim("weights", sweep["weights"], "~", sweep["exact weights"], 3e-6)
    errors, average, _ = results["extra token"]
    claim("error of x1, x2, x3 beside x4", errors[:3].max(), "<", 1e-5)
    claim("error of x4", errors[3], "~", root / 3, 1e-5)  # |(c + d)/3| in norms of b
    claim("distance of y4 from the average", average, "<", 1e-5)
    for size, beta in results["scaled betas"].items():
        ratio = beta / (BETA_OF_GOOD_COPY * size**0.25)
        claim(f"beta for vectors of {size}, and on paper", ratio, "~", 1, 1e-3)
    _, on_paper, plain, two = results["copies"].T
    claim("noisy copies", plain, "~", on_paper, 0.03)
    claim("noisy copies of two heads", two.min(), ">", 0.999)
    heads = results["heads"]
    claim("error of two heads", heads[2], "<", 1e-5)
    claim("least error of rank 2", heads["least"], ">", 0.3)
    claim("error of one head", heads[1], "~", heads["least"], 1e-3)
    for case, (accuracy, looks_right, _) in results["trained"].items():
        if case != ("reverse", False):
            claim(f"accuracy, {in_words(*case)}", accuracy, ">", 0.99)
            claim(f"rows that look right, {in_words(*case)}", looks_right, ">", 0.95)
    guessed, most = results["trained"]["reverse", False][0], results["best guess"]
    claim("accuracy, reverse without positions", guessed, "<", most + 0.02)
    print("All claims hold.")


# %% [markdown]
# ## Conclusion
#
# Attention copies because a token is most like itself, and it fails where that is not
# so: when a token is contained in others, when another is loud, when scores are small.
# Weight matrices repair all three by moving the tokens to where they are told apart,
# and several heads bring back what one has no room for. What attention cannot know
# without being told is where a token stands.
#
# ## Exercises
#
# 1. Make $x_4 = b + a/2$. From which $\beta$ on is it copied, and why so late?
# 2. Layer normalization gives all tokens the same norm. Which of the claims changes if
#    `attend` normalizes the tokens first?
# 3. Give the trained layer two heads, sequences of odd length, and the task to say the
#    token before. What does it need positions for, and what do the two maps show?
#
# ## References
#
# - A. Vaswani et al., [Attention is all you
#   need](https://arxiv.org/abs/1706.03762), 2017: the scale, heads, positions.
# - C. Eckart and G. Young, [The approximation of one matrix by another of lower
#   rank](https://doi.org/10.1007/BF02288367), 1936.
# - M. Milakov and N. Gimelshein, [Online normalizer calculation for
#   softmax](https://arxiv.org/abs/1805.02867), 2018: the largest score, subtracted.


# %%
def copy_without_training(settings):
    """The experiments on x1 ... x4: results, and what is printed of them."""
    results = {"sweep": sweep_beta(settings.seed)}
    off = results["sweep"]["kernel off by"].max()
    print(f"beta from 0.1 to 30: the kernel is off by {off:.1e} of a token at most")
    results["good beta"] = find_good_beta(4, 1.0, settings.seed)
    text = "copies are good to 0.001 from beta = {:.4f} on; on paper, {:.4f}"
    print(text.format(results["good beta"], BETA_OF_GOOD_COPY))
    results["extra token"] = average_instead_of_copy(10.0, settings.seed)
    errors, average, _ = results["extra token"]
    print(f"x4 = b: {errors[3]:.3f} from itself, {average:.0e} from the average")
    sizes = (4, 16, 64, 256, 1024)
    betas = [find_good_beta(n, 1 / math.sqrt(n), settings.seed) for n in sizes]
    results["scaled betas"] = dict(zip(sizes, betas, strict=True))
    print("scaled, vectors of", ", ".join(map("{}: beta {:.2f}".format, sizes, betas)))
    sigmas = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
    results["copies"] = count_copies(settings, sigmas)
    results["heads"], results["head weights"] = compare_heads(10.0, settings.seed)
    one, two, least = results["heads"].values()
    print(
        f"one head is off by {one:.3f} (rank 2: {least:.3f} at least), two by {two:.0e}"
    )
    return results


def main(argv=None):
    parser = argument_parser(
        "Find out when attention without weights copies its input.",
        out="runs/self_attention_copying",
        quick="fewer sequences: half a minute",
        seed="of directions, noise and training",
    )
    args = parser.parse_args(argv)
    settings = replace(QUICK if args.quick else Settings(), seed=args.seed)
    check_start(args)

    results = copy_without_training(settings)
    cases = [(task, p) for task in ("copy", "reverse") for p in (True, False)]
    results["trained"] = {case: train(*case, settings) for case in cases}
    test = random_sequences(2000, settings, settings.seed + 1)
    results["best guess"] = best_guess(test)
    for case, (accuracy, _, _) in results["trained"].items():
        print(f"{in_words(*case)}: {accuracy:.4f} right")
    print(f"without positions nothing reverses better than {results['best guess']:.4f}")

    draw_beta(results["sweep"], args.out / "beta.png")
    plain, heads = results["extra token"][-1], results["head weights"][0]
    draw_heads(plain, heads, args.out / "heads.png")
    scaled, copies = results["scaled betas"], results["copies"]
    draw_scale_and_noise(scaled, copies, args.out / "scale_and_noise.png")
    draw_trained(results["trained"], args.out / "trained.png")
    print(f"Pictures are in {args.out}")
    summary = {
        "kernel_off_by": results["sweep"]["kernel off by"].max(),
        "beta_of_good_copy": results["good beta"],
        "accuracy": {in_words(*case): r[0] for case, r in results["trained"].items()},
        "best_guess": results["best guess"],
    }
    conclude("03_self_attention_copying", summary, lambda: check_claims(results), args)
    return results


if __name__ == "__main__":
    run(main)
