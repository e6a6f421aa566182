"""Data sets: what ships with flowgraph, and what `flowgraph data get NAME` gets; docs/data.md lists them.

Comes in: files of this package, or of the user's cache. Goes out: `Dataset`s of NumPy arrays, tuples of sentences and
texts. May not know graphs, training or devices. Credits are in `data/README.md` and in the `CATALOGUE`.
"""

from typing import TYPE_CHECKING, Any

from flowgraph.datasets.cache import MissingDataError, data_folder
from flowgraph.datasets.catalogue import CATALOGUE
from flowgraph.datasets.dataset import Dataset, DatasetError, Parts
from flowgraph.datasets.digits import Digits, load_digits

_LATER = {  # name -> module: imported on first use, so that whoever wants the digits waits for nothing else
    "Address": "sotu",
    "Analogy": "similarity",
    "EntityScores": "conll2003",
    "Images": "images",
    "Mail": "spam",
    "NewsSentence": "conll2003",
    "Play": "shakespeare",
    "Question": "trecqa",
    "Ratings": "movielens",
    "Reviews": "reviews",
    "SentencePairs": "sick",
    "TaggedSentence": "brown",
    "Verse": "verses",
    "Vocabulary": "text",
    "WordPairs": "similarity",
    "WordVectors": "vectors",
    "buckets": "text",
    "cooccurrences": "pairs",
    "entity_scores": "conll2003",
    "keep_probabilities": "pairs",
    "load_analogies": "similarity",
    "load_brown": "brown",
    "load_conll2003": "conll2003",
    "load_fashion_mnist": "images",
    "load_mark": "verses",
    "load_mnist": "images",
    "load_movielens": "movielens",
    "load_reviews": "reviews",
    "load_shakespeare": "shakespeare",
    "load_sick": "sick",
    "load_simlex999": "similarity",
    "load_sotu": "sotu",
    "load_spam": "spam",
    "load_tempest": "shakespeare",
    "load_trecqa": "trecqa",
    "load_verses": "verses",
    "load_wordsim353": "similarity",
    "pad": "text",
    "rank_scores": "trecqa",
    "sentences": "text",
    "shuffled_buckets": "text",
    "skipgram_pairs": "pairs",
    "spearman": "vectors",
    "words": "text",
}

if TYPE_CHECKING:
    from flowgraph.datasets.brown import TaggedSentence, load_brown
    from flowgraph.datasets.conll2003 import EntityScores, NewsSentence, entity_scores, load_conll2003
    from flowgraph.datasets.images import Images, load_fashion_mnist, load_mnist
    from flowgraph.datasets.movielens import Ratings, load_movielens
    from flowgraph.datasets.pairs import cooccurrences, keep_probabilities, skipgram_pairs
    from flowgraph.datasets.reviews import Reviews, load_reviews
    from flowgraph.datasets.shakespeare import Play, load_shakespeare, load_tempest
    from flowgraph.datasets.sick import SentencePairs, load_sick
    from flowgraph.datasets.similarity import Analogy, WordPairs, load_analogies, load_simlex999, load_wordsim353
    from flowgraph.datasets.sotu import Address, load_sotu
    from flowgraph.datasets.spam import Mail, load_spam
    from flowgraph.datasets.text import Vocabulary, buckets, pad, sentences, shuffled_buckets, words
    from flowgraph.datasets.trecqa import Question, load_trecqa, rank_scores
    from flowgraph.datasets.vectors import WordVectors, spearman
    from flowgraph.datasets.verses import Verse, load_mark, load_verses


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'flowgraph.datasets' has no attribute {name!r}")
    from importlib import import_module

    globals()[name] = value = getattr(import_module(f"flowgraph.datasets.{_LATER[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "CATALOGUE",
    "Address",
    "Analogy",
    "Dataset",
    "DatasetError",
    "Digits",
    "EntityScores",
    "Images",
    "Mail",
    "MissingDataError",
    "NewsSentence",
    "Parts",
    "Play",
    "Question",
    "Ratings",
    "Reviews",
    "SentencePairs",
    "TaggedSentence",
    "Verse",
    "Vocabulary",
    "WordPairs",
    "WordVectors",
    "buckets",
    "cooccurrences",
    "data_folder",
    "entity_scores",
    "keep_probabilities",
    "load_analogies",
    "load_brown",
    "load_conll2003",
    "load_digits",
    "load_fashion_mnist",
    "load_mark",
    "load_mnist",
    "load_movielens",
    "load_reviews",
    "load_shakespeare",
    "load_sick",
    "load_simlex999",
    "load_sotu",
    "load_spam",
    "load_tempest",
    "load_trecqa",
    "load_verses",
    "load_wordsim353",
    "pad",
    "rank_scores",
    "sentences",
    "shuffled_buckets",
    "skipgram_pairs",
    "spearman",
    "words",
]
