from typing import Any

from numpy import bool_, float32
from numpy.typing import NDArray

__version__: str

def attention_forward(
    query: NDArray[float32],
    key: NDArray[float32],
    value: NDArray[float32],
    query_mask: NDArray[bool_] | None = None,
    key_mask: NDArray[bool_] | None = None,
    *,
    scale: float,
    is_causal: bool = False,
) -> tuple[NDArray[float32], NDArray[float32]]: ...
def attention_backward(
    query: NDArray[float32],
    key: NDArray[float32],
    value: NDArray[float32],
    query_mask: NDArray[bool_] | None,
    key_mask: NDArray[bool_] | None,
    output: NDArray[float32],
    statistics: NDArray[float32],
    grad_output: NDArray[float32],
    *,
    scale: float,
    is_causal: bool = False,
) -> tuple[NDArray[float32], NDArray[float32], NDArray[float32]]: ...
def attention_tiles() -> dict[str, Any]: ...
def num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def instruction_set() -> str: ...
def compiled_instruction_sets() -> list[str]: ...
def supported_instruction_sets() -> list[str]: ...
