"""Communities with a short map equation: what Infomap looks for, without Infomap."""

from __future__ import annotations

from collections import deque
from math import log2

import numpy as np
import numpy.typing as npt
from scipy import sparse

from calr_cli.types import OUTLIER, IntArray

_LEAST_GAIN = 1e-9
"""Bits: a smaller gain is rounding."""


def map_equation_modules(links: npt.NDArray[np.float64], count: int, seed: int = 123) -> IntArray:
    """Communities of an undirected graph, chosen so that the two-level map equation is small.

    Single images move to the neighbouring community that shortens the description of a random walk most
    (`description_length`). Then the communities move in the same way, as the images of a smaller graph, and
    so on up. All of this is repeated from the partition found, which lets single images move again, until
    nothing gets shorter.

    Args:
        links: (L, 3): image, image, weight above 0; each pair of images once.
        count: Number of images.
        seed: Of the order in which images are looked at.

    Returns:
        (count,) communities 0..K-1; ``OUTLIER`` for images without links.

    Sources: Rosvall and Bergstrom, "Maps of random walks on complex networks reveal community structure",
    PNAS 2008; moving and merging as in Blondel et al., "Fast unfolding of communities in large networks",
    Journal of Statistical Mechanics 2008.
    """
    if not len(links):
        return np.full(count, OUTLIER, np.int64)
    steps = steps_of_walk(links, count)
    rng = np.random.default_rng(seed)
    labels = np.arange(count)
    length = np.inf
    while True:
        found = _move(steps, labels, rng)
        while True:
            between = _merged(steps, found)
            above = _move(between, np.arange(between.shape[0]), rng)
            if above.max() + 1 == between.shape[0]:
                break
            found = above[found]
        shorter = description_length(steps, found)
        if shorter > length - _LEAST_GAIN:
            labels[steps.sum(axis=1) == 0] = OUTLIER
            return np.unique(labels, return_inverse=True)[1] - int(OUTLIER in labels)
        labels, length = found, shorter


def steps_of_walk(links: npt.NDArray[np.float64], count: int) -> sparse.csr_array:
    """(count, count) CSR: the share of a random walk's steps that lead from one image to another.

    Args:
        links: As in `map_equation_modules`.
        count: Number of images.
    """
    ends, weights = links[:, :2].astype(np.int64).T, links[:, 2]
    both = np.hstack([ends, ends[::-1]])
    steps = sparse.csr_array((np.tile(weights, 2), tuple(both)), shape=(count, count))
    return steps / steps.sum()


def description_length(steps: sparse.csr_array, labels: IntArray) -> float:
    """Bits per step of a random walk, described with a code for each community: the map equation.

    One code names the communities when the walk enters them; each community has a code for its images and
    for leaving it. With the share p of steps that end at an image or in a community, and the share q that
    leave a community:
    L = plogp(sum q) - 2 sum plogp(q) + sum plogp(q + p) - sum over images of plogp(p).

    Args:
        steps: (N, N), see `steps_of_walk`.
        labels: (N,) communities 0..K-1.
    """
    visits, leaving = _shares(_merged(steps, labels))
    of_images = _plogp(steps.sum(axis=1)).sum()
    of_communities = (_plogp(leaving + visits) - 2 * _plogp(leaving)).sum()
    return float(_plogp(leaving.sum()) + of_communities - of_images)


def _plogp(share: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = np.asarray(share, np.float64)
    return values * np.log2(np.where(values > 0, values, 1))


def _merged(steps: sparse.csr_array, labels: IntArray) -> sparse.csr_array:
    """(K, K) steps between communities 0..K-1."""
    members = sparse.csr_array((np.ones(len(labels)), (labels, np.arange(len(labels)))))
    return sparse.csr_array(members @ steps @ members.T)


def _shares(steps: sparse.csr_array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The share of the steps that ends at each node, and the share that leaves it for another node."""
    visits = steps.sum(axis=1)
    return visits, visits - steps.diagonal()


def _move(steps: sparse.csr_array, labels: IntArray, rng: np.random.Generator) -> IntArray:
    """Move nodes between communities, one at a time, until no move shortens the description.

    A node is looked at again after a neighbour has moved away from it.

    Returns:
        (N,) communities 0..K-1.
    """

    def plogp(share: float) -> float:
        return share * log2(share) if share > 0 else 0.0

    def cost(leaves: float, visited: float) -> float:
        return plogp(leaves + visited) - 2 * plogp(leaves)

    # Plain lists: reading single numbers of arrays takes several times as long.
    visit, leave = (shares.tolist() for shares in _shares(steps))
    visits, leaving = (shares.tolist() for shares in _shares(_merged(steps, labels)))
    costs = [cost(*pair) for pair in zip(leaving, visits, strict=True)]
    total, label = sum(leaving), labels.tolist()
    queue, waits = deque(rng.permutation(len(label)).tolist()), [True] * len(label)
    while queue:
        node = queue.popleft()
        waits[node] = False
        row = slice(steps.indptr[node], steps.indptr[node + 1])
        others = steps.indices[row].tolist()
        own = label[node]
        to = {own: 0.0}  # community -> share of the steps from the node to it
        for other, share in zip(others, steps.data[row].tolist(), strict=True):
            if other != node:
                to[label[other]] = to.get(label[other], 0.0) + share
        # Leaving its community ends the steps out of it, and turns those to its members into steps out of it.
        own_leaving, own_visits = leaving[own] - leave[node] + 2 * to.pop(own), visits[own] - visit[node]
        own_cost, without = cost(own_leaving, own_visits), total + own_leaving - leaving[own]
        bar = plogp(total) + costs[own] - own_cost - _LEAST_GAIN
        best = own
        for community, share in to.items():
            more = leave[node] - 2 * share
            change = (
                plogp(without + more)
                + cost(leaving[community] + more, visits[community] + visit[node])
                - costs[community]
            )
            if change < bar:
                bar, best, best_more = change, community, more
        if best == own:
            continue
        label[node], total = best, without + best_more
        leaving[own], visits[own], costs[own] = own_leaving, own_visits, own_cost
        leaving[best], visits[best] = leaving[best] + best_more, visits[best] + visit[node]
        costs[best] = cost(leaving[best], visits[best])
        for other in others:
            if label[other] != best and not waits[other]:
                waits[other] = True
                queue.append(other)
    return np.unique(label, return_inverse=True)[1]
