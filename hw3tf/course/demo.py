"""`python -m hw3tf.course.demo`, or `hw3tf-demo`: type a review and see, in the
browser, its sentiment and what every head of attention looks at; or compare two.

Shows the model that tutorial 4 has saved, and has the tutorial train a quick one if
there is none. Needs Gradio (the extra `demo`). Nothing leaves this machine.
"""

import argparse
import contextlib
import functools
import html
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import keras
import numpy as np

from hw3tf._types import Tensor
from hw3tf.course.tutorial import UserError, file_path, number, require_tensorflow, run

MODEL = pathlib.Path("runs/imdb_sentiment/sentiment.keras")
TUTORIAL = pathlib.Path("tutorials/04_imdb_sentiment.py")
ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
ALL_WORDS = -1
# What vocabularies have for padding, unknown words and the ends of a text.
_NO_WORD = re.compile(r"|\[[A-Z]+\]|<\w+>")
# Layers are changed while a model is asked what it looks at.
_ONE_AT_A_TIME = threading.Lock()
EXAMPLES = tuple(
    "they all talk of the brilliant plot these days. there is the wooden acting to "
    f"begin with. but for me it is {decides} alone that matters."
    for decides in ("plot", "acting")
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
        UserError: If the model is none of this kind.
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


def highlight(words: list[str], weights: np.ndarray) -> str:
    """Words as HTML, each on a ground as strong as its weight; the heaviest word gets
    the full color. The weight itself shows under the pointer."""
    shape = "padding: 0.1em 0.2em; border-radius: 0.2em"
    spans = []
    for word, weight in zip(words, weights, strict=True):
        alpha = 0.7 * weight / max(weights.max(), np.finfo("float32").tiny)
        ground = f"background: rgba(37, 99, 235, {alpha:.2f})"
        word = html.escape(word)
        spans.append(
            f'<span title="{weight:.3f}" style="{shape}; {ground}">{word}</span>'
        )
    return " ".join(spans)


def show_attention(judgement: Judgement, query: int) -> str:
    """What every head looks at, as HTML: from the word of index `query`, or on average
    over all words for `ALL_WORDS`."""
    words, parts = judgement.words, []
    for name, weights in judgement.attention:
        if weights.shape[-2:] != (len(words), len(words)):
            parts.append(
                f"<p>{html.escape(name)}: does not look from word to word.</p>"
            )
            continue
        for head, scores in enumerate(weights):
            row = scores.mean(axis=0) if query == ALL_WORDS else scores[query]
            title = html.escape(f"{name}, head {head}")
            parts.append(f"<p><b>{title}</b><br>{highlight(words, row)}</p>")
    return "".join(parts) or "<p>The model has no attention layer.</p>"


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


def _review_column(gr: ModuleType, label: str, example: str) -> tuple[Any, ...]:
    """One review: (text box, verdict, choice of the word that looks, attention)."""
    with gr.Column(min_width=300):
        text = gr.Textbox(label=label, placeholder=example, lines=4)
        verdict = gr.Label(label="Sentiment", num_top_classes=2, visible=False)
        query = gr.Dropdown(label="The word that looks", visible=False)
        attention = gr.HTML(visible=False)
        judgement = gr.State()
    query.input(show_attention, [judgement, query], attention)
    return text, verdict, query, attention, judgement


def build_interface(model: keras.Model) -> Any:
    """The page, as `gradio.Blocks`, for a model that `judge` can ask."""
    import gradio as gr

    def column(judgement: Judgement | None) -> tuple[Any, ...]:
        """New values for the parts of a column, without its text box."""
        if judgement is None:
            hidden = {"visible": False}
            return gr.Label(**hidden), gr.Dropdown(**hidden), gr.HTML(**hidden), None
        p = judgement.probability
        label = {"positive": p, "negative": 1 - p}
        if not judgement.known:
            label = {"no known word": 1.0}
        words = [(f"{i + 1}: {word}", i) for i, word in enumerate(judgement.words)]
        choices = [("all words, on average", ALL_WORDS), *words]
        return (
            gr.Label(label, visible=True),
            gr.Dropdown(choices, value=ALL_WORDS, visible=True),
            gr.HTML(show_attention(judgement, ALL_WORDS), visible=True),
            judgement,
        )

    def answer(*texts: str) -> list[Any]:
        """New values for the sentence and for both columns."""
        judgements = [judge(model, text) if text.strip() else None for text in texts]
        there = [judgement for judgement in judgements if judgement]
        sentence = compare(there) if there else "Type a review first."
        return [sentence, *(part for x in judgements for part in column(x))]

    with gr.Blocks(title="Sentiment of reviews", analytics_enabled=False) as page:
        gr.Markdown(
            "# Sentiment of reviews\n\nType a review, or two to compare them. Below, "
            "what every head of attention looks at: the stronger the ground of a word, "
            "the larger its weight."
        )
        with gr.Row():
            first = _review_column(gr, "Review", EXAMPLES[0])
            second = _review_column(gr, "Another review, to compare", EXAMPLES[1])
        button = gr.Button("Judge", variant="primary")
        sentence = gr.Markdown()
        gr.Examples([list(EXAMPLES)], [first[0], second[0]])
        button.click(answer, [first[0], second[0]], [sentence, *first[1:], *second[1:]])
    return page


def train_quick_model(path: pathlib.Path, data: str) -> None:
    """Has tutorial 4 save a model to `path`, in a process of its own.

    Raises:
        UserError: If the tutorial is not there, or fails.
    """
    beside_the_package = pathlib.Path(__file__).parents[2] / TUTORIAL
    program = next((p for p in (TUTORIAL, beside_the_package) if p.exists()), None)
    if program is None:
        raise UserError(
            f"no model in {path}, and no {TUTORIAL} to train one: start the demo in "
            "the checkout, or name a model with --model"
        )
    print(f"No model in {path}: {program} trains a quick one.", flush=True)
    command = [sys.executable, str(program), "--quick", "--data", data]
    status = subprocess.run([*command, "--out", str(path.parent)]).returncode
    if not path.exists():
        raise UserError(f"{program} has saved no model: it ended with status {status}")


def load_model(path: pathlib.Path | None, data: str = "auto") -> keras.Model:
    """Loads the model of the demo; trains one if `path` is None and there is none.

    Raises:
        UserError: If there is no model, or the file is none.
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
        help="what to train a quick model on, where there is none; default: auto",
    )
    what = "default: the first free one from 7860 on"
    add("--port", type=number(1, 65535), help=what)
    args = parser.parse_args(argv)
    require_tensorflow()
    if importlib.util.find_spec("gradio") is None:
        raise UserError("Gradio is missing: pip install 'hw3tf[demo]'")
    model = load_model(args.model, args.data)
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    # Gradio asks its own server whether it is there. A proxy would not find it, and
    # nothing else is asked for.
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "*"
    import gradio as gr

    page = build_interface(model)
    # The system's fonts: the theme's own would come from a network.
    theme = gr.themes.Default(font="system-ui", font_mono="monospace")
    try:
        _, address, _ = page.launch(
            server_name="127.0.0.1",
            server_port=args.port,
            theme=theme,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise UserError(f"--port {args.port} cannot be used: {error}") from error
    print(f"The demo is at {address} - Ctrl-C ends it.", flush=True)
    page.block_thread()


def command() -> None:
    """The program `hw3tf-demo`."""
    run(main)


if __name__ == "__main__":
    command()
