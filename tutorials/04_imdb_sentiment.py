# %% [markdown]
r"""# Sentiment of film reviews

*Does a Transformer need its attention to tell whether a reviewer liked a film?*

Run time: 12 min on 2 CPU cores, `--quick` 2 min. Download: 84 MB, or none.

**Question 4.** Train a net that reads a film review and says whether its author liked
the film. The data are 25,000 reviews from IMDB with their labels, and 25,000 others to
test it (Maas et al., 2011). Nothing else is used, no pretrained model and no other
text. Which part of the net does the work?

You will start from counted words, then build a Transformer and add one part at a time.
Every model gets one bar in one chart. At the end comes a set of reviews that puts the
bars into a different order.

These are the claims. Each is judged in the cell that tests it. The accuracies of claims
1 and 2 are those of the 25,000 test reviews. They and the time in claim 3 are judged
only in a full run on IMDB.

1. With counted phrases, convolution and attention, the net classifies at least 0.915 of
   the reviews correctly. The counted phrases bring at least 0.01 of it.
2. Several nets and a log-linear model, added up, classify at least 0.92 correctly.
3. With the same weights, Keras's GRU and the fused one give the same logits to 1e-4.
   A training step with Keras's takes at least 1.5 times as long.
4. Where a review must be read as a whole, attention is needed: with it, at least 0.95
   of the hard generated reviews are classified correctly, without it at most 0.6.
5. "Justice League is terrible. I hated it." is negative, "Avengers was great!!" is
   positive. The saved model and the exported one give the same probabilities to 1e-5.

Run the cells from top to bottom and change what you like. As a program, for the whole
lesson or for one model of your choice:

```
python tutorials/04_imdb_sentiment.py --out runs/imdb_sentiment
python tutorials/04_imdb_sentiment.py --model lstm --text "Not bad at all."
python tutorials/04_imdb_sentiment.py --recipe best
```
"""

# %%
import os
import subprocess
import sys

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
print("Loading TensorFlow takes a few seconds.", flush=True)
try:
    import hw3tf
except ImportError as error:
    if "ipykernel" not in sys.modules:
        raise SystemExit(f"{error}: pip install '.[tutorials]'") from None
    print("Installing hw3tf takes minutes and needs a C++17 compiler.", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "..[tutorials]"]
    subprocess.run(pip, check=True)
    import hw3tf

# %%
from dataclasses import replace

import keras
import numpy as np

from hw3tf.course import data, sentiment
from hw3tf.course.lesson import Lesson
from hw3tf.course.own_op import best_time
from hw3tf.course.plots import sentiment as draw

# %% [markdown]
# ## Settings
#
# Where there are two values, the left one is that of this notebook, the right one that
# of a full run: `lesson.settings(full=True, ...)`, or the program without `--quick`.
# `data="auto"` takes IMDB if it is there or can be downloaded. Otherwise it takes
# reviews out of a generator, which need no download.

# %%
lesson = Lesson("04_imdb_sentiment", claims=5, program=sentiment.command)
settings = lesson.settings(
    data="auto",
    max_reviews=(2_500, 25_000),
    num_tested=(2_500, 25_000),
    sequence_length=(128, 512),
    epochs_on_generated=(3, 6),
    seconds=(0.5, 3.0),  # that each time is measured
    seed=0,
    choices={"data": ("auto", "imdb", "sample")},
)

# %% [markdown]
# ## Two reviews

# %%
reviews = data.load_reviews(settings.data).tested_on(settings.num_tested)
print(f"Data: {reviews.origin}")
needs = "" if reviews.name == "imdb" else "IMDB"
for label, name in enumerate(("negative", "positive")):
    rows = np.flatnonzero(reviews.train_labels == label)
    row = min(rows, key=lambda row: abs(len(reviews.train_texts[row]) - 250))
    print(f"\n{name}: {reviews.train_texts[row]}")

# %% [markdown]
# Reviewers use capitals, HTML and marks out of ten. The net gets tokens: words in lower
# case, marks such as `8/10`, and `! ? .`. Long reviews lose their middle, since
# reviewers conclude at the end.

# %%
options = sentiment.settings_for(
    reviews,
    max_reviews=settings.max_reviews,
    sequence_length=settings.sequence_length,
    seed=settings.seed,
)
print("Tokenizing takes a few seconds, counting phrases a minute in a full run.")
corpus = sentiment.make_corpus(reviews, options, progress=lesson.progress)
tokenizer, vocabulary = corpus.tokenizer, corpus.tokenizer.get_vocabulary()
print(f"{len(corpus.texts):,} training reviews, {len(vocabulary):,} different tokens")
print([vocabulary[i] for i in tokenizer(["Not bad at all! <br /> 8/10"])[0]])

# %% [markdown]
# ## What phrases say by themselves
#
# *Not worth*, *one of the best*, *8/10*: much of a review's sentiment lies in phrases
# of two or three words. There are millions of them, too many to learn a vector for
# each. But you can count. If a phrase $g$ is found in $p_g$ positive and in $n_g$
# negative training reviews, then
#
# $$r_g = \ln(p_g + 1) - \ln(n_g + 1)$$
#
# is above 0 for praise and below 0 for blame. If phrases were independent given the
# label, the sum of all $r_g$ in a review would be its log odds: that is naive Bayes.
# They are not independent, so a logistic regression learns a weight for each, which
# heeds that *not bad* comes with *not* and with *bad* (NB-SVM: Wang and Manning, 2012).
#
# **Predict, then run:** which sign has *not bad*?

# %%
for asked in ("not", "bad", "not bad", "great", "not great"):
    order = len(asked.split())
    numbers = corpus.features(tokenizer([asked]))[0, 0].numpy()
    ratio, weight = numbers[order - 1], numbers[order + 2]
    print(f"{asked:10} ratio {ratio:+.2f}, learned weight {weight:+.2f}")

# %% [markdown]
# In a full run on IMDB, *bad* blames, and *not bad* blames much less: its ratio is a
# third. The learned weights of a review are added up, so the weight of *not bad* is
# what the pair adds to its two words. It is positive and small, since reviews that say
# *not bad* often go on to blame.
#
# A phrase that occurs in one training review alone says the label of that review. A net
# that saw such numbers would trust them, and be lost on new reviews. So the training
# reviews are cut into eight folds, and each gets numbers from the other seven.
#
# ## First bar: a bag of words
#
# A logistic regression on the words alone, without any order. How far does that get?


# %%
def accuracy(logits):
    return float(np.mean((logits > 0) == (reviews.test_labels == 1)))


print("Counting the words of all reviews takes a few seconds.", flush=True)
bag, _ = data.tfidf_logits(corpus.texts, corpus.labels, reviews.test_texts)
table = {"bag of words": accuracy(bag)}
lesson.show("first_bar", draw.accuracies(table))

# %% [markdown]
# That is the bar to clear. A review of 200 words holds so many words of praise or blame
# that a weighted count of them is right most of the time, whatever their order.
#
# ## A Transformer
#
# The block: attention lets every word look at all others, and a feed-forward layer
# works on each by itself. Each comes after a normalization and beside a residual
# connection (pre-norm: Xiong et al., 2020). `MultiHeadAttention` is hw3tf's layer. It
# builds no matrix of length x length scores, in training either, and skips the padding.


# %%
def attention_block(x, mask, dropout, heads=2):
    """Vectors (batch, length, dim) of words that have looked at each other."""
    layers, dim = keras.layers, x.shape[-1]
    attention = hw3tf.layers.MultiHeadAttention(
        heads, dim // heads, name="attention_layer"
    )
    y = layers.LayerNormalization()(x)
    y = attention(y, y, query_mask=mask, value_mask=mask)
    x = x + layers.Dropout(dropout)(y)
    y = layers.Dense(2 * dim, activation="relu")(layers.LayerNormalization()(x))
    return x + layers.Dropout(dropout)(layers.Dense(dim)(y))


# %% [markdown]
# Before the block, each word gets a vector. After it, the mean over the words goes to
# one logit. `sentiment.build_classifier` makes a model around the block that you give
# it, and switches take parts out. The training batches have reviews of similar length.


# %%
def train(name, corpus, options, block):
    """Returns a trained model and its logits for the test reviews."""
    keras.utils.set_random_seed(settings.seed)
    model = sentiment.build_classifier(options, block)
    training = corpus.training_batches(options)
    sentiment.compile_classifier(model, training, options)
    report = [lesson.training(name)]
    model.fit(
        training, epochs=options.epochs, shuffle=False, verbose=0, callbacks=report
    )
    return model, sentiment.predict(model, corpus.test_batches, report)


# %% [markdown]
# Attention does not know the order of the words. In tutorial 3 you have seen that
# without positions it cannot even reverse a text. So a second Transformer gets a
# learned vector for every position. **Predict, then run:** what do positions bring?

# %%
plain = replace(options, convolution=False, phrases=False)
for name, own in {
    "Transformer": plain,
    "with positions": replace(plain, positions=True),
}.items():
    _, logits = train(name, corpus, own, attention_block)
    table[name] = accuracy(logits)
lesson.show("transformers", draw.accuracies(table))

# %% [markdown]
# On IMDB, nothing: for sentiment it hardly matters where in a review *dreadful* stands.
# And neither model is better than counted words. The order that matters is that of
# neighbours: *not bad*. Position vectors do not tell a net who the neighbours are,
# unless it learns that from 25,000 examples.
#
# ## Neighbours: a convolution
#
# A convolution over three words sees neighbours from the start. It takes the place of
# the positions.

# %%
convolved = replace(options, phrases=False)
_, logits = train("with convolution", corpus, convolved, attention_block)
table["with convolution"] = accuracy(logits)
lesson.show("with_convolution", draw.accuracies(table))

# %% [markdown]
# On IMDB this brings nothing either. The net sees pairs of words now, but it has to
# learn each from the few reviews that have it. A pair that occurs in ten reviews of
# 25,000 is hard to learn by gradient steps, and easy to count.
#
# ## Counted phrases
#
# Now each position also gets the six numbers of the word, the pair and the triple that
# begin there: three ratios, three weights. **Predict, then run:** how much of the way
# to 1 do they bring?

# %%
model, logits = train("with phrases", corpus, options, attention_block)
table["with phrases"] = found = accuracy(logits)
lesson.show("with_phrases", draw.accuracies(table))
gain = found - table["with convolution"]
lesson.claim(1, "accuracy", found, ">=", 0.915, full=True, needs=needs)
lesson.claim(1, "of it, by phrases", gain, ">=", 0.01, full=True, needs=needs)

# %% [markdown]
# On IMDB this is the largest step in the chart, and it comes from counting. The net
# does not have to find the phrases. It learns how much to believe them, and what the
# words around them change.
#
# ## Something else in the place of attention
#
# A recurrent net reads the words one by one, here from both ends. Or nothing at all
# stands there, and the words see their two neighbours only. **Predict, then run:**
# where will the three bars end?


# %%
def recurrent_block(kind):
    """Returns a block in which words know what stands before and after them."""

    def block(x, mask, dropout):
        layer = kind(x.shape[-1] // 2, return_sequences=True)
        y = keras.layers.Bidirectional(layer)(x, mask=mask)
        return x + keras.layers.Dropout(dropout)(y)

    return block


def nothing(x, mask, dropout):
    return x


# %%
blocks = {
    "GRU for attention": recurrent_block(hw3tf.layers.GRU),
    "LSTM for attention": recurrent_block(hw3tf.layers.LSTM),
    "nothing for attention": nothing,
}
members = {"with phrases": logits}
for name, block in blocks.items():
    _, members[name] = train(name, corpus, options, block)
    table[name] = accuracy(members[name])
lesson.show("blocks", draw.accuracies(table))

# %% [markdown]
# On IMDB the four differ by three reviews in a thousand; three seeds of the same net
# differ by half as much. Reviewers say what they think in more than one place, and
# right beside the word that it is about. **A Transformer does not need its attention
# for this.**
#
# Recurrent layers are slow in Keras, since every step of the recurrence runs a dozen
# small operations. `hw3tf.layers.GRU` does all steps in one. Here are both in the same
# net, with the same weights, on one batch:

# %%
fused = sentiment.build_classifier(options, recurrent_block(hw3tf.layers.GRU))
stock = sentiment.build_classifier(options, recurrent_block(keras.layers.GRU))
stock.set_weights(fused.get_weights())
batch, wanted = next(iter(corpus.training_batches(options)))
off = np.max(np.abs(fused.predict_on_batch(batch) - stock.predict_on_batch(batch)))
lesson.claim(3, "logits of both, largest difference", off, "<", 1e-4)

# %%
print("Timing both takes a few seconds.", flush=True)
step = {}
for name, net in {"hw3tf": fused, "Keras": stock}.items():
    net.compile("adam", "mse")
    step[name] = best_time(
        lambda net=net: net.train_on_batch(batch, wanted), settings.seconds
    )
    print(f"{name}: {1e3 * step[name]:.1f} ms for a step on {batch[0].shape}")
slower = step["Keras"] / step["hw3tf"]
lesson.claim(3, "Keras's time over hw3tf's", slower, ">=", 1.5, full=True, needs=needs)

# %% [markdown]
# ## Adding up models
#
# The four nets make mistakes on different reviews, and so does a model that is no net:
# a log-linear model with one weight for each of a million phrases. Their logits are
# added up, the log-linear model's with the weight of one net.

# %%
print("Fitting the log-linear model takes half a minute in a full run.", flush=True)
whole = data.ReviewTokenizer(options.vocab_size, sequence_length=4096)
whole.adapt(corpus.texts)
log_linear = data.phrase_logits(
    whole.tokenize(corpus.texts), corpus.labels, whole.tokenize(reviews.test_texts)
)
table["log-linear model"] = accuracy(log_linear)
added_up = np.mean(list(members.values()), axis=0) + log_linear
table["all five"] = accuracy(added_up)
lesson.show("all_models", draw.accuracies(table))
lesson.claim(2, "accuracy", table["all five"], ">=", 0.92, full=True, needs=needs)

# %% [markdown]
# The sum is better than each of its parts. Where one model is wrong and unsure, the
# others outvote it. `--recipe best` goes further in the same direction: six nets, and a
# weight for the log-linear model that is chosen on held-out reviews. It reaches 0.927.
# The best model that we know to be published for these 25,000 reviews alone, a
# convolution over n-grams, reaches 0.923 (Johnson and Zhang, 2015).
#
# ## What is still wrong
#
# These are the mistakes of which the net with attention was surest.

# %%
logits = members["with phrases"]
sentiment.print_mistakes(reviews, logits)
right = (logits > 0) == (reviews.test_labels == 1)
lesson.show("lengths", draw.lengths(right, sentiment.num_words(reviews)))

# %% [markdown]
# Read them as you would read a stranger's letter. Some are irony: praise in every word,
# and blame in what is meant. Some repeat what others say of the film, in order to
# contradict it. Some praise the form and blame the content. And some labels contradict
# their texts: a seven of ten, highly recommended, counts as negative. Long reviews are
# a little harder, since they weigh one thing against the other.
#
# ## Where attention is needed
#
# A hard review of the generator names two things, one with a good word and one with a
# bad word beside it. Farther away it says which of the two decides. Only both places
# together tell the sentiment.

# %%
sample = reviews if reviews.name == "sample" else data.load_reviews("sample")
hard = np.flatnonzero(sample.test_hard)
for row in hard[:3]:
    name = ("negative", "positive")[sample.test_labels[row]]
    print(f"{name}: {sample.test_texts[row]}\n")

# %% [markdown]
# Let $a = \pm 1$ say which of the two things has the good word, $n = \pm 1$ which of
# them decides. The label is the sign of $a\,n$, and all four cases are equally
# frequent. A model that looks through small windows and adds up what it sees has the
# logit
# $f(a) + h(n)$. But
#
# $$\big(f(+) + h(+)\big) + \big(f(-) + h(-)\big) =
#   \big(f(+) + h(-)\big) + \big(f(-) + h(+)\big)$$
#
# On the left stand the two positive cases, on the right the two negative ones. Their
# logits have the same sum, so they cannot all be right: such a model gets three of four
# cases at most. Cross-entropy drives it lower still. The loss is convex, so it is least
# where all four logits are 0 and every probability is one half. Bags of words,
# naive Bayes, and convolution with mean pooling are such models.
#
# Attention compares every word with every other one. The thing that decides finds its
# own name elsewhere, and brings back the word beside it. **Predict, then run:** how
# many of the hard reviews does each model get?

# %%
of_sample = sentiment.settings_for(
    sample, epochs=settings.epochs_on_generated, seed=settings.seed
)
generated = sentiment.make_corpus(sample, of_sample, progress=lesson.progress)


def hard_accuracy(logits):
    return float(np.mean((logits > 0)[hard] == (sample.test_labels == 1)[hard]))


# %%
nets, on_hard = {}, {}
for name, block in {"attention": attention_block, "no attention": nothing}.items():
    what = f"{name}, generated reviews"
    nets[name], logits = train(what, generated, of_sample, block)
    on_hard[name] = hard_accuracy(logits)

# %%
bag, _ = data.tfidf_logits(generated.texts, generated.labels, sample.test_texts)
tokens = generated.tokenizer.tokenize(sample.test_texts)
ratios = [f[:, :, :3] for f in (generated.floats, generated.features.of_ragged(tokens))]
bayes, _ = data.summed_feature_logits(ratios[0], generated.labels, ratios[1])
on_hard |= {"bag of words": hard_accuracy(bag), "naive Bayes": hard_accuracy(bayes)}
lesson.show("hard", draw.accuracies(on_hard))
others = max(rate for name, rate in on_hard.items() if name != "attention")
lesson.claim(4, "hard reviews, with attention", on_hard["attention"], ">=", 0.95)
lesson.claim(4, "hard reviews, best without", others, "<=", 0.6)

# %% [markdown]
# All against one half. What has the attention learned? Here is the shortest hard
# review, and of its words only those that decide.

# %%
text = min(np.array(sample.test_texts)[hard], key=len)
weights, words = sentiment.attention_weights(
    str(text), generated.tokenizer, generated.features, nets["attention"]
)
print(text)
decisive = [i for i, word in enumerate(words) if word in data.DECISIVE_WORDS]
lesson.show("attention", draw.attention(weights, words, decisive))

# %% [markdown]
# Look at the rows of the good and the bad word. In head 0 both look at the name of the
# thing that decides. Each of the two also knows, by the convolution, which name stands
# beside it. If the two names are the same, its praise or blame counts, and otherwise it
# does not. That is the copying of tutorial 3 at work: $q \cdot k$ finds the place, $v$
# brings what stands there.
#
# ## The model in a file
#
# Tokenizer, phrases and net become one model that takes strings. It is saved as
# `.keras` and exported for TensorFlow Serving, and both are loaded again.

# %%
asked = ["Justice League is terrible. I hated it.", "Avengers was great!!"]
whole_model = sentiment.with_tokenizer(tokenizer, corpus.features, model)
lesson.out.mkdir(parents=True, exist_ok=True)
saved = sentiment.save_and_compare(
    whole_model, asked, lesson.out / "sentiment.keras", lesson.out / "exported"
)
sentiment.print_judged(asked, saved["probabilities"], tokenizer.knows(asked))
negative, positive = saved["probabilities"]
lesson.claim(5, "probability of the first text", negative, "<", 0.5)
lesson.claim(5, "probability of the second text", positive, ">", 0.5)
off = max(saved["saved_difference"], saved["exported_difference"])
lesson.claim(5, "loaded models, largest difference", off, "<", 1e-5)

# %%
lesson.finish(
    data=reviews.name,
    accuracies=table,
    accuracies_on_hard_reviews=on_hard,
    milliseconds_per_step={name: 1e3 * time for name, time in step.items()},
)

# %% [markdown]
# ## Going further
#
# - `--model bert` puts two GRUs on a frozen BERT, which has read books and Wikipedia
#   (`pip install '.[bert]'`, 440 MB). `hw3tf.accelerate` puts its attention onto the
#   kernel in one line.
# - `--unlabelled` begins with word vectors from IMDB's 50,000 reviews without labels.
# - `--workers 2` trains in two processes, each on its half of every batch. Ctrl-C keeps
#   the best epoch, and `--resume` goes on from it.
#
# ## Conclusion
#
# **Question 4.** On IMDB, counted phrases do most of the work: a log-linear model of
# them is right as often as the best single net here, and only a sum of models is
# better. It matters little whether attention, a recurrent net or nothing connects far
# words. Where the meaning lies in the connection, attention is worth everything.
#
# ## Exercises
#
# 1. Give the training reviews numbers that have counted them:
#    `replace(corpus, floats=corpus.features.of_ragged(corpus.tokens))`. What happens,
#    and why?
# 2. Pool by the maximum, too (`replace(options, max_pool=True)`). Which hard reviews
#    does the net without attention get now?
# 3. Splice two reviews of one label. From which length on does attention pay?
#
# ## References
#
# - A. Maas et al., [Learning word vectors for sentiment
#   analysis](https://aclanthology.org/P11-1015/), 2011: the reviews.
# - S. Wang and C. Manning, [Baselines and
#   bigrams](https://aclanthology.org/P12-2018/), 2012: naive Bayes, NB-SVM.
# - R. Johnson and T. Zhang, [Effective use of word order for text
#   categorization](https://aclanthology.org/N15-1011/), 2015: convolution over n-grams.
# - R. Xiong et al., [On layer normalization in the Transformer
#   architecture](https://arxiv.org/abs/2002.04745), 2020: pre-norm.
