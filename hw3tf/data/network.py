"""Data sets of TensorFlow Datasets, where they are prepared or can be downloaded."""

import threading
import urllib.request


def prepared_builder(name, url, timeout):
    """Returns the builder of a data set, prepared, and where it lies, in words.

    Args:
        name: The data set's name in TensorFlow Datasets.
        url: What its server is asked for before anything is downloaded: TFDS would
            try an absent network for minutes.
        timeout: Seconds to wait for the answer.

    Returns:
        Tuple `(builder, where)`: `builder.as_dataset` reads files, and `where` is
        `"prepared in FOLDER"` or `"downloaded to FOLDER"`.

    Raises:
        OSError: If the data set is not prepared and the server does not answer.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder(name)
    if builder.is_prepared():
        return builder, f"prepared in {builder.data_path}"
    require_answer(url, timeout)
    builder.download_and_prepare()
    return builder, f"downloaded to {builder.data_path}"


def require_answer(url, timeout):
    """Raises OSError unless the server answers within `timeout` seconds.

    In a thread of its own: the resolver of host names knows no timeout.
    """
    answer = []

    def ask():
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=timeout):
                answer.append(None)
        except Exception as error:
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    if not answer:
        raise TimeoutError(f"no answer from {url} within {timeout:g} seconds")
    if answer[0] is not None:
        raise OSError(f"no answer from {url}: {answer[0]}")
