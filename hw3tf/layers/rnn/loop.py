"""`inner_loop` of Keras's recurrent layers on the kernel.

`keras.layers.RNN.call` prepares the states, draws dropout and keeps the last states;
between these it calls `inner_loop`, the loop over time. That method alone is replaced,
in our layers and in accelerated ones.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras.src import backend

from hw3tf.layers.fallback import Refused
from hw3tf.layers.rnn.stock import CELLS, GRU, STOCK_RECURRENCE, KerasCell
from hw3tf.ops.paths import logger
from hw3tf.ops.rnn.activations import resolved
from hw3tf.ops.rnn.call import RnnCall
from hw3tf.ops.rnn.options import RnnOptions

ops = keras.ops


def fused_or(own: Callable[..., Any], layer: Any, *args: Any, **kwargs: Any) -> Any:
    """`fused_loop`, or `own` with the same arguments where the kernel does not compute
    what `layer` does. Errors are those of the kernel's arguments, by their names."""
    reason = STOCK_RECURRENCE.changed(layer)
    if not reason:
        try:
            return fused_loop(layer, *args, **kwargs)
        except Refused as refused:
            reason = str(refused)
    logger.debug("%s runs as in Keras: %s", layer.name, reason)
    return own(*args, **kwargs)


def fused_loop(
    layer: Any,
    sequences: Any,
    initial_state: Any,
    mask: Any,
    training: Any = False,
) -> tuple[Any, Any, list[Any]]:
    """`inner_loop` of a recurrent layer, on the kernel.

    Args:
        layer: Built `keras.layers.RNN` in which `STOCK_RECURRENCE` finds nothing.
        sequences: Tensor of shape `(batch, timesteps, features)`.
        initial_state: One tensor of shape `(batch, units)` or a list of as many as the
            cell has; a batch of 1 serves all.
        mask: Optional tensor of shape `(batch, timesteps)`, nonzero = takes part, or
            with a last axis of size 1; a batch of 1 serves all. Or a list that begins
            with it.
        training: Whether the dropout that Keras has drawn is applied.

    Returns:
        The last output, `(batch, units)`; all outputs, `(batch, timesteps, units)`, or,
        without `return_sequences`, the last, `(batch, 1, units)`; a list of the last
        states, `(batch, units)`.

    Raises:
        Refused: If the kernel does not compute such a call.
        TypeError, ValueError: If the arguments do not fit each other.
    """
    cell, known = layer.cell, CELLS[type(layer.cell)]
    states = _states(initial_state, known)
    tensors = {
        "inputs": sequences,
        **_dropout(cell, known, sequences, states[0], training),
        **_weights(cell, known),
    }
    for name, state in zip(("initial_h", "initial_c"), states, strict=False):
        tensors[name] = _for_all(state, sequences)
    dtype = cell.compute_dtype
    tensors = {k: ops.cast(x, dtype) for k, x in tensors.items() if x is not None}
    tensors["mask"] = _mask(mask, sequences)
    call = RnnCall(known.name, tensors, _options(layer, known))
    if call.path.path == "reference":
        raise Refused(call.path.reason)
    outputs, last_h, last_c = call.run()
    last = outputs[:, -1] if layer.return_sequences else ops.squeeze(outputs, 1)
    return last, outputs, [last_h] if last_c is None else [last_h, last_c]


def _options(layer: Any, known: KerasCell) -> RnnOptions:
    cell = layer.cell
    names = ("activation", "recurrent_activation")[: 1 + known.gated]
    return RnnOptions(
        **{name: resolved(name, getattr(cell, name)) for name in names},
        reset_after=getattr(cell, "reset_after", True),
        reverse=layer.go_backwards,
        return_sequences=layer.return_sequences,
        zero_output_for_mask=layer.zero_output_for_mask,
    )


def _states(initial_state: Any, known: KerasCell) -> list[Any]:
    states = initial_state if keras.tree.is_nested(initial_state) else [initial_state]
    if len(states) != known.states:
        raise Refused(f"there are {len(states)} initial states, not {known.states}")
    return list(states)


def _weights(cell: Any, known: KerasCell) -> dict[str, Any]:
    """The weights, tensors of the cell's dtype of computation."""
    dtype, weights = cell.compute_dtype, ("kernel", "recurrent_kernel", "bias")
    found = {name: getattr(cell, name) for name in weights}
    # The scope of the layer, if its policy is another one, rounds them to that dtype.
    with backend.AutocastScope(dtype):
        found = {k: ops.cast(x, dtype) for k, x in found.items() if x is not None}
    if known is GRU and cell.reset_after and "bias" in found:
        found["bias"], found["recurrent_bias"] = ops.unstack(found["bias"])
    return found


def _dropout(
    cell: Any, known: KerasCell, sequences: Any, state: Any, training: Any
) -> dict[str, Any]:
    """What Keras multiplies inputs and states by: the same numbers, since the cell
    keeps what it has drawn until the end of the call."""
    found: dict[str, Any] = {}
    if not training:
        return found
    if _drops(cell, known, cell.dropout):
        masks = cell.get_dropout_mask(sequences[:, 0, :])
        found["input_dropout"] = _per_gate(masks, cell, known, sequences)
    if _drops(cell, known, cell.recurrent_dropout):
        masks = cell.get_recurrent_dropout_mask(state)
        found["recurrent_dropout"] = _per_gate(masks, cell, known, sequences)
    return found


def _drops(cell: Any, known: KerasCell, rate: float) -> bool:
    return 0 < rate < 1 or (rate > 0 and not known.gated)


def _per_gate(masks: Any, cell: Any, known: KerasCell, sequences: Any) -> Any:
    """The masks of dropout as one tensor, `(gates or 1, batch, size)`."""
    wanted = known.gates if known.gated and cell.implementation == 1 else 1
    masks = masks if isinstance(masks, list | tuple) else [masks]
    if len(masks) != wanted:
        raise Refused(f"the cell has drawn {len(masks)} masks of dropout, not {wanted}")
    return ops.stack([_for_all(x, sequences) for x in masks])


def _mask(mask: Any, sequences: Any) -> Any:
    """The mask of the steps as booleans of shape `(batch, timesteps)`, or None."""
    mask = mask[0] if isinstance(mask, list | tuple) else mask
    if mask is None:
        return None
    mask = ops.cast(mask, "bool")
    if len(mask.shape) == 3 and mask.shape[2] == 1:
        mask = ops.squeeze(mask, 2)
    if len(mask.shape) != 2:
        raise Refused(f"the mask, of shape {tuple(mask.shape)}, is not one of steps")
    return _for_all(mask, sequences)


def _for_all(x: Any, sequences: Any) -> Any:
    """`x`, `(batch, size)`, repeated for the batch of `sequences` if its own is 1.

    Where that is known only while the graph runs, another batch stays as it is: the
    kernel refuses it by the name of the argument.
    """
    known = x.shape[0]
    if known not in (1, None) or sequences.shape[0] == 1:
        return x
    if known is None and _is_filled(x):
        return x
    rows, size = ops.shape(x)
    batch = ops.shape(sequences)[0]
    rows = batch if known == 1 else ops.where(ops.equal(rows, 1), batch, rows)
    return ops.broadcast_to(x, (rows, size))


def _is_filled(x: Any) -> bool:
    """Whether a tensor in a graph is one number, as the states are that nobody gave:
    Keras makes them for the batch of the sequences."""
    return getattr(getattr(x, "op", None), "type", None) == "Fill"
