"""Subclasses of attention layers that compute something else than their base. Each is
made by a function of the base, which is Keras's layer or ours."""

import keras


class Sharper(keras.layers.Softmax):
    """Of twice the scores."""

    def call(self, inputs, mask=None):
        return super().call(2.0 * inputs, mask=mask)


class Halving(keras.layers.Layer):
    """In the place of a dropout layer: half of every weight, in inference, too."""

    def call(self, inputs, training=None):
        return inputs * 0.5


def own_softmax(base):
    class OwnSoftmax(base):
        def build(self, query_shape, value_shape, key_shape=None):
            super().build(query_shape, value_shape, key_shape)
            self._softmax = Sharper(dtype=self.dtype_policy)

    return OwnSoftmax


def own_dropout(base):
    class OwnDropout(base):
        def build(self, query_shape, value_shape, key_shape=None):
            super().build(query_shape, value_shape, key_shape)
            self._dropout_layer = Halving(dtype=self.dtype_policy)
            self._dropout = self.dropout = 0.5

    return OwnDropout


def own_scale(base):
    class OwnScale(base):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self._inverse_sqrt_key_dim = self._inverse_sqrt_head_dim = 0.1

    return OwnScale


def own_projection(base):
    """Keys that are negated: no reason not to be fused."""

    class OwnProjection(base):
        def call(self, query, value, key=None, **kwargs):
            return super().call(query, value, -value if key is None else key, **kwargs)

    return OwnProjection


def own_weights(base):
    class OwnWeights(base):
        def _masked_softmax(self, *args, **kwargs):
            return 1.5 * super()._masked_softmax(*args, **kwargs)

    return OwnWeights


def own_scores(base):
    class OwnScores(base):
        def _calculate_scores(self, query, key):
            return 2.0 * super()._calculate_scores(query, key)

    return OwnScores


def own_application(base):
    class OwnApplication(base):
        def _apply_scores(self, scores, value, *args, **kwargs):
            return super()._apply_scores(scores, 3.0 * value, *args, **kwargs)

    return OwnApplication


_HEADS = {
    "softmax": own_softmax,
    "dropout": own_dropout,
    "scale": own_scale,
    "projection": own_projection,
    "weights": own_weights,
}
_NO_HEADS = {"scores": own_scores, "application": own_application}
CUSTOM = {
    "MultiHeadAttention": _HEADS,
    "GroupQueryAttention": _HEADS,
    "Attention": _NO_HEADS,
    "AdditiveAttention": _NO_HEADS,
}
