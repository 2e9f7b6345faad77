"""The parts of `python -m hw3tf.course.demo`. The page itself is tested in a browser,
by `nox -s demo`."""

import sys
import threading
import urllib.request
from unittest import mock

import keras
import numpy as np
import pytest

import hw3tf
from hw3tf.course import data, demo
from hw3tf.course.tutorial import UserError

TEXTS = ["a fine film", "a dull film , they say"]


def make_model(attention_layer=hw3tf.layers.MultiHeadAttention, classes=1):
    """Strings -> probabilities, with its attention two models deep."""
    keras.utils.set_random_seed(0)
    tokenizer = data.ReviewTokenizer(20, 8, name="tokenizer")
    tokenizer.adapt(TEXTS)
    tokens = keras.Input((None,), dtype="int64")
    x = keras.layers.Embedding(20, 8)(tokens)
    x = attention_layer(2, 4, name="first")(x, x)
    x = attention_layer(2, 4, name="second")(x, x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    outputs = keras.layers.Dense(classes, activation="sigmoid")(x)
    classifier = keras.Model(tokens, outputs, name="classifier")
    texts = keras.Input((), dtype="string")
    return keras.Model(texts, classifier(tokenizer(texts)), name="sentiment")


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.mark.parametrize("name", ["fused", "keras", "accelerated"])
def test_attention_is_that_of_the_call_and_changes_nothing(name):
    layers = hw3tf.layers if name == "fused" else keras.layers
    model = make_model(layers.MultiHeadAttention)
    if name == "accelerated":
        assert hw3tf.accelerate(model).num_fused == 2
    first, second = (
        model.get_layer("classifier").get_layer(x) for x in ("first", "second")
    )
    calls = [dict(layer.__dict__).get("call") for layer in (first, second)]
    texts = keras.ops.convert_to_tensor(TEXTS[:1], dtype="string")
    probability = float(model(texts)[0, 0])
    judgement = demo.judge(model, TEXTS[0])
    assert judgement.words == TEXTS[0].split()
    assert [name for name, _ in judgement.attention] == ["first", "second"]
    # Scores that are asked for take another path through the kernel.
    assert judgement.probability == pytest.approx(probability, abs=1e-6)
    tokens = model.get_layer("tokenizer")(texts)
    embedding = model.get_layer("classifier").layers[1]
    assert isinstance(embedding, keras.layers.Embedding)
    x = embedding(tokens)
    for layer, (_, weights) in zip((first, second), judgement.attention, strict=True):
        x, scores = layer(x, x, return_attention_scores=True)
        np.testing.assert_array_equal(weights, scores[0])
    assert [layer.__dict__.get("call") for layer in (first, second)] == calls


def test_layers_are_as_before_after_an_error(model, monkeypatch):
    layers = [model.get_layer("classifier").get_layer(x) for x in ("first", "second")]

    def fail(*_, **__):
        assert all("call" in layer.__dict__ for layer in layers)
        raise ZeroDivisionError

    monkeypatch.setattr(type(model), "call", fail)
    with pytest.raises(ZeroDivisionError):
        demo.judge(model, TEXTS[0])
    assert not any("call" in layer.__dict__ for layer in layers)


def test_scores_that_a_model_asks_for_itself_still_come():
    x = keras.Input((3, 4))
    layer = keras.layers.MultiHeadAttention(2, 4)
    model = keras.Model(x, layer(x, x, return_attention_scores=True))
    with demo.recorded_attention(model) as recorded:
        y, scores = model(np.ones((1, 3, 4)))
    assert y.shape == (1, 3, 4)
    np.testing.assert_array_equal(recorded[0][1], scores)


def test_words_are_escaped_and_the_heaviest_is_the_strongest():
    text = demo.highlight(["<b>", "film"], np.array([0.25, 0.75]))
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert 'title="0.750"' in text
    assert "0.23)" in text  # a third of the strongest ground
    assert "0.70)" in text


def test_attention_of_one_word_or_of_all(model):
    judgement = demo.judge(model, TEXTS[0])
    name, weights = judgement.attention[1]
    page = demo.show_attention(judgement, 2)
    assert page.count("<p>") == 4  # two layers of two heads
    assert f"{name}, head 1" in page
    assert f'title="{weights[1, 2, 0]:.3f}"' in page
    average = demo.show_attention(judgement, demo.ALL_WORDS)
    assert f'title="{weights[1, :, 0].mean():.3f}"' in average


def test_attention_that_is_not_from_word_to_word_is_told():
    pooled = demo.Judgement(0.5, ["a", "film"], [("pool", np.ones((1, 1, 2)))])
    assert "does not look from word to word" in demo.show_attention(pooled, 0)
    none = demo.Judgement(0.5, ["a"], [])
    assert "no attention layer" in demo.show_attention(none, 0)


def test_judgements_in_a_sentence():
    good, bad = (demo.Judgement(p, ["x"], []) for p in (0.9, 0.2))
    assert demo.compare([good]).startswith("The review sounds positive")
    assert "negative" in demo.compare([bad])
    assert demo.compare([bad, good]).startswith("The second review")
    assert demo.compare([good, bad]).startswith("The first review")
    assert "0.900 against 0.200" in demo.compare([bad, good])


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        (
            [0.3981, 0.3981],
            "Both reviews sound equally positive: probability 0.398 each.",
        ),
        # Not the same, but they look it.
        (
            [0.3984, 0.3976],
            "Both reviews sound equally positive: probability 0.398 each.",
        ),
        ([0.3984, 0.3986], "The second review sounds more positive: "),
        ([0.5], "The review sounds neither positive nor negative: "),
        ([0.4996], "The review sounds neither positive nor negative: "),
        ([0.4994], "The review sounds negative: "),
        ([0.5006], "The review sounds positive: "),
    ],
)
def test_probabilities_that_look_equal_are_called_equal(pairs, sentence):
    found = demo.compare([demo.Judgement(p, ["x"], []) for p in pairs])
    assert found.startswith(sentence)


def test_reviews_without_a_known_word_are_not_judged():
    none, some = (demo.Judgement(0.6, words, []) for words in (["[UNK]", ""], ["x"]))
    assert not none.known
    assert some.known
    assert not demo.Judgement(0.6, ["[CLS]", "<unk>", "[SEP]", "<s>"], []).known
    assert not demo.Judgement(0.6, [], []).known
    told = "has no word that the model knows."
    assert demo.compare([none]) == f"The review {told}"
    assert demo.compare([none, some]) == f"The first review {told}"
    assert demo.compare([some, none]) == f"The second review {told}"
    assert demo.compare([none, none]) == (
        "Both reviews have no word that the model knows."
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("xyzzy, plugh", None),
        ("... ~ ' :-)", None),
        ("Ночь, улица, фонарь", None),
        ("half a character: \ud83d", ["[UNK]", "a", "[UNK]", "[UNK]"]),
        ("a\n\nfine <b>film</b>", ["a", "fine", "[UNK]", "film", "[UNK]"]),
        ("a fine film " * 2000, ["a", "fine", *["film", "a", "fine"] * 2]),
    ],
)
def test_odd_texts_are_read(model, text, words):
    judgement = demo.judge(model, text)
    assert judgement.known == (words is not None)
    if words is not None:
        assert len(judgement.words) == min(len(words), 8)
        assert judgement.words[:2] == words[:2]
    assert "<b>" not in demo.show_attention(judgement, demo.ALL_WORDS).replace(
        "<p><b>first, head", ""
    ).replace("<p><b>second, head", "")


class WatchedLock:
    """A lock that tells when a thread has to wait for it."""

    def __init__(self, waited_for):
        self.lock, self.waited_for = threading.Lock(), waited_for

    def __enter__(self):
        if not self.lock.acquire(blocking=False):
            self.waited_for.set()
            self.lock.acquire()

    def __exit__(self, *_):
        self.lock.release()


def test_two_requests_at_once_get_their_own_attention(model, monkeypatch):
    """The first waits inside the model until the second is through, or has to wait."""
    call, go_on, threads, found = type(model).call, threading.Event(), [], []

    def second():
        found.append(demo.judge(model, TEXTS[1]))
        go_on.set()

    def slow(self, texts, *args, **kwargs):
        if self is model and not threads:
            threads.append(threading.Thread(target=second))
            threads[0].start()
            assert go_on.wait(timeout=60)
        return call(self, texts, *args, **kwargs)

    monkeypatch.setattr(demo, "_ONE_AT_A_TIME", WatchedLock(go_on))
    monkeypatch.setattr(type(model), "call", slow)
    first = demo.judge(model, TEXTS[0])
    threads[0].join()
    for judgement in (first, *found):
        assert [name for name, _ in judgement.attention] == ["first", "second"]
        length = len(judgement.words)
        assert judgement.attention[0][1].shape == (2, length, length)


def test_other_models_are_refused():
    x = keras.Input((3,))
    with pytest.raises(UserError, match="get_vocabulary"):
        demo.judge(keras.Model(x, x), "a film")
    with pytest.raises(UserError, match="one probability"):
        demo.judge(make_model(classes=2), "a film")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to start the demo in, far from the checkout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "hw3tf/course/demo.py"))
    return tmp_path


def test_a_saved_model_is_loaded(model, folder):
    model.save(folder / "other.keras")
    loaded = demo.load_model(folder / "other.keras")
    assert demo.judge(loaded, TEXTS[1]).probability == pytest.approx(
        demo.judge(model, TEXTS[1]).probability, abs=1e-6
    )


def test_bad_models_are_told_in_a_line(folder):
    with pytest.raises(UserError, match="does not exist"):
        demo.load_model(folder / "absent.keras")
    (folder / "text.keras").write_text("no model")
    with pytest.raises(UserError, match=r"text\.keras cannot be loaded: ."):
        demo.load_model(folder / "text.keras")
    with pytest.raises(UserError, match="start the demo in the checkout"):
        demo.load_model(None)


PROGRAM = """
import pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
assert "--quick" in sys.argv
assert sys.argv[sys.argv.index("--data") + 1] == "sample"
out.mkdir(parents=True)
(out / "sentiment.keras").write_bytes(pathlib.Path("other.keras").read_bytes())
"""


def test_without_a_model_the_tutorial_trains_one(model, folder):
    model.save(folder / "other.keras")
    (folder / "tutorials").mkdir()
    demo.TUTORIAL.write_text(PROGRAM)
    assert demo.judge(demo.load_model(None, "sample"), TEXTS[0]).words
    assert demo.MODEL.exists()
    demo.TUTORIAL.write_text("raise SystemExit(3)")
    assert demo.load_model(None) is not None  # the one that is there
    demo.MODEL.unlink()
    with pytest.raises(UserError, match="status 3"):
        demo.load_model(None)


def end_of_command(monkeypatch, capsys, *arguments):
    """What the demo writes to standard error when it refuses to start."""
    monkeypatch.setattr(sys, "argv", ["demo.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        demo.command()
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_without_gradio_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    error = end_of_command(monkeypatch, capsys)
    assert error == "demo.py: error: Gradio is missing: pip install 'hw3tf[demo]'\n"


def test_on_another_backend_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    error = end_of_command(monkeypatch, capsys)
    assert error.startswith("demo.py: error: this program needs TensorFlow, and Keras")
    assert error.count("\n") == 1


@pytest.mark.parametrize("port", ["0", "-1", "65536", "x"])
def test_ports_that_are_none_are_refused(port, monkeypatch, capsys):
    error = end_of_command(monkeypatch, capsys, f"--port={port}")
    assert error.endswith(
        f"error: argument --port: must be an integer from 1 to 65535, not '{port}'\n"
    )


class FakeGradio:
    """A substitute for Gradio, which asks its own server through `httpx`, with the
    rules of `httpx` for proxies."""

    def __getattr__(self, name):
        return mock.MagicMock()

    __spec__ = "anything"  # find_spec looks at it

    def launch(self, **options):
        proxies = urllib.request.getproxies()
        # As `httpx` reads it: one star, and no proxy is used for anything.
        assert "*" in proxies["no"].split(",")
        assert urllib.request.proxy_bypass("127.0.0.1")
        raise OSError("no free port")


def test_a_proxy_does_not_come_between_gradio_and_its_own_server(
    model, folder, monkeypatch, capsys
):
    for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")  # as the demo does
    monkeypatch.setitem(sys.modules, "gradio", FakeGradio())
    monkeypatch.setattr(demo, "build_interface", lambda model: FakeGradio())
    model.save(folder / "a.keras")
    error = end_of_command(
        monkeypatch, capsys, "--model", str(folder / "a.keras"), "--port", "7999"
    )
    assert error == "demo.py: error: --port 7999 cannot be used: no free port\n"
