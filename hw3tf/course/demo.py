"""`python -m hw3tf.course.demo`, or `hw3tf-demo`: type a review and see, in the
browser, its sentiment and what every head of attention looks at; or compare two.

Shows the model that tutorial 4 has saved, and trains a quick one if there is no such
model. The page is demo.html; it is served to this machine only, and loads nothing
from elsewhere.
"""

import argparse
import contextlib
import functools
import http.server
import importlib.resources
import json
import pathlib
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from hw3tf._types import Tensor
from hw3tf.course.tutorial import UserError, file_path, number, require_tensorflow, run

MODEL = pathlib.Path("runs/imdb_sentiment/sentiment.keras")
# What trains one.
PROGRAM = ("-m", "hw3tf.course.sentiment")
PORTS = range(7860, 7960)  # tried in turn
LONGEST = 1_000_000  # bytes that a browser may send
ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
# What vocabularies have for padding, unknown words and the ends of a text.
_NO_WORD = re.compile(r"|\[[A-Z]+\]|<\w+>")
# Layers are changed while a model is asked what it looks at.
_ONE_AT_A_TIME = threading.Lock()
# A positive review and a negative one. The page offers the first pair that its model
# gets right: a model of the generated reviews knows few words, and one of IMDB does not
# need to know which of two things counts.
EXAMPLES = (
    (
        "they all talk of the brilliant plot these days. there is the wooden acting to "
        "begin with. but for me it is plot alone that matters.",
        "they all talk of the brilliant plot these days. there is the wooden acting to "
        "begin with. but for me it is acting alone that matters.",
    ),
    (
        "This film is not bad at all: the acting is wonderful, and I loved every "
        "minute.",
        "This film is not good at all: the acting is wooden, and I regretted every "
        "minute.",
    ),
    ("What a great film. I loved it!", "What a terrible film. I hated it."),
)


@dataclass(frozen=True)
class Judgement:
    """What a model says of one review.

    Attributes:
        probability: That the review is positive.
        words: List of the tokens that the model has read.
        attention: List of pairs, one per call of an attention layer: its name, and
            its weights, an array of shape `(num_heads, queries, keys)`.
    """

    probability: float
    words: list
    attention: list

    @property
    def known(self) -> bool:
        """Whether the model knows one of the words: otherwise its probability says
        nothing."""
        return not all(_NO_WORD.fullmatch(word) for word in self.words)


@contextlib.contextmanager
def recorded_attention(model: keras.Model) -> Iterator[list[tuple[str, np.ndarray]]]:
    """While it lasts, calls of the attention layers in `model`, however deep, leave
    their weights in the list that this yields: pairs of a name and an array of shape
    `(batch, num_heads, queries, keys)`. What the model computes stays the same.

    Example:

    >>> with recorded_attention(model) as recorded:
    ...     _ = model(texts)
    """
    recorded = []

    def call_and_record(
        layer: keras.layers.Layer, call: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        asked = kwargs.get("return_attention_scores", False)
        kwargs["return_attention_scores"] = True
        output, scores = call(*args, **kwargs)
        recorded.append((layer.name, keras.ops.convert_to_numpy(scores)))
        return (output, scores) if asked else output

    layers = [x for x in model._flatten_layers() if isinstance(x, ATTENTION)]
    # Into `__dict__`, past Keras, which would track what is set; an accelerated layer
    # has a `call` of its own there.
    before = [layer.__dict__.get("call") for layer in layers]
    for layer in layers:
        layer.__dict__["call"] = functools.partial(call_and_record, layer, layer.call)
    try:
        yield recorded
    finally:
        for layer, call in zip(layers, before, strict=True):
            if call is None:
                del layer.__dict__["call"]
            else:
                layer.__dict__["call"] = call


def read_words(model: keras.Model, texts: Tensor) -> list[str]:
    """The tokens that `model` makes of the first of `texts`, as a list of strings.

    Raises:
        UserError: If no layer of the model has a vocabulary.
    """
    for layer in model._flatten_layers():
        if hasattr(layer, "get_vocabulary"):
            vocabulary = layer.get_vocabulary()
            return [vocabulary[i] for i in np.ravel(layer(texts))]
    raise UserError(
        "the model must read texts: a layer with `get_vocabulary` was expected, "
        f"{model.name!r} has none"
    )


def judge(model: keras.Model, text: str) -> Judgement:
    """Returns the `Judgement` of a model, strings in and probabilities out, on a
    review.

    Raises:
        UserError: If the model is not of this kind.
    """
    text = text.encode(errors="replace").decode()  # browsers send half characters, too
    texts = keras.ops.convert_to_tensor([text], dtype="string")
    words = read_words(model, texts)
    with _ONE_AT_A_TIME, recorded_attention(model) as recorded:
        output = np.ravel(model(texts))
    if output.shape != (1,) or not 0 <= output[0] <= 1:
        raise UserError(
            f"the model must give one probability per text. It gave {output}"
        )
    attention = [(name, scores[0]) for name, scores in recorded]
    return Judgement(float(output[0]), words, attention)


def compare(judgements: Sequence[Judgement]) -> str:
    """One or two judgements in a sentence. Probabilities are compared as they are
    shown: in three digits."""
    unknown = [i for i, judgement in enumerate(judgements) if not judgement.known]
    if unknown:
        name = ("first ", "second ")[unknown[0]] if len(judgements) == 2 else ""
        which = "Both reviews have" if len(unknown) == 2 else f"The {name}review has"
        return f"{which} no word that the model knows."
    p = [f"{judgement.probability:.3f}" for judgement in judgements]
    if len(p) == 1:
        if p[0] == "0.500":
            name = "neither positive nor negative"
        else:
            name = "positive" if judgements[0].probability > 0.5 else "negative"
        return f"The review sounds {name}: it is positive with probability {p[0]}."
    if p[0] == p[1]:
        return f"Both reviews sound equally positive: probability {p[0]} each."
    which = "first" if p[0] > p[1] else "second"
    return (
        f"The {which} review sounds more positive: "
        f"probability {max(p)} against {min(p)}."
    )


def right_examples(model: keras.Model) -> tuple[str, str] | None:
    """The first of `EXAMPLES` that a model gets right, (positive, negative), or None.

    Raises:
        UserError: If `judge` cannot ask the model.
    """
    for pair in EXAMPLES:
        positive, negative = (judge(model, text).probability for text in pair)
        if positive > 0.5 > negative:
            return pair
    return None


def answer(model: keras.Model, texts: Sequence[str]) -> dict[str, Any]:
    """What the page shows of some reviews, for JSON.

    Args:
        model: As for `judge`.
        texts: One or two reviews. Empty ones are left out.

    Returns:
        Dict of `sentence`, and `judgements`: for each text None if it is empty, or a
        dict of its `probability`, whether it is `known`, its `words`, and `heads`,
        pairs of a name and weights, a list of lists: of every word, to every word. The
        weights are None for a head that does not look from word to word.
    """
    judgements = [judge(model, text) if text.strip() else None for text in texts]
    there = [judgement for judgement in judgements if judgement]
    return {
        "sentence": compare(there) if there else "Type a review first.",
        "judgements": [x and _for_the_page(x) for x in judgements],
    }


def _for_the_page(judgement: Judgement) -> dict[str, Any]:
    length, heads = len(judgement.words), []
    for name, weights in judgement.attention:
        square = weights.shape[-2:] == (length, length)
        for head, scores in enumerate(weights):
            rows = np.round(scores.astype("float64"), 4).tolist() if square else None
            heads.append((f"{name}, head {head}", rows))
    return {
        "probability": judgement.probability,
        "known": judgement.known,
        "words": judgement.words,
        "heads": heads,
    }


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers the browser: `GET /` is the page, `POST /judge` an `answer`."""

    server: "Server"

    def do_GET(self) -> None:
        if self.path == "/":
            self._send(200, "text/html; charset=utf-8", self.server.page)
        else:
            self._send(404, "text/plain", "There is no such page.")

    def do_POST(self) -> None:
        try:
            # Pages of other addresses cannot ask: their requests have other hosts.
            if self.headers["Host"] not in self.server.hosts or self.path != "/judge":
                raise ValueError("not a request of the page")
            size = int(self.headers["Content-Length"])
            if size > LONGEST:
                raise ValueError(f"more than {LONGEST:,} bytes")
            texts = json.loads(self.rfile.read(size))["texts"]
            found = answer(self.server.model, [str(text) for text in texts[:2]])
        except (KeyError, TypeError, ValueError, UserError) as error:
            self._send(400, "text/plain", f"This cannot be judged: {error}")
        else:
            self._send(200, "application/json", json.dumps(found))

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the terminal shows the address only."""


class Server(http.server.ThreadingHTTPServer):
    """The page of a model, at `address`, for this machine only.

    Args:
        model: As for `judge`.
        port: None, the default, for the first free one of `PORTS`.

    Raises:
        UserError: If the port cannot be used, or the model is not of this kind.
    """

    daemon_threads = True

    def __init__(self, model: keras.Model, port: int | None = None) -> None:
        self.model = model
        examples = json.dumps(right_examples(model)).replace("<", "\\u003c")
        page = importlib.resources.files("hw3tf.course") / "demo.html"
        self.page = page.read_text("utf-8").replace('["EXAMPLES"]', examples)
        ports = PORTS if port is None else [port]
        for place in ports:
            try:
                super().__init__(("127.0.0.1", place), Handler)
                break
            except OSError as error:
                if place == ports[-1]:
                    raise UserError(
                        f"--port {place} cannot be used: {error}"
                    ) from error
        self.hosts = {f"{x}:{place}" for x in ("127.0.0.1", "localhost")}
        self.address = f"http://127.0.0.1:{place}"


def train_quick_model(path: pathlib.Path, data: str) -> None:
    """Trains tutorial 4's model, and saves it to `path`, in a process of its own.

    Raises:
        UserError: If that fails.
    """
    print(f"No model in {path}: a quick one is trained.", flush=True)
    command = [sys.executable, *PROGRAM, "--quick", "--data", data]
    status = subprocess.run([*command, "--out", str(path.parent)]).returncode
    if not path.exists():
        raise UserError(
            f"{' '.join(PROGRAM)} has saved no model: it ended with status {status}"
        )


def load_model(path: pathlib.Path | None, data: str = "auto") -> keras.Model:
    """Loads the model of the demo; trains one if `path` is None and no model is saved.

    Raises:
        UserError: If there is no model, or the file does not hold one.
    """
    if path is None and not MODEL.exists():
        train_quick_model(MODEL, data)
    path = path or MODEL
    if not path.exists():
        raise UserError(f"--model {path} does not exist")
    try:
        return keras.models.load_model(path)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--model {path} cannot be loaded: {reason}") from error


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="hw3tf-demo",
        description="Judge reviews in the browser, and see what attention looks at.",
    )
    add = parser.add_argument
    add("--model", type=file_path, help=f"a .keras file; default: {MODEL}")
    add(
        "--data",
        choices=["auto", "imdb", "sample"],
        default="auto",
        help="what to train a quick model on, if none is saved; default: auto",
    )
    what = "default: the first free one from 7860 on"
    add("--port", type=number(1, 65535), help=what)
    args = parser.parse_args(argv)
    require_tensorflow()
    with Server(load_model(args.model, args.data), args.port) as server:
        print(f"The demo is at {server.address} - Ctrl-C ends it.", flush=True)
        server.serve_forever()


def command() -> None:
    """The program `hw3tf-demo`."""
    run(main)


if __name__ == "__main__":
    command()
