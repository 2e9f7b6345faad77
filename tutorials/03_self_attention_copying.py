# %% [markdown]
r"""# How attention copies

*Attention without a single weight copies its input. When, and why?*

Run time: 3 min on 2 CPU cores, `--quick` half a minute. Download: none.

**Question 3.** Take four orthogonal vectors $a, b, c, d$ of norm $\beta$ and make three
tokens of them: $x_1 = d + b$, $x_2 = a$, $x_3 = c + b$. The simplest self-attention has
no weight matrices: queries, keys and values are the tokens themselves, and the scores
are not divided by the root of the dimension.

- **3a.** What are the norms of the tokens?
- **3b.** What are the outputs $y_1, y_2, y_3$ for large $\beta$?
- **3c.** Describe in a couple of sentences how attention copies.

You will see the answers in a picture first. Then come the formulas, what breaks the
copy, what repairs it, and a layer that learns to copy. These are the claims. Each is
judged in the cell that tests it.

1. The norms are $\beta\sqrt 2$, $\beta$, $\beta\sqrt 2$, and the outputs go to
   $x_1, x_2, x_3$: from $\beta = 2.84$ on every copy is good to a thousandth.
2. The kernel gives what the closed form says, for every $\beta$ from 0.1 to 30,
   within 3e-6 of the norm of the token (float32).
3. A fourth token $x_4 = b$, which is a part of two others, is not copied: it becomes
   the average of all tokens that contain it.
4. If the scores are divided by $\sqrt n$, for vectors of $n$ numbers, a copy needs
   a norm that is $n^{1/4}$ times as large.
5. If the norms of the tokens are noisy, a copy fails as often as one norm is more than
   twice another: for noise $e^{\sigma\varepsilon}$ with probability
   $\Phi(-\ln 2/(\sigma\sqrt 2))$.
6. Two heads with the right matrices copy all four tokens to 1e-5 at $\beta = 10$, and
   if every norm is large, the ratios of the norms do not matter. At $\beta = 1$ they
   still miss every token by more than a third. One of these heads alone cannot copy.
7. A trained layer learns to copy with and without position embeddings. It learns to
   reverse a sequence only with them: without, it does not beat the best guess.

Run the cells from top to bottom and change what you like. As a program:

```
python tutorials/03_self_attention_copying.py --out runs/self_attention_copying
```
"""

# %%
import os
import subprocess
import sys

backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # or jax, or torch
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
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
import math
from statistics import NormalDist

import keras
import numpy as np

from hw3tf.course.lesson import Lesson
from hw3tf.course.plots import copying as draw

to_numpy = keras.ops.convert_to_numpy  # of tensors of any backend

# %% [markdown]
# ## Settings
#
# Where there are two values, the left one is that of this notebook, the right one that
# of a full run: `lesson.settings(full=True, ...)`, or the program without `--quick`.
#
# The same cells run with Keras on JAX and on PyTorch: set `KERAS_BACKEND` to `jax` or
# `torch` before the notebook is started.

# %%
lesson = Lesson("03_self_attention_copying", claims=7)
settings = lesson.settings(
    num_noisy=(4000, 20_000),  # sequences with noisy norms
    num_training=(40_000, 100_000),  # sequences to copy or reverse
    vocab_size=20,
    sequence_length=12,  # even: no token stays in its place when reversed
    embed_dim=64,
    seed=0,
)

# %% [markdown]
# ## The tokens
#
# The four directions are drawn at random and made orthogonal. Nothing below depends on
# their lying along the axes.


# %%
def directions(size=4, seed=settings.seed):
    """Orthogonal unit vectors a, b, c, d: (4, size), float64."""
    noise = np.random.default_rng(seed).normal(size=(size, size))
    return np.linalg.qr(noise)[0][:4]


def make_tokens(abcd):
    """x1, x2, x3 and a fourth, x4 = b, which comes later: (4, size)."""
    a, b, c, d = abcd
    return np.stack([d + b, a, c + b, b])


tokens = make_tokens(directions())
print(tokens[:3].round(2))

# %% [markdown]
# **Predict, then run:** these tokens are made of vectors of norm 1. How long are they?

# %%
norms = np.linalg.norm(tokens[:3], axis=1)
print(norms.round(4))
root = math.sqrt(2)
lesson.claim(1, "norms at beta = 1", norms, "~", [root, 1, root], 1e-12)

# %% [markdown]
# Orthogonal vectors obey Pythagoras: $|d + b|^2 = |d|^2 + |b|^2 = 2\beta^2$.
#
# > **Answer to 3a.** $|x_1| = |x_3| = \beta\sqrt 2$ and $|x_2| = \beta$. The vectors
# > are orthogonal, so the squares of their norms add up.
#
# ## Attention, before any algebra
#
# The attention is the kernel's, in float32, with one head. It returns the outputs and
# the weights of the average.


# %%
def attend(x, scale=1.0):
    """Self-attention without weight matrices.

    Tokens (..., length, size) -> outputs alike, weights (..., length, length).
    """
    rows = np.reshape(x, (-1, *np.shape(x)[-2:])).astype("float32")[:, :, None]
    y, weights = hw3tf.ops.dot_product_attention(
        rows, rows, rows, scale=scale, return_attention_scores=True
    )
    shape, length = np.shape(x), np.shape(x)[-2]
    y, weights = to_numpy(y), to_numpy(weights)
    return y.reshape(shape), weights.reshape(*shape[:-1], length)


# %% [markdown]
# **Predict, then run:** the score of two tokens is their product. Which two of the
# three tokens are alike? And what does the softmax make of the scores when all vectors
# become twice as long?

# %%
three_betas = [1, 2, 3]
x = np.stack([beta * tokens[:3] for beta in three_betas])
scores = x @ np.swapaxes(x, 1, 2)
_, weights = attend(x)
lesson.show("scores", draw.scores_and_weights(three_betas, scores, weights))

# %% [markdown]
# Each token has its largest score with itself. $x_1$ and $x_3$ share $b$ and score
# $\beta^2$ with each other; $x_2$ shares nothing. Scores grow with $\beta^2$, and the
# softmax turns differences into ratios: at $\beta = 1$ every row looks everywhere, at
# $\beta = 3$ each token looks at itself.
#
# Now for many values of $\beta$. **Predict, then run:** which token is the last to look
# only at itself?

# %%
betas = np.geomspace(0.1, 30, 120)
many = betas[:, None, None] * tokens[:3]
copies, weights_of_many = attend(many)
lesson.show("weights", draw.weights_by_norm(betas, weights_of_many))

# %% [markdown]
# From $\beta = 3$ on the weights are those of the identity matrix. $x_2$ is the last:
# its score with itself is ahead of *both* others by only $\beta^2$, while $x_1$ is
# ahead of $x_3$ by $\beta^2$ and of $x_2$ by $2\beta^2$.
#
# > **Answer to 3b.** For large $\beta$ every token attends to itself alone:
# > $y_1 \to x_1$, $y_2 \to x_2$, $y_3 \to x_3$. Its score with itself is ahead of every
# > other by at least $\beta^2$, so the other weights fall as $e^{-\beta^2}$ or faster.
#
# > **Answer to 3c.** The product of query and key decides *where* a token looks, the
# > value is *what* it gets from there. When one score is ahead of the others by far,
# > the softmax is saturated, the average has one term, and the output is a copy of that
# > value.
#
# ## The algebra
#
# The scores, and with $\epsilon = e^{-\beta^2}$ the softmax of their rows:
#
# $$\begin{pmatrix} x_i \cdot x_j \end{pmatrix} = \beta^2
#   \begin{pmatrix} 2 & 0 & 1 \\ 0 & 1 & 0 \\ 1 & 0 & 2 \end{pmatrix}$$
#
# $$w_1 = \frac{(1,\ \epsilon^2,\ \epsilon)}{1 + \epsilon + \epsilon^2}, \qquad
#   w_2 = \frac{(\epsilon,\ 1,\ \epsilon)}{1 + 2\epsilon}, \qquad
#   w_3 = \frac{(\epsilon,\ \epsilon^2,\ 1)}{1 + \epsilon + \epsilon^2}$$


# %%
def exact_weights(beta):
    """The three rows of the closed form, float64: (3, 3)."""
    e = math.exp(-(beta**2))
    first = np.array([1, e * e, e]) / (1 + e + e * e)
    second = np.array([e, 1, e]) / (1 + 2 * e)
    third = np.array([e, e * e, 1]) / (1 + e + e * e)
    return np.stack([first, second, third])


# %% [markdown]
# How good is the copy? With $p = w_{12}$, $q = w_{13}$ and $r = w_{21}$ the errors are,
# along $d, b, a, c$,
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
def exact_errors(beta):
    """The relative errors of the closed form: of x1 and of x2."""
    _, p, q = exact_weights(beta)[0]
    r = exact_weights(beta)[1, 0]
    return math.sqrt(((p + q) ** 2 + 2 * p * p + q * q) / 2), r * math.sqrt(10)


def relative_error(y, x):
    """Distance of every output from its token, in norms of the token."""
    return np.linalg.norm(y - x, axis=-1) / np.linalg.norm(x, axis=-1)


GOOD_COPY = 1e-3
GOOD_BETA = math.sqrt(math.log(math.sqrt(10) / GOOD_COPY - 2))

# %% [markdown]
# **Predict, then run:** $e^{2 \cdot 30^2}$ is too large for float32 and for float64.
# What happens to the kernel at $\beta = 30$?

# %%
exact = np.stack([exact_weights(beta) for beta in betas])
on_paper = np.array([exact_errors(beta) for beta in betas])
errors = relative_error(copies, many)
off_by = relative_error(copies - exact @ many + many, many).max(axis=1)
good = GOOD_BETA, GOOD_COPY
picture = draw.copy_errors(betas, errors, on_paper, off_by, good)
lesson.show("errors", picture)

# %% [markdown]
# Nothing happens. The kernel subtracts the largest score of a row before it
# exponentiates, as the closed form does. The dots lie on the lines until the error is
# as small as float32 can show. The dotted line is the kernel's rounding to float32, at
# every $\beta$ about a ten-millionth of a token or less.

# %%
lesson.claim(2, "error of the kernel, in tokens", off_by.max(), "<", 3e-6)
lesson.claim(2, "weights, on paper and computed", weights_of_many, "~", exact, 3e-6)
worst = errors[betas > GOOD_BETA].max()
lesson.claim(1, "worst copy beyond beta = 2.84", worst, "<=", GOOD_COPY)

# %% [markdown]
# The gray lines cross where a copy is good to a thousandth, at the $\beta$ of the
# formula. The kernel alone, asked by bisection, finds the same:


# %%
def find_good_beta(size=4, scale=1.0):
    """The least beta at which the kernel copies x1, x2, x3 to a thousandth."""
    low, high, tokens = 0.1, 100.0, make_tokens(directions(size))[:3]
    while high - low > 1e-4:
        beta = (low + high) / 2
        y, _ = attend(beta * tokens, scale)
        good = relative_error(y, beta * tokens).max() <= GOOD_COPY
        low, high = (low, beta) if good else (beta, high)
    return high


good_beta = find_good_beta()
print(f"copies are good to 0.001 from beta = {good_beta:.4f} on")
lesson.claim(1, "least beta of a good copy", good_beta, "~", GOOD_BETA, 1e-3)

# %% [markdown]
# ## What breaks the copy: a token that is a part of others
#
# Add $x_4 = b$. **Predict, then run:** $\beta$ is 10, so each of the first three tokens
# is copied. What does $x_4$ look at?

# %%
four = 10.0 * tokens
y, weights = attend(four)
lesson.show("tie", draw.weights_of_tokens(weights, "With a fourth token, $x_4 = b$"))

# %% [markdown]
# The score of $x_4$ with $x_1$ is $b \cdot (d + b) = \beta^2$, with $x_3$ the same, and
# with itself $\beta^2$: a tie of three. However large $\beta$ is,
# $y_4 = (x_1 + x_3 + x_4)/3 = b + (c + d)/3$, an average. To be copied, a token must be
# more like itself than like any other: $x_i \cdot x_j < |x_i|^2$.

# %%
y, _ = attend(four)
tie_errors = relative_error(y, four)
average = float(relative_error(y[3], four[[0, 2, 3]].mean(axis=0)))
lesson.claim(3, "error of x1, x2, x3 beside x4", tie_errors[:3].max(), "<", 1e-5)
lesson.claim(3, "error of x4, |c + d|/3", tie_errors[3], "~", root / 3, 1e-5)
lesson.claim(3, "distance of y4 from the average", average, "<", 1e-5)

# %% [markdown]
# ## What breaks the copy: the scale
#
# Transformers divide scores by $\sqrt n$, for vectors of $n$ numbers. **Predict, then
# run:** for vectors of 256 numbers, by which factor must the tokens be longer?

# %%
scaled = {n: find_good_beta(n, 1 / math.sqrt(n)) for n in (4, 16, 64, 256, 1024)}
lesson.show("scale", draw.scaled_norms(scaled, GOOD_BETA))

# %% [markdown]
# By $256^{1/4} = 4$. The scores are $\beta^2/\sqrt n$ in place of $\beta^2$, so $\beta$
# must be $n^{1/4}$ times as large. Embeddings of norm 1 are not copied by themselves: a
# layer has to learn matrices that make the scores large.

# %%
for n, beta in scaled.items():
    ratio = beta / (GOOD_BETA * n**0.25)
    lesson.claim(4, f"beta for vectors of {n}, over 2.84 n^(1/4)", ratio, "~", 1, 1e-3)

# %% [markdown]
# ## What breaks the copy: noise in the norms
#
# Let token $i$ be $n_i x_i$. Token 1 scores $2 n_1^2 \beta^2$ with itself and
# $n_1 n_3 \beta^2$ with token 3: it becomes a copy of token 3 once $n_3 > 2 n_1$. In a
# dot product the long tokens win.
#
# Take $n_i = e^{\sigma \varepsilon_i}$ with normal $\varepsilon_i$. Then
# $\ln n_3 - \ln n_1$ is normal with standard deviation $\sigma\sqrt 2$, and the copy
# fails with probability $\Phi(-\ln 2 / (\sigma\sqrt 2))$.


# %%
def noisy_tokens(sigma, num_tokens, beta=300.0):
    """Sequences of tokens whose norms are noisy: (sequences, num_tokens, 4)."""
    rng = np.random.default_rng(settings.seed)
    noise = np.exp(sigma * rng.normal(size=(settings.num_noisy, num_tokens, 1)))
    return beta * noise * tokens[:num_tokens]


def copied(y, x):
    """The share of tokens that are copied to a hundredth, one number per token."""
    return np.mean(relative_error(y, x) < 1e-2, axis=0)


def expected_copies(sigma):
    """On paper, for x1 and x3."""
    return NormalDist().cdf(math.log(2) / (sigma * math.sqrt(2)))


# %% [markdown]
# **Predict, then run:** with $\sigma = 0.5$, two norms of three are between 0.6 and
# 1.65 times $\beta$. How many of the tokens $x_1$ and $x_3$ are still copied?

# %%
rows = []
for sigma in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0):
    x = noisy_tokens(sigma, num_tokens=3)
    plain = copied(attend(x)[0], x)[[0, 2]].mean()
    rows.append((sigma, expected_copies(sigma), plain))
rows = np.array(rows)
lesson.show("noise", draw.noisy_copies(rows))
lesson.claim(5, "share of copies, and on paper", rows[:, 2], "~", rows[:, 1], 0.03)

# %% [markdown]
# At $\sigma = 0.5$, five of six. ($x_2$ is always copied: it shares nothing.) The dots
# follow the formula, in which there is no $\beta$: once all scores are large, longer
# vectors do not help, since the scores grow together.
#
# ## What repairs it: two heads
#
# Matrices may send the tokens elsewhere before they are compared. The four tokens are
# linearly independent, so one matrix, for queries and keys alike, can send them to any
# four points. Take four points of a circle, a quarter turn apart. The product of a
# point with itself is positive, with every other point 0 or negative. So the largest
# score of a row is its own, whatever the ratios of the norms are.
#
# The circle has two dimensions, so a head has size 2, half of the tokens' size of 4. It
# attends to the right token, but brings back only two of the four coordinates of the
# value. A second head with the same queries and keys brings the other two. The values
# of the first head are the two main directions of the tokens, the best that two
# dimensions can do (Eckart and Young).


# %%
def heads_that_copy(num_heads):
    """A layer of heads of size 2 that copies x1, x2, x3, x4, or half of them."""
    circle = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    to_circle = np.linalg.solve(tokens, circle)  # tokens @ to_circle = circle
    main = np.linalg.svd(tokens)[2]  # rows: orthonormal, the main directions first
    layer = hw3tf.layers.MultiHeadAttention(num_heads, 2, use_bias=False)
    layer.build((None, None, 4), (None, None, 4))
    same_for_all = np.stack([to_circle] * num_heads, axis=1)
    values = main[: 2 * num_heads].reshape(num_heads, 2, 4)
    layer.set_weights([same_for_all, same_for_all, np.moveaxis(values, 2, 0), values])
    return layer


# %% [markdown]
# **Predict, then run:** what do the two heads look at? Where did the tie go?

# %%
layer, batch = heads_that_copy(2), 10.0 * tokens[None]
_, weights = layer(batch, batch, return_attention_scores=True)
points = np.einsum("td,dhk->thk", batch[0], layer.get_weights()[0])[:, 0]
lesson.show("heads", draw.heads(points, to_numpy(weights)[0]))

# %% [markdown]
# Both heads look at one token each, $x_4$ included. The left panel shows the queries of
# a head, computed from the layer's matrices: no token is a part of another any more.
#
# The ratios do not matter, but the norms do: the score of a token with itself is
# $\beta^2/\sqrt 2$ here, and the scores beside it are 0. **Predict, then run:** from
# which $\beta$ on are these copies good? And how much of the tokens does one head bring
# back?

# %%
head_errors = {}
for beta in (1, 2, 3, 5, 10):
    x = beta * tokens[None]
    head_errors[beta] = e = relative_error(to_numpy(layer(x, x)), x)[0]
    print(f"beta {beta:2}: two heads miss by {e.min():.1e} to {e.max():.1e}")
one = to_numpy(heads_that_copy(1)(x, x))
one_head = np.linalg.norm(one - x) / np.linalg.norm(x)
squares = np.linalg.svd(tokens, compute_uv=False) ** 2
least = math.sqrt(squares[2:].sum() / squares.sum())
print(f"beta 10: one head misses by {one_head:.3f}, rank 2 by {least:.3f} at least")

# %% [markdown]
# At $\beta = 1$ the heads miss by 35 to 84 %, at 2 by 7 to 17 %; from about 5 on the
# copies are good. One head misses by nearly a half even at 10: no matrix of rank 2 can
# do better.

# %%
lesson.claim(6, "least error at beta = 1", head_errors[1].min(), ">", 1 / 3)
lesson.claim(6, "largest error at beta = 10", head_errors[10].max(), "<", 1e-5)
lesson.claim(6, "least error of rank 2", least, ">", 0.3)
lesson.claim(6, "error of one head at beta = 10", one_head, "~", least, 1e-3)

# %% [markdown]
# Back to the noise. With $\beta = 300$ even the shortest of the noisy tokens is long
# enough for the heads. **Predict, then run:** how many tokens do they copy?

# %%
shares = []
for sigma in rows[:, 0]:
    x = noisy_tokens(sigma, num_tokens=4)
    shares.append(copied(to_numpy(layer(x, x)), x).min())
lesson.show("noise_and_heads", draw.noisy_copies(rows, shares))
lesson.claim(6, "least share of copies, noisy norms", min(shares), ">", 0.999)

# %% [markdown]
# All of them. A long token scores higher where it is looked for, but where it is not,
# its score is 0 or negative however long it is.
#
# ## A layer that learns to copy, and to reverse
#
# Now nobody chooses the matrices. One head reads a sequence of random tokens. There is
# no residual connection, so everything has to pass through attention. It is trained to
# say, at every position, the token that stands there (copy), or the one that stands
# there in the reversed sequence; each with and without position embeddings.


# %%
def build_model(positions):
    """Token ids (batch, length) -> logits (batch, length, vocab_size)."""
    length, size = settings.sequence_length, settings.embed_dim
    tokens = keras.Input((length,), dtype="int32")
    if positions:
        embedding = hw3tf.layers.TokenAndPositionEmbedding
        x = embedding(settings.vocab_size, length, size, mask_zero=False)(tokens)
    else:
        x = keras.layers.Embedding(settings.vocab_size, size)(tokens)
    y = hw3tf.layers.MultiHeadAttention(1, size, name="attention")(x, x)
    return keras.Model(tokens, keras.layers.Dense(settings.vocab_size)(y))


def random_sequences(number, seed):
    size = number, settings.sequence_length
    return np.random.default_rng(seed).integers(0, settings.vocab_size, size, "int32")


# %% [markdown]
# Without positions, attention does not know where it is: swap two tokens, and the
# outputs swap. To copy, it need not know. To reverse, it can only guess. It knows the
# token at its own position, and that the answer is one of the other tokens, each as
# likely. The best guess is the most frequent of them. Without positions, no model beats
# the share of that most frequent token:


# %%
def best_guess(tokens):
    """How often the most frequent of the other tokens is right."""
    length = tokens.shape[1]
    same = tokens[:, :, None] == tokens[:, None, :]
    others = same.sum(axis=2)[:, None] - same  # how often each occurs beside this one
    return float(np.mean(others.max(axis=2) / (length - 1)))


test = random_sequences(2000, settings.seed + 1)
guess = best_guess(test)
print(f"without positions, no model reverses more than {guess:.1%} of the tokens")

# %% [markdown]
# The training, for one layer:


# %%
def train(name, answer):
    """Trains a model to give `answer` of the tokens; name: "... with positions"."""
    keras.utils.set_random_seed(settings.seed)
    model = build_model("with positions" in name)
    steps = settings.num_training // 100
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    tokens = random_sequences(settings.num_training, settings.seed)
    watch = [lesson.training(name)]
    model.fit(tokens, answer(tokens), batch_size=100, verbose=0, callbacks=watch)
    return model


# %% [markdown]
# **Predict, then run:** one of the four layers fails. Which?


# %%
def copy(x):
    return x


def reverse(x):
    return x[:, ::-1]


models, accuracies = {}, {}
for answer in (copy, reverse):
    for positions in ("with positions", "without positions"):
        name = f"{answer.__name__} {positions}"
        models[name] = train(name, answer)
        test_of_it = test, answer(test)
        accuracies[name] = models[name].evaluate(*test_of_it, verbose=0)[1]
        print(f"{name}: {accuracies[name]:.4f} of the test tokens right")

# %% [markdown]
# And what do they look at? The weights of the trained heads, for a test sequence in
# which some tokens stand twice:


# %%
def attention_map(model, tokens):
    """Weights of the trained head: (sequences, length, length)."""
    layer = model.get_layer("attention")
    x = keras.Model(model.input, layer.input[0])(tokens)
    return to_numpy(layer(x, x, return_attention_scores=True)[1])[:, 0]


maps = {name: attention_map(model, test) for name, model in models.items()}
k = int(np.argmax([len(set(x)) < len(x) - 1 for x in test.tolist()]))
one_of_each = {name: weights[k] for name, weights in maps.items()}
lesson.show("trained", draw.trained_maps(one_of_each, test[k], accuracies))

# %% [markdown]
# A copy is the diagonal, a reversal the other diagonal. Where a token stands twice, the
# copying head without positions looks at both places alike: it cannot tell them apart,
# and need not, since the values are equal. The layer that has to reverse without
# positions spreads its weights over all other tokens, which is how it finds the most
# frequent one.

# %%
for name in ("copy with positions", "copy without positions", "reverse with positions"):
    lesson.claim(7, f"accuracy, {name}", accuracies[name], ">", 0.99)
    looked_at = np.take_along_axis(test, maps[name].argmax(axis=2), axis=1)
    right = np.mean(looked_at == (copy if "copy" in name else reverse)(test))
    lesson.claim(7, f"rows that look right, {name}", right, ">", 0.95)
guessed = accuracies["reverse without positions"]
what = f"accuracy, reverse without positions (guess: {guess:.3f})"
lesson.claim(7, what, guessed, "<", guess + 0.02)

# %% [markdown]
# ## All results

# %%
lesson.finish(
    kernel_off_by=float(off_by.max()),
    beta_of_good_copy=good_beta,
    accuracy=accuracies,
    best_guess=guess,
)

# %% [markdown]
# ## Conclusion
#
# Attention copies because a token is most like itself. It fails where that is not so:
# when a token is a part of others, when another is much longer, when scores are small.
# Weight matrices repair all three. They move the tokens to where they can be told apart
# and make the scores large, and several heads bring back what one cannot hold. What
# attention cannot know without being told is where a token stands.
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
