"""What gensim reaches with the text and settings of `examples.word2vec`: `python -m benchmarks.word2vec_gensim`

Needs `pip install gensim` and the data sets sotu and wordsim353. Writes `examples/word2vec.gensim.json`, which the
example puts its own results beside.
"""

from __future__ import annotations

import argparse
import json

import gensim
import numpy as np
from gensim.models import Word2Vec

from examples.word2vec import DIMENSIONS, GENSIM, MIN_COUNT, NEGATIVES, WINDOW, state_of_the_union
from flowgraph.datasets import Vocabulary, WordVectors


def main() -> None:
    parser = argparse.ArgumentParser(prog="word2vec_gensim", description=__doc__)
    parser.add_argument("--epochs", type=int, nargs="+", default=[5, 15])
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    sentences, pairs = state_of_the_union()
    scores: dict[str, list[float]] = {}
    for epochs in asked.epochs:
        for seed in range(asked.seeds):
            model = Word2Vec(
                sentences, sg=1, vector_size=DIMENSIONS, window=WINDOW, negative=NEGATIVES, min_count=MIN_COUNT,
                epochs=epochs, seed=seed, workers=1,
            )  # fmt: skip
            words = tuple(model.wv.index_to_key)
            counts = np.array([model.wv.get_vecattr(word, "count") for word in words])
            score = WordVectors(Vocabulary(words, counts), model.wv.vectors).judge_pairs(pairs).score
            scores.setdefault(str(epochs), []).append(round(score, 4))
            print(f"{epochs} epochs, seed {seed}: rank correlation {score:.4f}", flush=True)
    text = json.dumps({"gensim": gensim.__version__, "scores": scores})
    GENSIM.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
