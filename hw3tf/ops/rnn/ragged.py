"""Recurrent layers over ragged batches: padded, with lengths, and cut off again.

Steps behind the end of a sequence cost the kernel nothing.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hw3tf.ops.rnn.options import RnnOptions


def padded(
    arguments: Mapping[str, Any], options: RnnOptions
) -> tuple[dict[str, Any], RnnOptions]:
    """Arguments with `inputs` padded to the longest sequence, and their `lengths`.

    No step of a sequence is masked, so there is no output to be zero: the last one of
    a short sequence is its own. With `reverse` the sequences are reversed, each by
    itself, and their steps then taken from the first to the last, so that the outputs
    begin at the first place.

    Raises:
        ValueError: If `inputs` has another ragged axis than that of the timesteps, or
            a mask or lengths are given beside it.
    """
    import tensorflow as tf

    inputs = arguments["inputs"]
    rank = inputs.flat_values.shape.rank
    if inputs.ragged_rank != 1 or rank not in (2, None):
        raise ValueError(
            "`inputs` must have one ragged axis, that of the timesteps: (batch, "
            f"(timesteps), features). Received: inputs.shape={inputs.shape} with "
            f"ragged_rank={inputs.ragged_rank}"
        )
    for name in ("mask", "lengths"):
        if arguments.get(name) is not None:
            raise ValueError(
                f"`{name}` must be None beside ragged `inputs`, which have their own "
                f"lengths. Received: {name}={arguments[name]!r}"
            )
    lengths = inputs.row_lengths()
    # A batch of empty sequences has a timestep, too, which is masked.
    longest = tf.maximum(tf.reduce_max(lengths), 1)
    dense = inputs.to_tensor(shape=tf.stack([-1, longest, -1]))
    dense = tf.ensure_shape(dense, [inputs.shape[0], None, inputs.shape[-1]])
    if options.reverse:
        dense = tf.reverse_sequence(dense, lengths, seq_axis=1)
    arguments = {**arguments, "inputs": dense, "lengths": lengths}
    return arguments, replace(options, reverse=False, zero_output_for_mask=False)


def cut_off(outputs: Any, inputs: Any) -> Any:
    """The outputs, `(batch, longest, units)`, as a ragged tensor like `inputs`."""
    return inputs.from_tensor(
        outputs,
        lengths=inputs.row_lengths(),
        row_splits_dtype=inputs.row_splits.dtype,
    )
