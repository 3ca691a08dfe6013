"""A table of items from the live graph alone: items with the same neighbours lie near each other.

    A      co-occurrence after + before of the graph's rows, made symmetric
    P      = max(0, log( A_ij · Σ_j n_j^0.75 / (n_i · n_j^0.75) ))    n = row sums of A (Levy and Goldberg, 2014)
    T      = U √S of the DIM largest singular values of P, each row scaled to length 1

The ranker reads cosines of these rows. They hold still within a version, so an event is never learned by the row that
it is predicted from.
"""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch

from model.encoders.vocabulary import Vocabulary
from state.events import Floats, Ids
from state.graph import Rows

DIM = 64
OVERSAMPLING, POWER_STEPS = 8, 2
"""Of the randomised decomposition (Halko, Martinsson and Tropp, 2011)."""
CONTEXT_POWER = 0.75
ROWS_PER_READ = 4096


def graph_table(vocabulary: Vocabulary, rows_of: Callable[[Ids], Rows]) -> torch.Tensor:
    """T [n + 1, DIM] as float16; 0 for padding, for a free index and for an item without a neighbour."""
    table = np.zeros((len(vocabulary) + 1, DIM), np.float16)
    weights = _co_occurrence(vocabulary, rows_of)
    items = np.flatnonzero(weights.getnnz(1))
    if len(items) > 1:
        rows = _left_singular(_positive_information(weights[items][:, items].tocsr()))
        table[items, : rows.shape[1]] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return torch.from_numpy(table)


def _co_occurrence(vocabulary: Vocabulary, rows_of: Callable[[Ids], Rows]) -> sp.csr_matrix:
    known = np.flatnonzero(vocabulary.hashes) + 1
    left, right, weight = [], [], []
    for start in range(0, len(known), ROWS_PER_READ):
        index = known[start : start + ROWS_PER_READ]
        rows = rows_of(vocabulary.hashes[index - 1])
        neighbours = vocabulary.lookup(rows.nodes)
        counts = np.where(neighbours > 0, rows.after + rows.before, 0.0)
        at, slot = np.nonzero(counts)
        left.append(index[at])
        right.append(neighbours[at, slot])
        weight.append(counts[at, slot])
    size = len(vocabulary) + 1
    if not left:
        return sp.csr_matrix((size, size), dtype=np.float32)
    pairs = (np.concatenate(left), np.concatenate(right))
    found = sp.coo_matrix((np.concatenate(weight).astype(np.float32), pairs), (size, size)).tocsr()
    return found + found.T


def _positive_information(weights: sp.csr_matrix) -> sp.csr_matrix:
    counts = np.asarray(weights.sum(1)).ravel()
    context = counts**CONTEXT_POWER
    entries = weights.tocoo()
    lift = entries.data * context.sum() / (counts[entries.row] * context[entries.col])
    entries.data = np.maximum(np.log(np.maximum(lift, 1.0)), 0.0).astype(np.float32)
    return entries.tocsr()


def _left_singular(matrix: sp.csr_matrix) -> Floats:
    """U √S, [n, up to DIM]. The dense parts are torch's: numpy would start a thread for each core."""
    width, other = min(DIM + OVERSAMPLING, matrix.shape[0]), matrix.T.tocsr()
    basis = matrix @ np.random.default_rng(0).standard_normal((matrix.shape[1], width)).astype(np.float32)
    for _ in range(POWER_STEPS):
        basis = matrix @ _orthonormal(other @ _orthonormal(basis))
    basis = _orthonormal(basis)
    left, values, _ = torch.linalg.svd(torch.from_numpy(np.ascontiguousarray((other @ basis).T)), full_matrices=False)
    found: Floats = (torch.from_numpy(basis) @ left[:, :DIM] * values[:DIM].sqrt()).numpy()
    return found


def _orthonormal(columns: Floats) -> Floats:
    found: Floats = torch.linalg.qr(torch.from_numpy(columns))[0].numpy()
    return found
