"""Make a synthetic set with the geometry of text embeddings: `python synthetic.py synth384-200k`.

The law. A text speaks of a few things at once, some often met together, with something of its own
added; embeddings of texts share an offset and use few of their dimensions much. So a row is the
unit vector along

    offset + sum over its topics of weight * topic + own part

Every part is normal with a variance that falls as a power of the dimension's rank. Topics belong to
fields: one is half its field and 0.87 itself. How often a topic is met falls as a power of its
rank. A row has one to eight topics with gamma weights of unit length in all, and six in ten of the
further ones come from the first one's field. The own part's length varies from row to row, so that
density does. At last all is turned by one random rotation: no axis of a real model is special.

The figures were fitted at 384 dimensions to real passages under MiniLM; README.md has the
statistics of both. Queries are fresh draws. Separated clusters would flatter every index that
partitions, and must not be used to rank libraries.
"""

import argparse
import re

import datasets
import numpy as np
import numpy.typing as npt

FIELDS = 32
TOPICS = 1024
MOST_TOPICS = 8
POPULARITY = 0.7
SAME_FIELD = 0.6
OFFSET = 0.23  # squared length of the common offset; a topic's is about 1
DECAY = 0.66  # exponent of the variances
OWN = 1.12  # length of the own part, median
OWN_SPREAD = 0.5  # of the logarithm of that length
BLOCK = 50_000


class Law:
    """One draw of offset, topics and rotation; `rows` then draws from it."""

    def __init__(
        self, dim: int, seed: int, offset: float = OFFSET, decay: float = DECAY, own: float = OWN
    ) -> None:
        self.chance = np.random.default_rng(seed)
        self.own = own
        variance = np.arange(1, dim + 1) ** -decay
        self.spread = np.sqrt(variance / variance.sum()).astype(np.float32)
        fields = self.normal(FIELDS)
        self.per_field = TOPICS // FIELDS
        self.topics = 0.5 * np.repeat(fields, self.per_field, axis=0) + 0.87 * self.normal(TOPICS)
        popularity = np.arange(1, TOPICS + 1) ** -POPULARITY
        self.popularity = self.chance.permutation(popularity / popularity.sum())
        direction = self.normal(1)
        self.offset = direction * np.float32(np.sqrt(offset) / np.linalg.norm(direction))
        rotation = np.linalg.qr(self.chance.standard_normal((dim, dim)))[0]
        self.rotation = rotation.astype(np.float32)

    def normal(self, count: int) -> datasets.Rows:
        """Draw parts, before the rotation."""
        shape = (count, len(self.spread))
        return self.chance.standard_normal(shape, dtype=np.float32) * self.spread

    def mixture(self, count: int) -> tuple[npt.NDArray[np.int64], datasets.Rows]:
        """Topics and weights of `count` rows; unused places weigh nothing."""
        shape = (count, MOST_TOPICS)
        first = self.chance.choice(TOPICS, (count, 1), p=self.popularity)
        sibling = first // self.per_field * self.per_field + self.chance.integers(
            self.per_field, size=shape
        )
        elsewhere = self.chance.choice(TOPICS, shape, p=self.popularity)
        topics = np.where(self.chance.random(shape) < SAME_FIELD, sibling, elsewhere)
        topics[:, :1] = first
        used = 1 + np.minimum(self.chance.poisson(3, (count, 1)), MOST_TOPICS - 1)
        weights = self.chance.standard_gamma(1, shape) * (np.arange(MOST_TOPICS) < used)
        return topics, (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)

    def rows(self, count: int) -> datasets.Rows:
        """Draw rows of unit length."""
        out = np.empty((count, len(self.spread)), np.float32)
        for start in range(0, count, BLOCK):
            size = min(BLOCK, count - start)
            topics, weights = self.mixture(size)
            length = self.own * np.exp(
                OWN_SPREAD * self.chance.standard_normal((size, 1), dtype=np.float32)
            )
            block = self.offset + length * self.normal(size)
            for place in range(MOST_TOPICS):
                block += weights[:, place : place + 1] * self.topics[topics[:, place]]
            block = block @ self.rotation
            out[start : start + size] = block / np.linalg.norm(block, axis=1, keepdims=True)
        return out


def main() -> None:
    """Make the set of the name that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", help="synth<dim>-<thousands of rows>k, such as synth384-200k")
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=42)
    asked = parser.parse_args()
    form = re.fullmatch(r"synth(\d+)-(\d+)k", asked.name)
    if not form:
        parser.error(f"name: expected synth<dim>-<thousands>k, got {asked.name!r}")
    law = Law(int(form[1]), asked.seed)
    queries = law.rows(asked.queries)
    print(datasets.write(asked.name, law.rows(1_000 * int(form[2])), queries))


if __name__ == "__main__":
    main()
