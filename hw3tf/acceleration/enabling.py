"""`enable` and `disable`: Keras's own function on the kernel.

Every call of `keras.ops.dot_product_attention` looks up the function of the same name
in `keras.src.backend.nn`. It is enough to replace that one name: functions that layers
have imported and nodes of functional models get there, too.
"""

import contextlib
import functools
import importlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras

from hw3tf.layers.attention.attend import fitting_or
from hw3tf.ops.attention.call import AttentionCall
from hw3tf.ops.attention.options import AttentionOptions
from hw3tf.ops.paths import WITH_KERNELS, kernel_path, logger

_NAME = "dot_product_attention"


class _State:
    """The number of users of the replaced function, and the original."""

    def __init__(self) -> None:
        self.users = 0
        self.enabled = False
        self.stock: Any = None
        self.ours: Any = None
        self.lock = threading.Lock()
        self.scope = threading.local()


def _state() -> _State:
    """The state of the process. It is kept beside the function, so that a second import
    of hw3tf finds what the first one replaced."""
    module = importlib.import_module("keras.src.backend").nn
    return module.__dict__.setdefault("_hw3tf_hook", _State())


_hook = _state()
_lock, _scope = _hook.lock, _hook.scope


class Enabled:
    """What `enable` returns: leaving a `with` statement takes that call back."""

    def __init__(self, changed: bool) -> None:
        self._changed = changed

    def __enter__(self) -> "Enabled":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._changed:
            disable()
        self._changed = False


def enable() -> Enabled:
    """Makes `keras.ops.dot_product_attention` itself run on the fused kernel.

    This speeds up code without changing it: the layers of Keras and KerasHub that call
    the function, and your own. The kernel takes calls on TensorFlow, JAX and PyTorch,
    on a CPU, with `flash_attention` None, the default, or True, which Keras refuses
    there. Up to rounding the results are Keras's: the same masks, biases and scales,
    the mean of the values for a query that sees no key, NaN for a NaN that is seen.
    Some calls that Keras refuses work, too: a single key head for many query heads, a
    batch of 1 beside a larger one. Everything else runs in Keras, as before:
    `flash_attention=False`, a tensor as `scale`, integers, a mask or bias larger than
    the scores, a GPU, other backends. The logger `hw3tf` says which at level DEBUG. If
    the sizes of a mask or bias are known only while a graph runs, a condition in the
    graph decides. XLA allows no such condition, and there the kernel refuses larger
    ones.

    Layers that compute their scores themselves are not reached; use `hw3tf.accelerate`
    for those. A function that TensorFlow has traced keeps the path that it was traced
    with: enable first, or let models make their functions anew, for instance with
    `model.make_train_function(force=True)`.

    Returns:
        An object for a `with` statement, which disables on leaving. Where attention
        was enabled before, it stays so.

    Example:

    >>> with hw3tf.enable():
    ...     x = keras.random.normal((2, 10, 4, 8))
    ...     y = keras.ops.dot_product_attention(x, x, x, is_causal=True)
    """
    path = kernel_path()
    if path.path == "reference":
        logger.debug("enable: keras.ops.dot_product_attention stays, %s", path.reason)
    with _lock:
        changed = not _hook.enabled
        if changed:
            _hook.enabled = True
            _add_user()
    return Enabled(changed)


def disable() -> None:
    """Takes `hw3tf.enable` back, however often it was called.

    Example:

    >>> _ = hw3tf.enable()
    >>> hw3tf.disable()
    """
    with _lock:
        if _hook.enabled:
            _hook.enabled = False
            _remove_user()


def is_enabled() -> bool:
    """Whether `enable` was called, and `disable` not since."""
    return _hook.enabled


@contextlib.contextmanager
def fused_scope() -> Iterator[None]:
    """Makes calls of `keras.ops.dot_product_attention` inside, in this thread, run
    on the kernel."""
    with _lock:
        _add_user()
    _scope.depth = getattr(_scope, "depth", 0) + 1
    try:
        yield
    finally:
        _scope.depth -= 1
        with _lock:
            _remove_user()


def _backend() -> Any:
    """The module in which Keras looks the function up; None on other backends."""
    if keras.backend.backend() not in WITH_KERNELS:
        return None
    return importlib.import_module("keras.src.backend").nn


def _add_user() -> None:
    module = _backend()
    if _hook.users == 0 and module is not None:
        _hook.stock = getattr(module, _NAME)
        _hook.ours = _replacement(_hook.stock)
        setattr(module, _NAME, _hook.ours)
    _hook.users += 1


def _remove_user() -> None:
    module = _backend()
    _hook.users -= 1
    if _hook.users == 0 and module is not None:
        # If other code has replaced it since, that stays, and ours, inside, is inert.
        if getattr(module, _NAME) is _hook.ours:
            setattr(module, _NAME, _hook.stock)
        else:
            logger.warning("%s was replaced after hw3tf had been enabled", _NAME)


def _replacement(stock: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(stock)
    def dot_product_attention(
        query: Any, key: Any, value: Any, *args: Any, **kwargs: Any
    ) -> Any:
        call = None
        if _hook.enabled or getattr(_scope, "depth", 0) > 0:
            call = _kernel_call(query, key, value, *args, **kwargs)
        own = functools.partial(stock, query, key, value, *args, **kwargs)
        return own() if call is None else fitting_or(call, call.run, own)

    return dot_product_attention


def _kernel_call(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    scale: Any = None,
    is_causal: bool = False,
    flash_attention: bool | None = None,
    attn_logits_soft_cap: float | None = None,
) -> AttentionCall | None:
    """An `AttentionCall` that the kernel runs, or None: then Keras computes the call,
    or raises its own error."""
    if flash_attention is False:
        return None
    try:
        options = AttentionOptions(
            scale=scale,
            is_causal=is_causal,
            attn_logits_soft_cap=attn_logits_soft_cap,
            bias=bias,
            mask=mask,
        )
        call = AttentionCall(query, key, value, options)
    except (TypeError, ValueError) as error:
        logger.debug("keras.ops.dot_product_attention stays in Keras: %s", error)
        return None
    if call.path.path == "reference":
        logger.debug("keras.ops.dot_product_attention stays in Keras: %s", call.path)
        return None
    return call
