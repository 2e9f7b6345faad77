"""What the integer recurrence takes: dtypes, shapes and options."""

from keras import backend

INPUT_DTYPES = ("bool", "int8", "uint8", "int16", "int32", "int64")
WEIGHT_DTYPES = ("int8", "int32", "int64")
ACTIVATIONS = (None, "relu", "sign", "clip")
OVERFLOWS = ("raise", "wrap", "saturate")


def state_dtype(recurrent_kernel):
    """The dtype of the state: that of the recurrent kernel, but int32 for int8."""
    dtype = backend.standardize_dtype(recurrent_kernel.dtype)
    return "int32" if dtype == "int8" else dtype


def check_tensors(inputs, kernel, recurrent_kernel, bias, initial_state, mask):
    """Raises TypeError unless the dtypes fit, and ValueError unless the shapes do, as
    far as they are known."""
    _check_dtype("inputs", inputs, INPUT_DTYPES)
    _check_dtype("recurrent_kernel", recurrent_kernel, WEIGHT_DTYPES)
    _check_dtype("kernel", kernel, ("int8", state_dtype(recurrent_kernel)))
    if len(inputs.shape) != 3:
        raise ValueError(
            "`inputs` must have shape (batch, timesteps, features). "
            f"Received: inputs.shape={tuple(inputs.shape)}"
        )
    batch_size, timesteps, features = inputs.shape
    _check_shape("kernel", kernel, (features, "units"))
    units, dtype = kernel.shape[1], state_dtype(recurrent_kernel)
    _check_shape("recurrent_kernel", recurrent_kernel, (units, units))
    for name, x, dtypes, shape in (
        ("bias", bias, (dtype,), (units,)),
        ("initial_state", initial_state, (dtype,), (batch_size, units)),
        ("mask", mask, ("bool",), (batch_size, timesteps)),
    ):
        if x is not None:
            _check_dtype(name, x, dtypes)
            _check_shape(name, x, shape)


def _check_dtype(name, x, expected):
    dtype = backend.standardize_dtype(x.dtype)
    expected = [backend.standardize_dtype(d) for d in expected]
    if dtype not in expected:
        raise TypeError(
            f"`{name}` must have dtype {' or '.join(expected)}. "
            f"Received: {name}.dtype={dtype}"
        )


def _check_shape(name, x, expected):
    """A size that is None or a name stands for any."""
    shape = tuple(x.shape)
    if len(shape) != len(expected) or any(
        isinstance(want, int) and size is not None and size != want
        for size, want in zip(shape, expected, strict=True)
    ):
        wanted = ", ".join(map(str, expected)) + ("," if len(expected) == 1 else "")
        raise ValueError(
            f"`{name}` must have shape ({wanted}). Received: {name}.shape={shape}"
        )


def check_options(activation, clip, overflow, fractional_bits, dtype):
    """Raises ValueError unless the options are among those that exist."""
    for name, value, known in (
        ("activation", activation, ACTIVATIONS),
        ("overflow", overflow, OVERFLOWS),
    ):
        if value not in known:
            raise ValueError(
                f"`{name}` must be one of {known}. Received: {name}={value!r}"
            )
    bits = int(dtype[3:])
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if activation == "clip":
        limits = tuple(clip) if isinstance(clip, (tuple, list)) else ()
        if not (
            len(limits) == 2
            and all(hasattr(limit, "__index__") for limit in limits)
            and low <= limits[0] <= limits[1] <= high
        ):
            raise ValueError(
                f"`clip` must be two integers of {dtype}, the lower one first. "
                f"Received: clip={clip!r}"
            )
    elif clip is not None:
        raise ValueError(
            f"`clip` needs `activation='clip'`. Received: clip={clip!r}, "
            f"activation={activation!r}"
        )
    if not hasattr(fractional_bits, "__index__") or not 0 <= fractional_bits < bits:
        raise ValueError(
            f"`fractional_bits` must be an integer from 0 to {bits - 1}. "
            f"Received: fractional_bits={fractional_bits!r}"
        )
