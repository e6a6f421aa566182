"""Which words stand near each other: pairs to train word vectors on, and counts of them.

Comes in: sentences as numbers of tokens. Goes out: pairs of numbers, an epoch's at a time, or a table of counts. May
not know models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from flowgraph.datasets.dataset import DatasetError

Ids = npt.NDArray[np.int32]


def keep_probabilities(counts: npt.ArrayLike, threshold: float = 1e-3) -> npt.NDArray[np.float64]:
    """How likely each token stays in the text of an epoch, (n,), by how often it comes, (n,): min(1, √(t/f) + t/f) of
    its share f of all tokens, t the threshold.

    Frequent words say little of their neighbours. Mikolov and others 2013, "Distributed Representations of Words and
    Phrases", in the form of their program, word2vec.

    >>> keep_probabilities([900, 99, 1], threshold=0.01).round(3).tolist()
    [0.117, 0.419, 1.0]
    """
    found = np.asarray(counts, dtype=np.float64)
    if found.ndim != 1 or not np.isfinite(found).all() or (found < 0).any() or not found.any():
        raise DatasetError(f"counts of tokens are numbers (n,) from 0, and not all 0, not {found.shape}")
    if not threshold > 0:
        raise DatasetError(f"the threshold of frequent tokens is above 0, not {threshold}", hint="1e-3 to 1e-5")
    ratio = threshold / np.maximum(found / found.sum(), np.finfo(np.float64).tiny)
    return np.minimum(np.sqrt(ratio) + ratio, 1.0)


def skipgram_pairs(
    sentences: Sequence[npt.ArrayLike],
    window: int = 5,
    *,
    seed: int | Sequence[int],
    keep: npt.ArrayLike | None = None,
) -> tuple[Ids, Ids]:
    """(words int32 (m,), contexts int32 (m,)): each word with those near it in its sentence, for one epoch.

    A word reaches from 1 to `window` words to both sides, drawn anew for each, so that nearer ones come more often.
    First each word is left out unless it is drawn with the probability keep[number], see `keep_probabilities`; others
    close up. `seed` may be several numbers, as in (seed, epoch). Pairs are in the order of the text.

    >>> words, contexts = skipgram_pairs([[3, 1, 4]], window=1, seed=0)
    >>> sorted(zip(words.tolist(), contexts.tolist()))
    [(1, 3), (1, 4), (3, 1), (4, 1)]
    """
    ids, sentence = _flat(sentences, window)
    rng = np.random.default_rng(seed)
    if keep is not None:
        chance = np.asarray(keep, dtype=np.float64)
        if chance.ndim != 1 or (ids.size and ids.max() >= len(chance)):
            raise DatasetError(f"probabilities to keep tokens of shape {chance.shape}, for numbers up to {ids.max()}")
        stays = rng.random(len(ids)) < chance[ids]
        ids, sentence = ids[stays], sentence[stays]
    reach = rng.integers(1, window + 1, len(ids))
    is_near = np.zeros((len(ids), 2 * window + 1), np.bool_)  # column window + d: the word d places to the right
    for distance, left in _near(sentence, window):
        right = left + distance
        is_near[left, window + distance] = reach[left] >= distance
        is_near[right, window - distance] = reach[right] >= distance
    words, columns = np.nonzero(is_near)
    return ids[words], ids[words + columns - window]


def cooccurrences(sentences: Sequence[npt.ArrayLike], window: int = 10) -> tuple[Ids, Ids, npt.NDArray[np.float32]]:
    """(rows int32 (m,), columns int32 (m,), counts float32 (m,)): how often tokens come near each other in a sentence.

    Two that are d apart count 1/d, up to d = `window`, in both orders: the table is symmetric, and only what is not 0
    is listed, by rows, then columns. Pennington, Socher and Manning 2014, "GloVe".

    >>> for row in zip(*(a.tolist() for a in cooccurrences([[0, 1, 0]], window=2))):
    ...     print(row)
    (0, 0, 1.0)
    (0, 1, 2.0)
    (1, 0, 2.0)
    """
    ids, sentence = _flat(sentences, window)
    size = int(ids.max(initial=0)) + 1
    found, shares = [], []
    for distance, left in _near(sentence, window):
        one, other = ids[left].astype(np.int64), ids[left + distance].astype(np.int64)
        both, times = np.unique(np.concatenate([one * size + other, other * size + one]), return_counts=True)
        found.append(both)
        shares.append(times / distance)
    keys, place = np.unique(np.concatenate(found), return_inverse=True)
    counts = np.bincount(place, np.concatenate(shares), minlength=len(keys))
    rows, columns = np.divmod(keys, size)
    return rows.astype(np.int32), columns.astype(np.int32), counts.astype(np.float32)


def _flat(sentences: Sequence[npt.ArrayLike], window: int) -> tuple[Ids, npt.NDArray[np.int64]]:
    """All tokens in a row, and the number of the sentence that each is in."""
    if window < 1:
        raise DatasetError(f"a window of {window} reaches no word", hint="1 or more, to each side")
    arrays = [np.asarray(sentence) for sentence in sentences]
    for number, array in enumerate(arrays):
        if array.ndim != 1 or (array.size and (array.dtype.kind not in "iu" or array.min() < 0)):
            raise DatasetError(
                f"sentence {number} is no row of numbers from 0: {array.dtype} {array.shape}",
                hint="vocabulary.ids(tokens) makes one",
            )
    if not sum(map(len, arrays)):
        raise DatasetError("there are no tokens in these sentences")
    ids = np.concatenate(arrays).astype(np.int32)
    return ids, np.repeat(np.arange(len(arrays)), [len(array) for array in arrays])


def _near(sentence: npt.NDArray[np.int64], window: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """For each distance the places whose token has one so far to its right, in the same sentence."""
    for distance in range(1, window + 1):
        yield distance, np.flatnonzero(sentence[:-distance] == sentence[distance:])
