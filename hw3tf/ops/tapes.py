"""What TensorFlow's gradient tapes record: asked by who must know before a gradient is
asked for.

The functions are no part of TensorFlow's public interface. Where a version lacks them,
`is_recording` answers None, and tests/ops/test_integer_rnn_gradient.py fails.
"""

import functools
import logging
from collections.abc import Sequence
from typing import Any

logger = logging.getLogger("hw3tf")


@functools.cache
def _tapes() -> Any:
    try:
        from tensorflow.python import pywrap_tfe

        _ = (
            pywrap_tfe.TFE_Py_TapeSetIsEmpty,
            pywrap_tfe.TFE_Py_TapeSetShouldRecordBackprop,
        )
    except (ImportError, AttributeError):
        logger.debug("this TensorFlow does not tell what its tapes record")
        return None
    return pywrap_tfe


def is_recording() -> bool | None:
    """Whether a tape is recording; None if this TensorFlow does not tell."""
    tapes = _tapes()
    return None if tapes is None else not tapes.TFE_Py_TapeSetIsEmpty()


def records(tensors: Sequence[Any]) -> bool:
    """Whether a tape, of which `is_recording` has told, records one of the tensors."""
    return bool(_tapes().TFE_Py_TapeSetShouldRecordBackprop(list(tensors)))


def may_need_gradient(tensors: Sequence[Any]) -> bool:
    """Whether a gradient is likely to be asked for of what is computed of `tensors`.

    In a graph any tape that records counts: one outside of the function that is being
    traced does not know the tensors inside. A graph without a tape may get a gradient
    later, by `tf.gradients` or when it is called under a tape. Who relies on this
    answer must be able to do without what it did not keep.
    """
    import tensorflow as tf

    recording = is_recording()
    if not recording:
        return recording is None
    return not tf.executing_eagerly() or records(tensors)
