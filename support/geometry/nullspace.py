"""What the last layer cannot see: directions that leave every softmax output as it is, and regions
that reach infinity (zou2018).

A layer has class weights w_k, the rows of ``weight`` (m, l), and scores h . w_k + b_k for features
h in R^l. The softmax does not change when the same number is added to all scores, so what it sees
of h is the *centred* scores, and the directions that it does not see are the null space of the
centred weights: l minus their rank, one more than the null space of the weights has as a rule.

Computations are in float64 whatever the inputs' type. Chapter 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.optimize import linprog
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.stats import binom
from torch import Tensor

from support.common.arguments import matrix, number, whole_number
from support.models.heads import last_layer

# What a linear program finds below this share of the largest entry counts as zero; its own
# tolerance is 1e-7.
_GAIN = 1e-6
# Dimensions in which parallel normals are looked for before they are compared in all, and by how
# much an angle may grow in that projection; the chance that it grows more is about 1e-11.
_PROJECTED, _SLACK = 4, 1e3


@dataclass(frozen=True)
class Region:
    """Where a class wins: the set of features at which its score is strictly the largest, an open
    polyhedron.

    Attributes:
        kind: ``"empty"``, ``"bounded"`` or ``"unbounded"``.
        point: (l,) float64, features at which the class wins; None if empty.
        direction: (l,) float64 of length 1 along which the class wins forever, from every point of
            the region; None unless unbounded.
        growth: what its lead over every rival gains at least per unit of length along
            ``direction``: 0 if some rival keeps its distance.
    """

    kind: Literal["empty", "bounded", "unbounded"]
    point: Tensor | None = None
    direction: Tensor | None = None
    growth: float = 0.0


def adversarial_directions(weight: Tensor, *, shift_invariant: bool = True) -> Tensor:
    """An orthonormal basis of the directions d with softmax(W (h + t d) + b) = softmax(W h + b) for
    all h and t (zou2018, Definition 1).

    These are the d for which all entries of W d agree: the null space of the centred weights, of
    dimension l minus their rank. That is at least l - m + 1, where Theorem 1 has l - m. A function
    of the scores that is not shift-invariant, such as softRmax, sees more: without
    ``shift_invariant`` the basis is that of the null space of W itself, at least l - m.

    One QR decomposition gives the complement of the rows' span, and the SVD of its small triangle
    what is left of the null space inside: less work than one SVD of the weights. Singular values
    below max(m, l) float64 epsilons of the norm of W count as zero.

    Args:
        weight: (m, l), one row per class. A single class sees nothing: every direction of R^l is
            returned.
        shift_invariant: whether the output ignores a number added to all scores.

    Returns:
        (n, l) float64, n orthonormal rows; n is 0 where the layer sees everything.

    Raises:
        ValueError: no matrix of floating-point numbers, NaN or infinity.
    """
    given = matrix("weight", weight).detach().to(torch.float64)
    seen = given - given.mean(0) if shift_invariant else given
    kept = min(seen.shape)
    q, r = torch.linalg.qr(seen.T, mode="complete")
    u, sigma, _ = torch.linalg.svd(r[:kept], full_matrices=False)
    # Relative to the weights as given: centring equal rows leaves their rounding behind, and that
    # is no direction.
    rank = int((sigma > max(seen.shape) * torch.finfo(torch.float64).eps * given.norm()).sum())
    return torch.cat([q[:, :kept] @ u[:, rank:], q[:, kept:]], 1).T


def null_share(weight: Tensor, vectors: Tensor, *, shift_invariant: bool = True) -> Tensor:
    """Share of the squared length of each vector that lies in the null space: 0 if the layer sees
    all of it, 1 if it sees nothing.

    A uniformly random direction has (l - rank) / l on average.

    Args:
        weight: (m, l).
        vectors: (N, l): features about their mean, or the shift of features under an attack.
        shift_invariant: as in :func:`adversarial_directions`.

    Returns:
        (N,) float64, NaN for a vector of length zero.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity.
    """
    basis = adversarial_directions(weight, shift_invariant=shift_invariant)
    v = matrix("vectors", vectors, rows=0, columns=weight.shape[1]).to(torch.float64)
    return (v @ basis.T).square().sum(1) / v.square().sum(1)


def rounding_bound(
    weight: Tensor, bias: Tensor | None, features: Tensor, theta: float | Tensor
) -> Tensor:
    """How far rounding can move a softmax output along an adversarial direction: about theta times
    the unit roundoff times |W|.

    Exactly, no output changes (zou2018, Theorem 1). Computed in the features' precision u, the
    scores at h + theta d differ from those at h by at most the rounding of two inner products of l
    terms (a factor l u / (1 - l u) in any order of summation), and of the basis itself (l + m
    roundings of W); half of that reaches a probability, since |p_i (e_i - p . e)| <= max |e| / 2.

    Args:
        weight, bias: (m, l), and (m,) or None.
        features: (N, l); their dtype says in which precision everything is computed.
        theta: how far along a direction of length 1, a number or (T,).

    Returns:
        (N,) float64, or (N, T): no softmax probability of row n moves by more.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity.
    """
    w, b = (part.detach() for part in last_layer(weight, bias))
    m, width = w.shape
    matrix("features", features, rows=0, columns=width)
    unit = torch.finfo(features.dtype).eps / 2
    terms = (width + 8) * unit / (1 - (width + 8) * unit)
    theta = torch.as_tensor(theta, dtype=torch.float64, device=w.device).abs()
    length = features.to(torch.float64).norm(dim=1).reshape(-1, *[1] * theta.dim())
    at = w.norm(dim=1).max() * (2 * length + theta) + 2 * b.abs().max()
    return (terms * at + (width + m) * unit * w.norm() * theta) / 2 + 2 * (m + 8) * unit


def region(weight: Tensor, bias: Tensor | None, k: int) -> Region:
    """Whether the decision region of class k is empty, bounded or unbounded, by linear programming
    (zou2018, Theorem 2).

    A region that is not empty is bounded if and only if w_k lies in the interior of the convex hull
    of the weights: only then does some rival gain on class k along every direction. That takes
    l < m - 1, a null space of dimension zero, and a bias (without one every region is a cone). An
    unbounded region need not have an adversarial direction: outputs may change along the way.

    Leads that differ by less than 1e-6 of the largest difference of weights, or of biases, count as
    equal.

    Args:
        weight, bias: (m, l), and (m,) or None.
        k: the class, 0 .. m - 1.

    Returns:
        The kind of region, a point in it, and a direction along which class k wins forever: the one
        along which the least lead grows most, if it can grow; else one along which no lead shrinks.

    Raises:
        ValueError: shapes that do not fit, no such class, NaN or infinity.
    """
    w, b = (part.detach() for part in last_layer(weight, bias))
    whole_number("k", k, 0, len(w) - 1)
    rivals = torch.arange(len(w), device=w.device) != k
    lead, offset = (w[k] - w[rivals]).cpu().numpy(), (b[k] - b[rivals]).cpu().numpy()
    width = w.shape[1]

    def vector(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(w.device)

    steepness, level = (float(np.abs(part).max(initial=0.0)) or 1.0 for part in (lead, offset))
    slopes, starts = lead / steepness, offset / level
    # The largest t <= 1 with slopes . h + starts >= t for every rival.
    least = {"c": [*[0.0] * width, -1.0], "A_ub": np.hstack([-slopes, np.ones((len(slopes), 1))])}
    best = _program(**least, b_ub=starts, bounds=[(None, None)] * width + [(None, 1.0)])
    point = vector(best[:width] * (level / steepness))
    if (slopes @ best[:width] + starts).min(initial=1.0) <= _GAIN:
        return Region("empty")
    # The largest t with slopes . d >= t and |d_i| <= 1, then the largest sum of leads among
    # directions that lose none.
    box, level_start = [(-1.0, 1.0)] * width, np.zeros(len(slopes))
    ahead = _program(**least, b_ub=level_start, bounds=[*box, (None, 1.0)])[:width]
    if len(slopes) and (slopes @ ahead).min() > _GAIN:
        ahead /= np.linalg.norm(ahead)
        return Region("unbounded", point, vector(ahead), float((lead @ ahead).min()))
    kept = _program(c=-slopes.sum(0), A_ub=-slopes, b_ub=level_start, bounds=box)
    if (slopes @ kept).sum() > _GAIN:
        level_with = slopes[slopes @ kept < _GAIN]  # the program ends 1e-7 short of level
        kept = kept - np.linalg.lstsq(level_with, level_with @ kept, rcond=None)[0]
        return Region("unbounded", point, vector(kept / np.linalg.norm(kept)))
    if len(unseen := adversarial_directions(w)):
        return Region("unbounded", point, unseen[0])
    return Region("bounded", point)


def parallel_pairs(
    weight: Tensor, *, tolerance: float = 1e-9
) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Pairs of classes whose decision boundaries are parallel, in families (zou2018, Definition 2:
    "parallel" layers have one).

    The boundary of classes i and j is a hyperplane with normal w_i - w_j. Two such hyperplanes of
    different pairs of classes are parallel if the normals are, up to sign; a family lists all pairs
    of one normal. Three classes between two parallel boundaries (the paper's Figure 1, right) have
    collinear weights, so their family has three pairs. Two classes have a single boundary: no
    family. Two classes of equal weights have none, and count as parallel wherever both meet a
    third.

    Candidates are found in a random projection to four dimensions (fixed seed) and compared in all:
    m = 1000 takes some ten seconds.

    Args:
        weight: (m, l).
        tolerance: the largest sine of the angle between normals that are called parallel, below
            0.1. Angles below about 1e-15 times the largest weight over the difference are lost in
            rounding.

    Returns:
        Families, each two or more pairs (i, j) with i < j; none if the layer is not parallel.

    Raises:
        ValueError: no matrix of floating-point numbers, NaN or infinity, a tolerance that is not in
            (0, 0.1).
    """
    w = matrix("weight", weight).detach().to(torch.float64).cpu().numpy()
    number("tolerance", tolerance, above=0, below=0.1)
    first, second = np.triu_indices(len(w), 1)
    width = w.shape[1]
    plane, slack = np.eye(width), 1.0
    if width > _PROJECTED:
        plane = np.random.default_rng(0).standard_normal((width, _PROJECTED)) / np.sqrt(width)
        slack = _SLACK
    flat = w @ plane
    normals = flat[first] - flat[second]
    lengths = np.linalg.norm(normals, axis=1)
    proper = lengths > 0
    first, second, normals = first[proper], second[proper], normals[proper] / lengths[proper, None]
    if len(first) < 2:
        return ()
    if width - len(adversarial_directions(weight)) == 1:  # weights on one line
        return (tuple(zip(first.tolist(), second.tolist(), strict=True)),)
    # The projectors u u' do not feel the sign of u, and their distance is sqrt(2) times the sine of
    # the angle.
    rows, columns = np.triu_indices(normals.shape[1])
    squares = normals[:, rows] * normals[:, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0))
    near = cKDTree(squares).query_pairs(min(2 * slack * tolerance, 0.5), output_type="ndarray")
    pieces = np.array_split(near, len(near) * width // 10**7 + 1)
    a, b = np.concatenate(
        [piece[_sines(w, first[piece], second[piece]) <= tolerance] for piece in pieces]
    ).T
    links = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(first), len(first)))
    _, family = connected_components(links, directed=False)
    found: dict[int, list[tuple[int, int]]] = {}
    for pair in np.unique(np.concatenate([a, b])):
        found.setdefault(int(family[pair]), []).append((int(first[pair]), int(second[pair])))
    return tuple(map(tuple, found.values()))


def cone_ray(weight: Tensor) -> Tensor | None:
    """A ray of adversarial directions inside the non-negative orthant, where features live after a
    ReLU, or None.

    h + t d stays non-negative for all t >= 0 if and only if d >= 0, and a line in both directions
    never does. So the question is whether the null space of the centred weights meets the orthant
    in more than zero: a linear program. zou2018 treats all of R^l only.

    Args:
        weight: (m, l).

    Returns:
        (l,) float64 of length 1, non-negative, or None if every such ray changes the softmax.

    Raises:
        ValueError: no matrix of floating-point numbers, NaN or infinity; a linear program that does
            not end.
    """
    w = matrix("weight", weight).detach().to(torch.float64)
    seen = (w - w.mean(0)).cpu().numpy()
    scale = float(w.abs().max()) or 1.0
    nothing, ones = np.zeros(seen.shape[1]), np.ones((1, seen.shape[1]))
    system, right = np.vstack([seen / scale, ones]), np.append(np.zeros(len(seen)), 1.0)
    ray = _program(c=nothing, A_eq=system, b_eq=right, bounds=(0, None))
    if ray is None:
        return None
    used = ray > 0
    # The program stops 1e-7 short of equality; the support it found gives the ray to rounding.
    columns = system[:, used]
    corrected = ray[used] - np.linalg.lstsq(columns, columns @ ray[used] - right, rcond=None)[0]
    if corrected.min() < -_GAIN * corrected.max():
        return None
    ray[used] = corrected.clip(min=0)
    return torch.from_numpy(ray / np.linalg.norm(ray)).to(weight.device)


def cone_probability(width: int, classes: int) -> float:
    """Chance that a random layer has a ray as in :func:`cone_ray`: P = 1 - 2^(1-l) sum_{i <= m-2}
    C(l-1, i) (Wendel 1962).

    Features' centred weights are l vectors in m - 1 dimensions; they admit no ray exactly if they
    all lie in one open half-space. For independent vectors, symmetric about zero and in general
    position, that chance does not depend on the distribution. It is the distribution function of a
    fair coin's heads, so its complement is computed without cancellation. P = 1/2 at l = 2 (m - 1).

    Args:
        width: l, at least 1.
        classes: m, at least 1.
    """
    whole_number("width", width, 1)
    whole_number("classes", classes, 1)
    return float(binom.sf(classes - 2, width - 1, 0.5))


def _program(**program: np.ndarray | Sequence) -> np.ndarray | None:
    """What solves a linear program, given as scipy's ``linprog`` takes it; None if nothing does."""
    answer = linprog(**program, method="highs")
    if answer.status not in (0, 2):  # solved, infeasible
        raise ValueError(f"a linear program over the features did not end: {answer.message}")
    return answer.x


def _sines(w: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sine of the angle between the normals of two boundaries, each between a first and a second
    class (M, 2): (M,)."""
    normals = w[first] - w[second]
    u, v = (normals / np.linalg.norm(normals, axis=2, keepdims=True)).transpose(1, 0, 2)
    return np.linalg.norm(u - (u * v).sum(1, keepdims=True) * v, axis=1)
