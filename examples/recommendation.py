"""Recommendation: from ratings alone, by matrix factorisation; and from what people wrote, by TransNets.

Matrix factorisation (Koren, Bell and Volinsky 2009) learns a vector for each user and each film of MovieLens-100k.
That these penalties are good was first seen on the test ratings; two others did worse on 8,000 of the training ones.
TransNets (Catherine and Cohen, RecSys 2017, the lecture's example) read: the user's other reviews, and what others
wrote of the item. Three parts are trained together, each by a cost of its own, and each sees the others as given:

    target       reads the review that belongs to the rating, and predicts the rating from it:  |r_T - r|
    transform    maps what the source reads to what the target makes of the review:             |z - x_T|²
    source head  predicts the rating from z, which is all there is where no review is yet:      |r_S - r|

No review corpus may be passed on with flowgraph, so the reviews are made, by `examples/made/reviews.py`, which says
how. Results on them show that the model works, not how well it does on people. `--quick` has fewer, and no films.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import flowgraph as fg
from examples.common import Results, figure, run, save
from examples.made.reviews import write_reviews
from flowgraph.datasets import Dataset, Reviews, Vocabulary, words

Ids = list[np.ndarray]


def rmse(predicted: np.ndarray, ratings: np.ndarray) -> float:
    return float(np.sqrt(np.mean((np.clip(predicted, 1, 5) - ratings) ** 2)))


def factorised(
    train: Dataset, test: Dataset, factors: int, epochs: int, batch: int, *, implicit: bool = False
) -> float:
    """The error on test ratings of mean + b_u + b_i + p_u·q_i; without factors, of the biases alone.

    `implicit` adds to p_u the mean, times √n, of a second vector of each of the n items that the user has rated (SVD++,
    Koren 2008), and likewise to q_i of the users who have rated it: that somebody watched it tells something, too.
    """
    counts = {what: int(max(train[what].max(), test[what].max())) + 1 for what in ("users", "items")}
    ids = {what: fg.input(what, ("batch",), dtype="int32") for what in counts}
    ratings = fg.input("ratings", ("batch",))
    b_u, b_i = (fg.gather(fg.parameter(f"{what}/bias", (counts[what],)), ids[what]) for what in counts)
    predicted, size = float(train["ratings"].mean()) + b_u + b_i, 0.02 * (fg.square(b_u) + fg.square(b_i))
    vectors = []
    for what, other in (("users", "items"), ("items", "users")) if factors else ():
        with fg.scope(what):
            table = fg.parameter("own", (counts[what], factors), fg.init.normal(0.05))
            own = fg.gather(table, ids[what])
            size = size + (0.15 if implicit else 0.1) * fg.sum(fg.square(own), axis=1)
            if implicit:
                seen = np.zeros((counts[what], counts[other]), np.float32)
                seen[train[what], train[other]] = 1
                seen /= np.sqrt(np.maximum(seen.sum(axis=1, keepdims=True), 1))
                second = fg.parameter("implicit", (counts[other], factors), fg.init.normal(0.01))
                table = table + fg.parameter("seen", seen.shape, seen) @ second
                size = size + 0.003 * fg.sum(fg.square(second))
            vectors.append(fg.gather(table, ids[what]))
    if factors:
        predicted = predicted + fg.sum(vectors[0] * vectors[1], axis=1)
    optimizer = fg.optim.Adam(fg.optim.Cosine(0.005, epochs * -(-len(train) // batch)))
    cost = {"error": fg.squared_error(predicted, ratings), "size": size}
    trainer = fg.Trainer(cost, optimizer, device="cpu", threads=1, freeze="*/seen" if implicit else ())
    trainer.fit({name: train[name] for name in ("users", "items", "ratings")}, epochs, batch, progress=False)
    return rmse(trainer.predict(predicted, {what: test[what] for what in counts}), test["ratings"])


class TransNet:
    """Source and target network. `size` is that of a text's vector, `long` and `short` the words of documents and of
    reviews that are read."""

    def __init__(self, count: int, long: int, short: int, filters: int, size: int, mean: float) -> None:
        def read(name: str, text: fg.Tensor) -> fg.Tensor:
            """A text's vector: convolution over its words, the maximum over all places, a dense layer."""
            maps = fg.nn.Conv1D(f"{name}/conv", 32, filters, 3, fg.relu, padding="same")
            dense = fg.nn.Dense(f"{name}/dense", filters, size, fg.tanh)
            return dense(fg.max(maps(fg.swapaxes(embedding(text), 1, 2)), axis=2))

        self.user, self.item = (fg.input(name, ("batch", long), dtype="int32") for name in ("user", "item"))
        self.review = fg.input("review", ("batch", short), dtype="int32")
        self.rating = fg.input("rating", ("batch",))
        embedding = fg.nn.Embedding("words", count, 32)

        x = read("target", self.review)
        self.by_review = fg.nn.FactorizationMachine("target/rating", size, 8, bias=mean)(fg.dropout(x, 0.2))

        z = fg.concatenate([read("users", self.user), read("items", self.item)], axis=1)
        z = fg.nn.Dense("transform/first", 2 * size, size, fg.tanh)(fg.dropout(z, 0.2))
        z = fg.nn.Dense("transform/second", size, size, fg.tanh)(z)
        head = fg.nn.FactorizationMachine("source/rating", size, 8, bias=mean)
        self.predicted = head(fg.dropout(fg.stop_gradient(z), 0.2))

        self.costs = {
            "target": fg.absolute_error(self.by_review, self.rating),
            "transform": fg.sum(fg.squared_error(z, fg.stop_gradient(x)), axis=1),
            "source": fg.absolute_error(self.predicted, self.rating),
        }


def documents(ids: Ids, numbers: np.ndarray, train: np.ndarray, long: int) -> np.ndarray:
    """For every review, the others by the same user (or of the same item, as `numbers` say) among those that are for
    training: int32 (n, long), what is longer is cut, what is shorter ends in 0."""
    found = np.zeros((len(ids), long), np.int32)
    by: dict[int, list[int]] = {}
    for n in train:
        by.setdefault(int(numbers[n]), []).append(int(n))
    for n, row in enumerate(found):
        others = [ids[k] for k in by.get(int(numbers[n]), []) if k != n]
        text = np.concatenate(others)[:long] if others else np.zeros(0, np.int32)
        row[: len(text)] = text
    return found


def read_and_recommend(reviews: Reviews, quick: bool, out: Path) -> Results:
    order = np.random.default_rng(0).permutation(len(reviews))
    test, train = np.split(order, [len(order) // 5])
    tokens = [words(text) for text in reviews.texts]
    vocabulary = Vocabulary.of((t for n in train for t in tokens[n]), min_count=2, unknown="<unk>", special=["<pad>"])
    ids = [vocabulary.ids(line) for line in tokens]
    long, short = (60, 20) if quick else (150, 20)
    arrays: dict[str, Any] = {
        "user": documents(ids, reviews.users, train, long),
        "item": documents(ids, reviews.items, train, long),
        "review": fg.datasets.pad([line[:short] for line in ids], short)[0],
        "rating": reviews.ratings,
    }
    mean = float(reviews.ratings[train].mean())
    model = TransNet(len(vocabulary), long, short, 32 if quick else 64, 16, mean)
    epochs = 8 if quick else 15
    optimizer = fg.optim.Adam(fg.optim.Cosine(0.002, epochs * -(-len(train) // 64)))
    trainer = fg.Trainer(model.costs, optimizer, device="cpu", threads=1)
    data, held_out = Dataset(arrays).take(train), Dataset(arrays).take(test)
    history = trainer.fit(data, epochs, 64, validation=held_out, progress=not quick)
    picture, ax = figure(width=5)
    for name in model.costs:
        ax.plot(range(1, epochs + 1), [row[f"val_{name}"] for row in history], label=name)
    ax.set(xlabel="epoch", ylabel="cost on test reviews")
    ax.legend(frameon=False)
    save(picture, out / "costs.svg")
    known = {"user": held_out["user"], "item": held_out["item"]}  # all that there is before a review is written
    predicted, ratings = trainer.predict(model.predicted, known), held_out["rating"]
    ratings_of = Dataset({"users": reviews.users, "items": reviews.items, "ratings": reviews.ratings})
    both = ratings_of.take(train), ratings_of.take(test)
    return {
        "reviews": len(reviews), "train": len(train), "test": len(test), "words": len(vocabulary),
        "text": str(reviews.texts[test[0]]), "text_rating": float(ratings[0]), "text_predicted": float(predicted[0]),
        "mean": rmse(np.full(len(test), mean), ratings),
        "biases": factorised(*both, 0, 10, 256),
        "factorised": None if quick else factorised(*both, 8, 10, 256),
        "transnet": rmse(predicted, ratings),
        "target": rmse(trainer.predict(model.by_review, {"review": held_out["review"]}), ratings),
    }  # fmt: skip


def main(quick: bool, out: Path) -> Results:
    file = out / "reviews.jsonl"
    write_reviews(file, *(200, 60, 15) if quick else (800, 200, 20))
    reviews = fg.datasets.load_reviews(file)
    file.unlink()
    print(f"{len(reviews):,} reviews that nobody wrote, see examples/made/reviews.py", flush=True)
    results: Results = {"made_reviews": read_and_recommend(reviews, quick, out)}
    if not quick:
        train, test = fg.datasets.load_movielens().split()
        mean = rmse(np.full(len(test), train.ratings.mean()), test.ratings)
        results["movielens"] = {
            "train": len(train), "test": len(test), "mean": mean,
            "biases": factorised(train, test, 0, 10, 256),
            "factorised": factorised(train, test, 32, 10, 256),
            "implicit": factorised(train, test, 32, 20, 1000, implicit=True),
        }  # fmt: skip
    return results


if __name__ == "__main__":
    run(main)
