from collections.abc import Sequence
from typing import Any

from numpy import bool_, int32, int64
from numpy.typing import NDArray

__version__: str

# float32, float64, float16 or ml_dtypes.bfloat16; nothing is converted.
_Floats = NDArray[Any]
# float64 if query is, otherwise float32.
_Reals = NDArray[Any]

def attention_forward(
    query: _Floats,
    key: _Floats,
    value: _Floats,
    finite_logsumexp: bool = False,
    *,
    scale: float,
    bias: _Reals | None = None,
    mask: NDArray[bool_] | None = None,
    query_mask: NDArray[bool_] | None = None,
    key_mask: NDArray[bool_] | None = None,
    query_lengths: NDArray[int32] | None = None,
    key_lengths: NDArray[int32] | None = None,
    query_splits: NDArray[int64] | None = None,
    key_splits: NDArray[int64] | None = None,
    is_causal: bool = False,
    window_before: int = -1,
    window_after: int = -1,
    soft_cap: float = 0.0,
    dropout_rate: float = 0.0,
    dropout_seed: int = 0,
) -> tuple[_Floats, _Reals, _Reals]: ...
def attention_backward(
    query: _Floats,
    key: _Floats,
    value: _Floats,
    output: _Floats,
    statistics: _Reals,
    grad_output: _Floats,
    grad_logsumexp: _Reals | None = None,
    *,
    scale: float,
    bias: _Reals | None = None,
    mask: NDArray[bool_] | None = None,
    query_mask: NDArray[bool_] | None = None,
    key_mask: NDArray[bool_] | None = None,
    query_lengths: NDArray[int32] | None = None,
    key_lengths: NDArray[int32] | None = None,
    query_splits: NDArray[int64] | None = None,
    key_splits: NDArray[int64] | None = None,
    is_causal: bool = False,
    window_before: int = -1,
    window_after: int = -1,
    soft_cap: float = 0.0,
    dropout_rate: float = 0.0,
    dropout_seed: int = 0,
    skip_grad_bias: bool = False,
) -> tuple[_Floats, _Floats, _Floats, _Reals | None]: ...
def attention_dropout_mask(
    shape: Sequence[int], *, rate: float, seed: int
) -> NDArray[bool_]: ...
def attention_tiles() -> dict[str, Any]: ...

# int32 or int64, as recurrent_kernel; int32 if that is int8.
def integer_rnn(
    inputs: NDArray[Any],
    kernel: NDArray[Any],
    recurrent_kernel: NDArray[Any],
    bias: NDArray[Any] | None = None,
    initial_state: NDArray[Any] | None = None,
    mask: NDArray[bool_] | None = None,
    *,
    activation: str = "none",
    clip_low: int = 0,
    clip_high: int = 0,
    reverse: bool = False,
    return_sequences: bool = False,
    overflow: str = "raise",
    fractional_bits: int = 0,
) -> NDArray[Any]: ...
def lstm_forward(
    inputs: _Floats,
    kernel: _Floats,
    recurrent_kernel: _Floats,
    *,
    bias: _Floats | None = None,
    initial_h: _Floats | None = None,
    initial_c: _Floats | None = None,
    mask: NDArray[bool_] | None = None,
    lengths: NDArray[int32] | None = None,
    input_dropout: _Floats | None = None,
    recurrent_dropout: _Floats | None = None,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    reverse: bool = False,
    return_sequences: bool = False,
    zero_output_for_mask: bool = False,
    keep: bool = False,
) -> tuple[_Floats, _Floats, _Floats, NDArray[int64]]: ...
def lstm_backward(
    inputs: _Floats,
    kernel: _Floats,
    recurrent_kernel: _Floats,
    outputs: _Floats,
    kept: NDArray[int64],
    *,
    bias: _Floats | None = None,
    initial_h: _Floats | None = None,
    initial_c: _Floats | None = None,
    mask: NDArray[bool_] | None = None,
    lengths: NDArray[int32] | None = None,
    input_dropout: _Floats | None = None,
    recurrent_dropout: _Floats | None = None,
    grad_outputs: _Floats | None = None,
    grad_last_h: _Floats | None = None,
    grad_last_c: _Floats | None = None,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    reverse: bool = False,
    return_sequences: bool = False,
    zero_output_for_mask: bool = False,
    skip_grad_inputs: bool = False,
) -> tuple[_Floats | None, ...]: ...
def gru_forward(
    inputs: _Floats,
    kernel: _Floats,
    recurrent_kernel: _Floats,
    *,
    bias: _Floats | None = None,
    recurrent_bias: _Floats | None = None,
    initial_h: _Floats | None = None,
    mask: NDArray[bool_] | None = None,
    lengths: NDArray[int32] | None = None,
    input_dropout: _Floats | None = None,
    recurrent_dropout: _Floats | None = None,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    reset_after: bool = True,
    reverse: bool = False,
    return_sequences: bool = False,
    zero_output_for_mask: bool = False,
    keep: bool = False,
) -> tuple[_Floats, _Floats, NDArray[int64]]: ...
def gru_backward(
    inputs: _Floats,
    kernel: _Floats,
    recurrent_kernel: _Floats,
    outputs: _Floats,
    kept: NDArray[int64],
    *,
    bias: _Floats | None = None,
    recurrent_bias: _Floats | None = None,
    initial_h: _Floats | None = None,
    mask: NDArray[bool_] | None = None,
    lengths: NDArray[int32] | None = None,
    input_dropout: _Floats | None = None,
    recurrent_dropout: _Floats | None = None,
    grad_outputs: _Floats | None = None,
    grad_last_h: _Floats | None = None,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    reset_after: bool = True,
    reverse: bool = False,
    return_sequences: bool = False,
    zero_output_for_mask: bool = False,
    skip_grad_inputs: bool = False,
) -> tuple[_Floats | None, ...]: ...
def simple_rnn_forward(
    inputs: _Floats,
    kernel: _Floats,
    recurrent_kernel: _Floats,
    *,
    bias: _Floats | None = None,
    initial_h: _Floats | None = None,
    mask: NDArray[bool_] | None = None,
    lengths: NDArray[int32] | None = None,
    input_dropout: _Floats | None = None,
    recurrent_dropout: _Floats | None = None,
    activation: str = "tanh",
    reverse: bool = False,
    return_sequences: bool = False,
    zero_output_for_mask: bool = False,
    keep: bool = False,
) -> tuple[_Floats, _Floats, NDArray[int64]]: ...
def simple_rnn_backward(
    inputs: _Floats,
    kernel: _Floats,
    recurrent_kernel: _Floats,
    outputs: _Floats,
    kept: NDArray[int64],
    *,
    bias: _Floats | None = None,
    initial_h: _Floats | None = None,
    mask: NDArray[bool_] | None = None,
    lengths: NDArray[int32] | None = None,
    input_dropout: _Floats | None = None,
    recurrent_dropout: _Floats | None = None,
    grad_outputs: _Floats | None = None,
    grad_last_h: _Floats | None = None,
    activation: str = "tanh",
    reverse: bool = False,
    return_sequences: bool = False,
    zero_output_for_mask: bool = False,
    skip_grad_inputs: bool = False,
) -> tuple[_Floats | None, ...]: ...
def ffi_handlers() -> dict[str, Any]: ...
def operations() -> dict[str, dict[str, Any]]: ...
def num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def use_openmp(run: int, num_threads: int) -> None: ...
def instruction_set() -> str: ...
def compiled_instruction_sets() -> list[str]: ...
def supported_instruction_sets() -> list[str]: ...
