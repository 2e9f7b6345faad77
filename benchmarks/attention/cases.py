"""The cases of attention: their sizes, their inputs, and the right results.

Sizes are (B, T, S, N, K, H): batch, query length, key length, query heads, key and
value heads, size of a head.
"""

import dataclasses
import math

import ml_dtypes
import numpy as np

# Largest error against float64, relative to a row. A product in TF32 or bfloat16
# would be ten times over the bound of float32.
TOLERANCES = {"float32": 1e-4, "bfloat16": 3e-2, "float64": 1e-12}
DTYPES = {
    "float32": np.float32,
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
    "float64": np.float64,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table.

    Args:
        group: First word of the name: "forward", "training", "decode", "padded",
            "odd", "neighbour" or "curve".
        sizes: (B, T, S, N, K, H).
        is_causal: Query t sees keys 0..t.
        as_mask: Causality comes as a mask; for the kernel alone.
        dtype: "float32", "float64", "bfloat16" or, for the kernel alone, "float16".
        dropout: Share of the weights that are dropped; for the kernel alone.
        training: Forward and backward.
        shortest: The batch is padded; lengths are uniform from this to T.
        ahead: The bar: times the rate of the best peer.
        of_peak: The bar: share of the peak, of the read bandwidth for decode.
        neighbour: Name of the case with regular sizes beside an odd one.
    """

    group: str
    sizes: tuple
    is_causal: bool = False
    as_mask: bool = False
    dtype: str = "float32"
    dropout: float = 0.0
    training: bool = False
    shortest: int | None = None
    ahead: float | None = None
    of_peak: float | None = None
    neighbour: str | None = None

    @property
    def name(self):
        name = f"{self.group}-{'x'.join(map(str, self.sizes))}"
        name += "-training" if self.training and self.group != "training" else ""
        name += "-causal" if self.is_causal else ""
        name += "-mask" if self.as_mask else ""
        name += "-dropout" if self.dropout else ""
        endings = {"bfloat16": "-bf16", "float16": "-f16", "float64": "-f64"}
        return name + endings.get(self.dtype, "")

    @property
    def lengths(self):
        """Of the sequences of a padded batch; None if there is no padding."""
        if self.shortest is None:
            return None
        rng = np.random.default_rng(0)
        return rng.integers(self.shortest, self.sizes[1] + 1, self.sizes[0])

    @property
    def flops(self):
        """Of what is visible; the backward pass counts 2.5 times the forward."""
        batch, queries, keys, heads, _, size = self.sizes
        both = [(queries, keys)] * batch
        if self.shortest is not None:
            both = [(int(n), int(n)) for n in self.lengths]
        pairs = sum(
            int(np.minimum(np.arange(t) + 1, s).sum()) if self.is_causal else t * s
            for t, s in both
        )
        return 4 * size * heads * pairs * (3.5 if self.training else 1)

    @property
    def shapes(self):
        """Of the inputs, in layout (B, T, N, H)."""
        batch, queries, keys, heads, kv_heads, size = self.sizes
        of_queries = (batch, queries, heads, size)
        of_keys = (batch, keys, kv_heads, size)
        shapes = {"query": of_queries, "key": of_keys, "value": of_keys}
        return shapes | ({"grad_output": of_queries} if self.training else {})

    def bytes_of(self, *names):
        itemsize = np.dtype(DTYPES[self.dtype]).itemsize
        return sum(itemsize * math.prod(self.shapes[name]) for name in names)

    @property
    def bytes_of_inputs_and_outputs(self):
        inputs = self.bytes_of(*self.shapes)
        if self.training:  # the output, and a gradient of each other input
            return 2 * inputs
        return inputs + self.bytes_of("query")

    @property
    def bound(self):
        """Which peak bounds the rate: that of the dtype, or "bandwidth"."""
        return "bandwidth" if self.group == "decode" else self.dtype


def table():
    """The cases of the table, with their bars."""

    def forward(*sizes, ahead, of_peak, **more):
        return Case("forward", sizes, ahead=ahead, of_peak=of_peak, **more)

    def training(*sizes, ahead, of_peak, **more):
        return Case(
            "training", sizes, training=True, ahead=ahead, of_peak=of_peak, **more
        )

    decode = (4, 1, 4096, 8, 8, 128)
    causal = {"is_causal": True}
    bf16 = {"dtype": "bfloat16"}
    return [
        forward(32, 200, 200, 2, 2, 32, ahead=1.25, of_peak=0.75),
        forward(32, 256, 256, 4, 4, 64, ahead=1.25, of_peak=0.84),
        forward(8, 128, 128, 12, 12, 64, ahead=1.4, of_peak=0.8),
        forward(2, 512, 512, 12, 12, 64, ahead=1.15, of_peak=0.87),
        forward(1, 2048, 2048, 8, 8, 128, ahead=1.4, of_peak=0.86, **causal),
        forward(1, 4096, 4096, 8, 8, 64, ahead=1.12, of_peak=0.87),
        forward(1, 8192, 8192, 4, 4, 64, ahead=1.35, of_peak=0.86, **causal),
        forward(1, 2048, 2048, 16, 4, 64, ahead=1.65, of_peak=0.85, **causal),
        Case("decode", decode, ahead=1.7, of_peak=0.8),
        forward(2, 512, 512, 12, 12, 64, ahead=1.45, of_peak=0.8, **bf16),
        forward(1, 4096, 4096, 8, 8, 64, ahead=1.12, of_peak=0.82, **bf16),
        training(32, 256, 256, 4, 4, 64, ahead=1.55, of_peak=0.8),
        training(2, 512, 512, 12, 12, 64, ahead=1.3, of_peak=0.82),
        training(1, 4096, 4096, 8, 8, 64, ahead=1.2, of_peak=0.82),
        training(1, 4096, 4096, 8, 8, 64, ahead=1.6, of_peak=0.8, **causal),
        Case("padded", (32, 512, 512, 8, 8, 64), shortest=50, ahead=2),
    ]


def float64():
    """Cases in float64: no library is to be faster."""
    causal = (1, 1024, 1024, 8, 8, 64)
    all_sizes = [
        (2, 512, 512, 8, 8, 64),
        (8, 128, 128, 8, 8, 64),
        (2, 100, 100, 4, 4, 32),
        causal,
    ]
    return [
        Case(
            group,
            sizes,
            is_causal=sizes == causal,
            dtype="float64",
            training=group == "training",
            ahead=1.0,
        )
        for group in ("forward", "training")
        for sizes in all_sizes
    ]


def kernel_alone():
    """The cases of compare_builds.py beside the table and the curve."""
    return [
        Case(group, sizes, training=group == "training", **options)
        for group in ("forward", "training")
        for sizes in ((8, 512, 512, 8, 8, 64), (2, 2048, 2048, 8, 8, 32))
        for options in (
            {},
            {"dropout": 0.1},
            {"dtype": "float16"},
            {"dtype": "bfloat16"},
            {"is_causal": True},
            {"is_causal": True, "as_mask": True},
        )
    ]


# An odd size and the regular one beside it, whose rate it may not fall behind by
# more than a quarter.
HEAD_DIMS = {16: 32, 20: 32, 40: 32, 72: 64, 80: 64, 96: 128, 160: 128, 256: 128}
LENGTHS = {1: 1, 7: 8, 17: 16, 100: 96, 777: 768, 1000: 1024}
ODD_SHARE = 0.75


def odd(count, seed):
    """`count` cases with odd sizes, each after its neighbour.

    Every size occurs as often as every other, in an order drawn from `seed`; two
    thirds are forward passes, a third of all is causal.
    """
    rng = np.random.default_rng(seed)

    def drawn(values):
        repeats = -(-count // len(values))
        return [int(x) for _ in range(repeats) for x in rng.permutation(values)]

    cases = []
    columns = (drawn(list(HEAD_DIMS)), drawn(list(LENGTHS)), drawn(list(LENGTHS)))
    for i, (size, queries, keys) in enumerate(zip(*columns, strict=False)):
        if i == count:
            break
        # About the work of a small model's layer, where the lengths allow it.
        batch = int(np.clip(2**20 // (queries * keys), 1, 32))
        more = {"training": i % 3 == 2, "is_causal": bool(rng.random() < 1 / 3)}
        sizes = (batch, LENGTHS[queries], LENGTHS[keys], 8, 8, HEAD_DIMS[size])
        beside = Case("neighbour", sizes, **more)
        sizes = (batch, queries, keys, 8, 8, size)
        case = Case("odd", sizes, neighbour=beside.name, **more)
        cases += [beside, case]
    return list(dict.fromkeys(cases))


def curve():
    """Rate over length: forward and training."""
    return [
        Case("curve", (max(1, 2048 // length), length, length, 8, 8, 64), **more)
        for more in ({}, {"training": True})
        for length in (64, 128, 256, 512, 1024, 2048, 4096)
    ]


def shrunk(case):
    """The same kind of case, small enough to see only whether all works."""
    batch, queries, keys, heads, kv_heads, size = case.sizes
    kv_few = min(kv_heads, 2)  # Keras refuses 1
    if case.group == "curve":  # which stays one
        queries, keys = max(1, queries // 64), max(1, keys // 64)
    sizes = (
        min(batch, 2),
        min(queries, 64),
        min(keys, 64),
        kv_few * (heads // kv_heads),
        kv_few,
        size,
    )
    shortest = None if case.shortest is None else 20
    return dataclasses.replace(case, sizes=sizes, shortest=shortest, neighbour=None)


def make_inputs(case):
    """The arrays of `case.shapes`."""
    rng = np.random.default_rng(1)
    return {
        name: rng.standard_normal(shape, np.float32).astype(DTYPES[case.dtype])
        for name, shape in case.shapes.items()
    }


def sampled(case):
    """Which rows of the results are checked: name -> (batch, position, head)."""
    batch, queries, keys, heads, kv_heads, _ = case.sizes
    rng = np.random.default_rng(2)
    b = rng.integers(batch, size=8)
    ends = [queries] * 8 if case.shortest is None else case.lengths[b]
    t = [int(rng.integers(end)) for end in ends]
    t[0] = ends[0] - 1
    rows = (b.tolist(), [int(i) for i in t], rng.integers(heads, size=8).tolist())
    rows_of = {"output": rows}
    if case.training:
        # One key head, since a row of its gradients takes all its queries.
        b, k = int(rng.integers(batch)), int(rng.integers(kv_heads))
        columns = ([b] * 4, rng.integers(keys, size=4).tolist(), [k] * 4)
        rows_of |= {"grad_query": rows, "grad_key": columns, "grad_value": columns}
    return rows_of


def _probabilities(case, inputs, b, positions, head):
    """Of the queries at `positions`: (len(positions), S), in float64."""
    group = case.sizes[3] // case.sizes[4]
    query = inputs["query"][b, positions, head].astype(np.float64)
    key = inputs["key"][b, :, head // group].astype(np.float64)
    scores = query @ key.T * case.sizes[5] ** -0.5
    if case.is_causal:
        scores[np.arange(len(key)) > np.asarray(positions)[:, None]] = -np.inf
    if case.shortest is not None:
        scores[:, case.lengths[b] :] = -np.inf
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _grad_scores(inputs, weights, b, positions, head, kv_head):
    """The gradient of the scores, from dP = dO V^T and D = rowsum(P dP)."""
    grad = inputs["grad_output"][b, positions, head].astype(np.float64)
    value = inputs["value"][b, :, kv_head].astype(np.float64)
    grad_weights = grad @ value.T
    mean = (weights * grad_weights).sum(axis=1, keepdims=True)
    return weights * (grad_weights - mean)


def reference(case, inputs):
    """The sampled rows in float64: name -> (rows, H)."""
    group, scale = case.sizes[3] // case.sizes[4], case.sizes[5] ** -0.5
    where = sampled(case)
    right = {name: [] for name in where}
    for b, t, head in zip(*where["output"], strict=True):
        kv_head = head // group
        weights = _probabilities(case, inputs, b, [t], head)
        right["output"] += [*(weights @ inputs["value"][b, :, kv_head].astype(float))]
        if case.training:
            grad = _grad_scores(inputs, weights, b, [t], head, kv_head)
            key = inputs["key"][b, :, kv_head].astype(float)
            right["grad_query"] += [*(scale * grad @ key)]
    if case.training:
        b, at, kv_head = (
            where["grad_key"][0][0],
            where["grad_key"][1],
            where["grad_key"][2][0],
        )
        right["grad_key"] = right["grad_value"] = 0.0
        for head in range(kv_head * group, (kv_head + 1) * group):
            for start in range(0, case.sizes[1], 512):
                positions = list(range(start, min(start + 512, case.sizes[1])))
                weights = _probabilities(case, inputs, b, positions, head)
                grad = _grad_scores(inputs, weights, b, positions, head, kv_head)
                query = inputs["query"][b, positions, head].astype(float)
                grad_output = inputs["grad_output"][b, positions, head].astype(float)
                right["grad_key"] += scale * grad[:, at].T @ query
                right["grad_value"] += weights[:, at].T @ grad_output
    return {name: np.asarray(rows) for name, rows in right.items()}


def wrong(case, rows, right):
    """What is wrong with a library's sampled rows; empty if nothing is."""
    for name, expected in right.items():
        error = np.abs(np.asarray(rows[name], np.float64) - expected).max(axis=1)
        # Inputs are about 1: below 0.05 a row is small by cancellation.
        size = np.maximum(np.abs(expected).max(axis=1), 0.05)
        worst = float((error / size).max())
        bound = TOLERANCES[case.dtype]
        if not worst <= bound:
            return f"wrong: {name} is off by {worst:.1e}, allowed are {bound:.0e}"
    return ""
