"""Which of the candidate sentences answer a question? Similar representations, not classes; and attention.

Of the lecture: question answering, "train the network to make representations similar/dissimilar", and attention of the
question to the states of the answer. Data: TREC-QA, ranked for the 68 test questions that have right and wrong
candidates. A biLSTM reads both; the cosine of what they are pooled to is to be larger for a right candidate than for a
wrong one by a margin. Networks are trained with and without attention, with word vectors that are trained here on the
Brown corpus (skip-gram), with marks of the words that the question has, too, and with the overlap of words, weighted by
how rare they are (idf), added to the cosine. The quick mode makes questions of a small grammar, as TREC-QA does not
ship, and trains one network without word vectors.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import flowgraph as fg
from examples.common import Results, figure, run, save
from examples.entailment import stem
from flowgraph.datasets.text import Vocabulary, pad
from flowgraph.datasets.trecqa import Question, rank_scores

Arrays = dict[str, np.ndarray]
NETWORKS = {  # its parts
    "biLSTM": "",
    "biLSTM, attention": "attention",
    "biLSTM, word vectors": "vectors",
    "biLSTM, attention, word vectors": "attention vectors",
    "the same with marks": "attention vectors marks",
    "with marks and overlap, no attention": "vectors marks overlap",
    "with marks and overlap": "attention vectors marks overlap",
}
FULL = "with marks and overlap"
WRONG, BATCH, MARGIN = 8, 32, 0.2  # wrong candidates drawn for each right one


class Text:
    """Sentences as what the networks are fed."""

    def __init__(self, train: Sequence[Question], others: Sequence[Sequence[str]]) -> None:
        answers = [answer.lower().split() for question in train for answer in question.answers]
        self.sentences = [*others, *answers, *(question.text.lower().split() for question in train)]
        every = (word for sentence in self.sentences for word in sentence)
        self.vocabulary = Vocabulary.of(every, min_count=3, unknown="<unk>", special=["<pad>"])
        self.documents = len(answers)
        self.holding = Counter(s for answer in answers for s in set(map(stem, answer)))

    def idf(self, stemmed: str) -> float:
        return float(np.log(self.documents / (1 + self.holding[stemmed])))

    def answer(self, question: str, answer: str) -> tuple[np.ndarray, np.ndarray, float]:
        """Numbers of words (time,); marks (time, 3): the idf of words that the question has, whether it is a name,
        whether a number; and the overlap, the sum of the idf of the stems that both have, less for long answers."""
        asked, words = set(map(stem, question.lower().split())), answer.split()
        found = [self.idf(s) / 5 if (s := stem(w.lower())) in asked else 0.0 for w in words]
        marks = np.array([[m, w[0].isupper(), "<num>" in w] for m, w in zip(found, words, strict=True)], np.float32)
        shared = sum(self.idf(s) for s in asked & {stem(w.lower()) for w in words})
        return self.vocabulary.ids(answer.lower().split()), marks, shared / (10 + 0.2 * len(words))

    def arrays(self, pairs: Sequence[tuple[str, str]], name: str) -> Arrays:
        """Of (question, answer), the answers' part."""
        ids, marks, overlap = zip(*(self.answer(q, a) for q, a in pairs), strict=True)
        data = dict(zip((name, f"{name}_length"), pad(ids), strict=True))
        time = data[name].shape[1]
        data[f"{name}_marks"] = np.stack([np.pad(m, ((0, time - len(m)), (0, 0))) for m in marks])
        return {**data, f"{name}_overlap": np.array(overlap, np.float32)}

    def questions(self, texts: Sequence[str]) -> Arrays:
        ids, lengths = pad([self.vocabulary.ids(text.lower().split()) for text in texts])
        return {"question": ids, "question_length": lengths}

    def candidates(self, questions: Sequence[Question]) -> Arrays:
        """All candidates of all questions, one after the other, as the right ones."""
        pairs = [(question.text, answer) for question in questions for answer in question.answers]
        return {**self.questions([q for q, _ in pairs]), **self.arrays(pairs, "right")}

    def triples(self, questions: Sequence[Question]) -> Arrays:
        """Each right candidate beside some wrong ones."""
        draw, found = np.random.default_rng(0), []
        for question in questions:
            wrong = np.flatnonzero(question.labels == 0)
            for right in np.flatnonzero(question.labels):
                for other in draw.choice(wrong, min(WRONG, len(wrong)), replace=False):
                    found.append((question.text, question.answers[right], question.answers[other]))
        sides = {"right": [(q, a) for q, a, _ in found], "wrong": [(q, b) for q, _, b in found]}
        data = self.questions([q for q, _, _ in found])
        for name, pairs in sides.items():
            data |= self.arrays(pairs, name)
        return data


def brown() -> list[list[str]]:
    """The sentences of the Brown corpus as TREC-QA writes them: numbers are `<num>`."""
    return [
        [re.sub(r".*\d.*", "<num>", word.lower()) for word in sentence.words]
        for part in fg.datasets.load_brown()
        for sentence in part
    ]


def skip_gram(sentences: Sequence[Sequence[str]], vocabulary: Vocabulary, size: int, epochs: int = 3) -> np.ndarray:
    """Vectors (words, size) of skip-gram with five negative samples (Mikolov and others 2013): windows of 3, frequent
    words thinned."""
    draw, threshold = np.random.default_rng(0), 1e-3
    ids = [vocabulary.ids(sentence) for sentence in sentences]
    counts = np.bincount(np.concatenate(ids), minlength=len(vocabulary)).astype(float)
    counts[: vocabulary.numbers["<unk>"] + 1] = 0
    share = np.maximum(counts / counts.sum(), 1e-9)
    kept = [row[draw.random(len(row)) < np.sqrt(threshold / share[row])] for row in ids]
    kept = [row[counts[row] > 0] for row in kept]
    pairs = [(row[k:], row[:-k]) for row in kept for k in (1, 2, 3) if len(row) > k]
    words = np.concatenate([part for a, b in pairs for part in (a, b)])
    contexts = np.concatenate([part for a, b in pairs for part in (b, a)])
    noise = draw.choice(len(counts), (len(words), 5), p=counts**0.75 / (counts**0.75).sum())
    word, context = fg.input("word", ("pairs",), "int32"), fg.input("context", ("pairs", 6), "int32")
    table, other = (fg.nn.Embedding(name, len(vocabulary), size) for name in ("vectors", "contexts"))
    scores = fg.sum(other(context) * fg.expand_dims(table(word), 1), axis=2)
    cost = fg.sum(fg.softplus(fg.where(fg.equal(fg.arange(6), 0), -scores, scores)), axis=1)
    trainer = fg.Trainer(cost, fg.optim.AdaGrad(0.5), device="cpu", threads=1)
    told = {"word": words, "context": np.column_stack([contexts, noise]).astype(np.int32)}
    trainer.fit(told, epochs, 512, progress=False)
    print(f"skip-gram: {len(words)} pairs, cost {trainer.history[-1]['loss']:.3f}", flush=True)
    return np.array(table.w.value)


def network(
    parts: str, vectors: np.ndarray, hidden: int, dropout: float
) -> Callable[[str], tuple[fg.Tensor, fg.Tensor]]:
    """A function from the name of an answer's inputs to its score and the weights of its words, both (batch, ...)."""
    count, size = vectors.shape
    table = fg.nn.Embedding("words", count, size, init=vectors if "vectors" in parts else None)
    lstm, look = fg.nn.BiLSTM("lstm", size + 3, hidden), fg.nn.Attention("look", 2 * hidden, 2 * hidden, hidden)
    weight = fg.parameter("weight", (), init=np.array(1.0)) if "overlap" in parts else None
    ids, length = fg.input("question", ("batch", "asked"), "int32"), fg.input("question_length", ("batch",), "int32")
    none = fg.broadcast_to(fg.constant(0.0), (*ids.shape, 3))
    asked, _ = lstm(fg.concatenate([fg.dropout(table(ids), dropout), none], axis=2), length)
    question = fg.nn.max_over_time(asked, length)

    def score(name: str) -> tuple[fg.Tensor, fg.Tensor]:
        words = fg.input(name, ("batch", name), "int32")
        marks = fg.broadcast_to(fg.constant(0.0), (*words.shape, 3))
        if "marks" in parts:
            marks = fg.input(f"{name}_marks", ("batch", name, 3))
        length = fg.input(f"{name}_length", ("batch",), "int32")
        states, _ = lstm(fg.concatenate([fg.dropout(table(words), dropout), marks], axis=2), length)
        context, weights = look(question, states, lengths=length)
        answer = context if "attention" in parts else fg.nn.max_over_time(states, length)
        similar = fg.cosine_similarity(question, answer)
        return (similar if weight is None else similar + weight * fg.input(f"{name}_overlap", ("batch",))), weights

    return score


def ranked(trainer: fg.Trainer, score: fg.Tensor, questions: Sequence[Question], data: Arrays) -> tuple[float, float]:
    """Mean average precision and mean reciprocal rank by the network's scores."""
    ends = np.cumsum([len(question.answers) for question in questions])
    return rank_scores(questions, np.split(trainer.predict(score, data, 256), ends[:-1]))


def trained(
    parts: str,
    vectors: np.ndarray,
    sizes: tuple[int, float],
    rates: tuple[float, float],
    seed: int,
    epochs: int,
    questions: Sequence[Sequence[Question]],
    fed: Sequence[Arrays],
) -> tuple[tuple[float, float], tuple[float, float], list[float], np.ndarray]:
    """MAP and MRR for validation and for testing, at the epoch with the largest MAP for validation; the MAP for
    validation by epoch, and the weights of attention in the end. `rates` are of learning and of decay."""
    score = network(parts, vectors, *sizes)
    (right, weights), (wrong, _) = score("right"), score("wrong")
    frozen = ["words/*"] if "vectors" in parts else []  # words that only the test part has keep their place
    cost = fg.mean(fg.relu(MARGIN - right + wrong))
    optimizer = fg.optim.AdamW(rates[0], weight_decay=rates[1], clip_norm=5.0)
    trainer = fg.Trainer(cost, optimizer, freeze=frozen, seed=seed, device="cpu", threads=1)
    absent = {"marks", "overlap"} - set(parts.split())
    given = [{n: a for n, a in data.items() if n.rpartition("_")[2] not in absent} for data in fed]
    best, at_best, curve = (0.0, 0.0), (0.0, 0.0), []
    for _ in range(epochs):
        trainer.fit(given[0], 1, BATCH, progress=False)
        found = ranked(trainer, right, questions[1], given[1])
        curve.append(found[0])
        if found > best:
            best, at_best = found, ranked(trainer, right, questions[2], given[2])
    return best, at_best, curve, trainer.predict(weights, given[2], 256)


def grammar(count: int, seed: int) -> tuple[Question, ...]:
    """Questions whose candidates all name what is asked for, so that only the kind of answer tells them apart."""
    draw = np.random.default_rng(seed)
    made = []
    for number in range(count):
        kinds, towns = ("tower", "bridge", "church", "castle"), ("york", "rome", "bonn", "oslo")
        thing, who = f"{draw.choice(kinds)} of {draw.choice(towns)}", draw.choice(("Anna", "Paul", "Eva", "Otto"))
        said = {
            "when": [f"the {thing} was finished in <num>", f"in <num> they built the {thing}"],
            "where": [f"the {thing} stands near the river", f"near the sea lies the {thing}"],
            "who": [f"{who} built the {thing}", f"the {thing} is the work of {who}"],
        }
        kind = ("when", "where", "who")[number % 3]
        answers = [(answer, int(k == kind)) for k, texts in said.items() for answer in texts]
        order = draw.permutation(len(answers))
        texts, labels = zip(*(answers[k] for k in order), strict=True)
        made.append(Question(f"{kind} was the {thing} built ?", texts, np.array(labels, np.int32)))
    return tuple(made)


def main(quick: bool, out: Path) -> Results:
    if quick:
        print("quick mode: questions made from a small grammar stand for TREC-QA")
        questions: Sequence[Sequence[Question]] = [grammar(count, seed) for seed, count in enumerate((36, 12, 24))]
        sizes, rates, size, epochs, seeds, names = (12, 0.0), (0.01, 0.0), 12, 8, 1, ["biLSTM, attention"]
    else:
        questions = fg.datasets.load_trecqa()
        sizes, rates, size, epochs, seeds, names = (32, 0.5), (0.001, 0.1), 50, 8, 3, list(NETWORKS)
    text = Text(questions[0], [] if quick else brown())
    vectors = np.zeros((len(text.vocabulary), size))
    if not quick:
        vectors = skip_gram(text.sentences, text.vocabulary, size)
        vectors /= np.linalg.norm(vectors, axis=1).mean()
    fed = [text.triples(questions[0]), *map(text.candidates, questions[1:])]
    alone = [[text.answer(question.text, answer)[2] for answer in question.answers] for question in questions[2]]
    results: Results = {
        "triples": len(fed[0]["question"]), "words": len(text.vocabulary),
        "overlap alone": dict(zip(("map", "mrr"), rank_scores(questions[2], alone), strict=True)), "networks": {},
    }  # fmt: skip
    picture, axes = figure(width=5.5)
    for name in names:
        how = NETWORKS[name], vectors, sizes, rates
        runs = [trained(*how, seed, epochs, questions, fed) for seed in range(seeds)]
        tested = np.array([run[1] for run in runs])
        results["networks"][name] = {
            "map": float(tested[:, 0].mean()), "mrr": float(tested[:, 1].mean()), "seeds": tested[:, 0].tolist(),
            "validation": float(np.mean([run[0][0] for run in runs])),
        }  # fmt: skip
        print(name, results["networks"][name], flush=True)
        axes.plot(np.arange(1, epochs + 1), np.mean([run[2] for run in runs], axis=0), label=name)
    axes.set(xlabel="epoch", ylabel="MAP for validation")
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    save(picture, out / "map.svg")
    draw_attention(questions[2], runs[0][3], out / "attention.svg")
    return results


def draw_attention(questions: Sequence[Question], weights: np.ndarray, path: Path) -> None:
    """What the words of right candidates weigh, one candidate of each of the first questions."""
    starts = np.cumsum([0, *(len(question.answers) for question in questions)])
    chosen = [(q, int(start + q.labels.argmax())) for q, start in zip(questions[:6], starts, strict=False)]
    picture, axes = figure(len(chosen), 1, width=9.0, height=0.9)
    for place, (question, row) in zip(axes, chosen, strict=True):
        words = question.answers[int(question.labels.argmax())].split()[:24]
        place.imshow(weights[row : row + 1, : len(words)], cmap="Blues", vmin=0, aspect="auto")
        place.set_xticks(range(len(words)), words, rotation=30, ha="right", fontsize=7)
        place.set_yticks([])
        place.set_title(question.text, fontsize=8, loc="left")
    save(picture, path)


if __name__ == "__main__":
    run(main)
