"""The parts of `python -m hw3tf.course.demo`. The page itself is tested in a browser,
by `nox -s demo`."""

import http.client
import json
import sys
import threading

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


def test_answer_has_the_weights_of_every_word(model):
    found = demo.answer(model, [TEXTS[0], " "])
    assert found["sentence"] == demo.compare([demo.judge(model, TEXTS[0])])
    first, nothing = found["judgements"]
    assert nothing is None
    assert json.loads(json.dumps(first)) is not None
    judgement = demo.judge(model, TEXTS[0])
    assert first["words"] == TEXTS[0].split()
    assert first["probability"] == pytest.approx(judgement.probability, abs=1e-6)
    names = [f"{layer}, head {i}" for layer in ("first", "second") for i in (0, 1)]
    assert [name for name, _ in first["heads"]] == names
    weights = judgement.attention[1][1][1]
    np.testing.assert_allclose(first["heads"][3][1], weights, atol=6e-5)
    assert demo.answer(model, ["", "\n"])["sentence"] == "Type a review first."


def test_head_that_does_not_look_from_word_to_word_has_no_weights(model, monkeypatch):
    pooled = demo.Judgement(0.5, ["a", "film"], [("pool", np.ones((1, 1, 2)))])
    monkeypatch.setattr(demo, "judge", lambda *_: pooled)
    (found,) = demo.answer(model, ["a film"])["judgements"]
    assert found["heads"] == [("pool, head 0", None)]


@pytest.mark.parametrize(
    ("probabilities", "place"),
    [
        ([0.9, 0.1, 0.9, 0.1, 0.9, 0.1], 0),
        ([0.4, 0.1, 0.6, 0.2, 0.9, 0.1], 1),
        ([0.9, 0.6, 0.9, 0.5, 0.6, 0.4], 2),
        ([0.9, 0.6, 0.4, 0.1, 0.1, 0.9], None),
    ],
)
def test_examples_are_those_that_the_model_gets_right(
    probabilities, place, monkeypatch
):
    texts = [text for pair in demo.EXAMPLES for text in pair]
    judged = dict(zip(texts, probabilities, strict=True))
    monkeypatch.setattr(
        demo, "judge", lambda _, text: demo.Judgement(judged[text], ["x"], [])
    )
    wanted = None if place is None else demo.EXAMPLES[place]
    assert demo.right_examples(None) == wanted


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


PROGRAM = """
import pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
assert "--quick" in sys.argv
assert sys.argv[sys.argv.index("--data") + 1] == "sample"
out.mkdir(parents=True)
(out / "sentiment.keras").write_bytes(pathlib.Path("other.keras").read_bytes())
"""


def test_without_a_model_one_is_trained(model, folder, monkeypatch):
    model.save(folder / "other.keras")
    monkeypatch.setattr(demo, "PROGRAM", ("-c", PROGRAM))
    assert demo.judge(demo.load_model(None, "sample"), TEXTS[0]).words
    assert demo.MODEL.exists()
    monkeypatch.setattr(demo, "PROGRAM", ("-c", "raise SystemExit(3)"))
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


@pytest.fixture
def server(model):
    """A demo of the model at a free port."""
    with demo.Server(model) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, body=None, path="/", host=None, size=None):
    """(status, kind, text) of the reply: to `body`, or of a page if it is None."""
    connection = http.client.HTTPConnection(server.address.partition("//")[2])
    connection.putrequest("GET" if body is None else "POST", path, skip_host=True)
    connection.putheader("Host", host or server.address.partition("//")[2])
    if body is not None:
        connection.putheader("Content-Length", size or str(len(body)))
    connection.endheaders(body)
    reply = connection.getresponse()
    found = reply.status, reply.headers["Content-Type"], reply.read().decode()
    connection.close()
    return found


def test_page_is_whole_and_offers_examples(server, monkeypatch):
    status, kind, page = ask(server)
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert '["EXAMPLES"]' not in page
    assert "src=" not in page  # it loads nothing
    assert ask(server, path="/other")[0] == 404
    hostile = ("</script><b>", "x")
    monkeypatch.setattr(demo, "right_examples", lambda _: hostile)
    with demo.Server(server.model) as other:  # beside it, at another port
        assert other.address != server.address
        assert "</script><b>" not in other.page


def test_reviews_are_judged_by_the_server(server, model):
    body = json.dumps({"texts": TEXTS}).encode()
    status, kind, text = ask(server, body, "/judge")
    assert (status, kind) == (200, "application/json")
    wanted = json.loads(json.dumps(demo.answer(model, TEXTS)))
    assert json.loads(text) == wanted


@pytest.mark.parametrize(
    "request_",
    [
        {"body": b"no json"},
        {"body": b'{"other": 1}'},
        {"body": b'{"texts": 3}'},
        {"body": b"{}", "size": "x"},
        {"body": b"{}", "size": "1000001"},
        {"body": b'{"texts": ["a"]}', "host": "example.org"},
        {"body": b'{"texts": ["a"]}', "path": "/other"},
    ],
)
def test_other_requests_are_refused(server, request_):
    status, _, text = ask(server, **{"path": "/judge", **request_})
    assert status == 400
    assert text.startswith("This cannot be judged: ")


def test_a_port_in_use_is_told_in_a_line(server, model, tmp_path, monkeypatch, capsys):
    port = server.address.rpartition(":")[2]
    model.save(tmp_path / "a.keras")
    error = end_of_command(
        monkeypatch, capsys, "--model", str(tmp_path / "a.keras"), "--port", port
    )
    assert error.startswith(f"demo.py: error: --port {port} cannot be used: ")
    assert error.count("\n") == 1
