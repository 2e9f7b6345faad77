"""Small saved models that later versions must load (docs/compatibility.md).

    python tests/helpers/saved_models.py

writes tests/data/NAME-VERSION.keras and NAME-VERSION.npz, its inputs and outputs. Run
it before a release that changes the format. A file that exists is never written again,
since users of that version have it.
"""

import io
import pathlib
import tempfile
import zipfile

FOLDER = pathlib.Path(__file__).parents[1] / "data"


def attention_model():
    """Every layer of hw3tf with floats, and the function, on tokens."""
    import keras

    import hw3tf

    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = hw3tf.layers.TokenAndPositionEmbedding(9, 6, 4)(tokens)
    x = x + hw3tf.layers.MultiHeadAttention(2, 2, dropout=0.1)(x, x)
    layer = hw3tf.layers.GroupQueryAttention(2, 2, 1, sliding_window=3)
    x = x + layer(x, x, use_causal_mask=True)
    heads = keras.layers.Reshape((6, 2, 2))(x)
    x = hw3tf.ops.dot_product_attention(heads, heads, heads, is_causal=True)
    return keras.Model(tokens, keras.layers.Flatten()(x), name="attention")


def integer_model():
    """The recurrence as layer and as cell, and its output layer, on integers."""
    import keras

    import hw3tf

    steps = keras.Input((5, 2), dtype="int64", name="steps")
    minus_one = keras.initializers.Constant(-1)
    x = hw3tf.layers.IntegerRNN(
        3,
        recurrent_initializer=minus_one,
        return_sequences=True,
        overflow="saturate",
        dtype="int64",
    )(steps)
    cell = hw3tf.reference.IntegerRNNCell(2, activation="relu", dtype="int64")
    x = keras.layers.RNN(cell, dtype="int64")(x)
    return keras.Model(steps, [x, hw3tf.layers.Logistic(0.01)(x)], name="integers")


def saved(model):
    """The bytes of the model's file, compressed: Keras leaves out the compression,
    and most of its file is empty."""
    compressed = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        with (
            zipfile.ZipFile(path) as theirs,
            zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED) as ours,
        ):
            for name in theirs.namelist():
                ours.writestr(name, theirs.read(name))
    return compressed.getvalue()


def write(version):
    """Writes two models of a version, their inputs and outputs."""
    import numpy as np

    rng = np.random.default_rng(7)
    for make, x in (
        (attention_model, rng.integers(0, 9, (3, 6), "int32")),
        (integer_model, rng.integers(-50, 50, (3, 5, 2))),
    ):
        model = make()
        for weight in model.weights:
            normal = rng.standard_normal(weight.shape)
            weight.assign(np.rint(2 * normal) if "int" in weight.dtype else normal)
        outputs = model(x)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        path = FOLDER / f"{model.name}-{version}.keras"
        with path.open("xb") as file:  # refuses to write over what exists
            file.write(saved(model))
        np.savez_compressed(path.with_suffix(".npz"), x, *map(np.asarray, outputs))


if __name__ == "__main__":
    import hw3tf

    write(hw3tf.__version__)
