# %% [markdown]
# # Decision boundaries
#
# The last part of {cite:t}`bell2023` is a workshop: three definitions of a decision boundary, classifiers made of Voronoi cells, wedges of adjustable sharpness with half a projection algorithm, singular values of boundary samples, and a list of headings under which nothing stands yet.
# The questions are good ones.
# What shape has the surface that an adversarial example crosses, and does it cross it in another way than the line between two images does?
#
# There are reasons for care.
# A proof claims that every Delaunay edge crosses its Voronoi face, which every obtuse triangle contradicts.
# Two different sets are called "the wedge".
# And a picture of singular values that drop is evidence only beside a picture of what noise alone would show.
#
# This chapter re-runs what the part claims, corrects what it states, and does for the first time what it announces: the normals, the radius of curvature, the skewness of crossings.

# %% tags=["parameters", "hide-input"]
profile: str = "quick"  # quick, standard or paper: see data/profiles
seed: int = 0  # first random seed; the profile's `seeds` says how many follow
device: str = "cpu"  # cpu, cuda or auto
overrides: dict = {}  # fields of the profile to change, such as {"centers": 20}

# %% tags=["hide-input"]
import numpy as np
import torch

from support import geometry
from support.book import chapter_run

run = chapter_run.start(
    "07_decision_boundaries/lesson", profile, seed, device, overrides
)

# %% [markdown]
# ## What we check
#
# Each claim has its row in the {doc}`evidence <evidence>`.
# *Identity* claims are definitions, theorems and calculations, which hold or fail on any computer; *empirical* ones depend on trained networks.
# *Questions* are the announcements: the part asks, this chapter answers yes, no or undecided.
# Networks of different kinds are judged by themselves: a fully connected one and a convolutional one.

# %% [markdown]
# ## What a boundary is
#
# Write $F(x) \in \mathbb{R}^K$ for the scores and $f(x) = \arg\max F(x)$ for the class: $f$ is argmax *after* $F$, which the part writes the other way round.
# The *lead* of a score vector is its largest entry minus the second largest.
# As long as a change $\delta$ of the scores has $\lVert \delta \rVert_1$ below the lead, the class stays: what one score gains and another loses is together at most $\lVert \delta \rVert_1$.
# So each class owns an open set of scores, and the ties are what is left, a closed set.
#
# We draw score vectors on a grid of exact binary fractions, and change the leader and its rival in the worst way, by a hair less than the lead; then by the same amount in *every* coordinate, which the $\ell_1$ ball does not allow.

# %% tags=["hide-input"]
run.say(
    "Moves below the lead change the class of "
    f"{run.found('bell2023.argmax-open', 'changes'):.0f} of the score vectors."
)

# %% [markdown]
# *Is the boundary connected?* the part asks.
# Among the scores it is: pull a tie towards the point where all scores are equal, $s \mapsto c\mathbf{1} + t (s - c\mathbf{1})$, and every comparison stays, so that each tie is joined to that point by a straight line of ties.
# Among the inputs it need not be: the boundary of a ring has two pieces.

# %% [markdown]
# ### Three definitions
#
# The *complement* definition (29.1) takes the closure of all points that are not in a decision interior, where some small ball has one class.
# The *constructive* one (29.2) takes the points of which every ball has two classes or more.
# These are one set, by negation, as soon as a rule breaks ties; and the closure adds nothing, because the interior is open.
#
# The *level set* definition (29.3, repeated as 30.3) takes the points where two probabilities are equal and all others smaller.
# Four classifiers of the plane show the difference; ties go to the first class.

# %% [markdown]
# The level sets miss the point where three classes meet, and they hold the open set of ties and the line where two scores touch, although only one class is found around either.
#
# The part grades the boundary by the number of classes that every small ball meets, and leaves open how that number follows from the scores.
# Where $j$ scores tie in general position, $j$ classes meet; where a third score $-z_2^2$ only touches the tie of the first two, no third class does.

# %% [markdown]
# ### The image of the boundary
#
# $F$ maps the boundary into the simplex of probabilities, where the part sees "$K - 1$ components".
# Two counts can be meant by that.
# There are $K - 1$ *strata*: two, three, ..., $K$ leaders tie; so far the part is right.
# The stratum of two leaders alone falls into $K (K - 1) / 2$ pieces, one for each pair of classes, and each is only the part of its plane where the other probabilities are smaller.
# The stratum of $K$ leaders is one point of the simplex, where all probabilities are $1/K$: the part's "centroid line" meets the simplex there.
#
# We train a network on three classes of digits, bisect between its test images, and draw where the boundary points land.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: a triangle with three dashed rays from its centre to the middles of its sides; coloured dots, images of boundary points, lie on the rays. Right: strata and binary pieces against the number of classes: the first grows by one a class, the second quadratically."}}
run.show("fig-simplex")

# %% [markdown]
# The dots lie on the rays from the centre to the middles of the sides: a boundary point between two confident classes lands near a side, one that almost three classes share near the centre.
#
# ## Voronoi and Delaunay
#
# Give every query the class of its nearest training point, and the decision boundary consists of faces of the Voronoi diagram.
# Its dual, the Delaunay triangulation, joins two points whose cells share a face.
# The part claims with a proof that these edges cross the boundary orthogonally.
#
# An edge meets the plane half-way between its ends at a right angle: so far it is true.
# But the face is only a part of that plane, and the edge meets the plane at one point, its midpoint.
# The midpoint lies in the face exactly if no third training point is nearer to it, so that the ball over the edge is empty: the definition of a *Gabriel* edge.
# Three lines test it.

# %% tags=["nbval-check-output"]
corners = [[0.0, 0.0], [4.0, 0.0], [2.0, 0.9], [2.0, -5.0]]
obtuse = torch.tensor(corners, dtype=torch.float64)
a, b = obtuse[0], obtuse[1]
others = [round(float((c - (a + b) / 2).norm()), 2) for c in obtuse[2:]]
print("half the edge:", float((b - a).norm() / 2))
print("distances of the other points to its midpoint:", others)

# %% [markdown]
# The package's version does this for whole triangulations, with the edges from Qhull and the nearest points from a tree.
# We count in random points of the unit cube, for edges whose midpoint is well inside it, and in scikit-learn's digits reduced to their first principal components.
#
# For a Poisson process in $d$ dimensions the answer is known: a point has $2^d$ Gabriel neighbours on average, and 6, 15.54 and 37.78 Delaunay neighbours for $d = 2, 3, 4$.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: random points in the plane with their Voronoi cells; blue Delaunay edges cross the shared face, orange dashed ones pass through a third cell. Right: the share of edges that cross, falling with the dimension for random points, close to the Poisson values, and for digits."}}
run.show("fig-delaunay")

# %% [markdown]
# The error of the proof is its first step: from "not orthogonal to the face" it concludes that a certain point exists, and then contradicts what is true of Gabriel edges only.
#
# ### The angle of incidence
#
# For other crossings the part defines the angle of incidence (Definition 30.1), once as the angle between the line and its projection onto the plane, once as $\pi/2$ minus that angle.
# We take the second, the angle to the *normal*: 0 for an orthogonal crossing, 90 degrees for a grazing one.
#
# Any measured angle needs its null.
# The direction of a line chosen uniformly at random in $n$ dimensions has $\cos^2 \alpha \sim \mathrm{Beta}(1/2, (n-1)/2)$, and in many dimensions that is nearly 90 degrees whatever the boundary.

# %% [markdown]
# ### The dimension of a boundary
#
# Definition 30.4 calls *dimension* of the boundary at $x$ the number of dimensions that the offsets from $x$ to its whole decision level span.
# With two classes the level is $1/2$ on all of the boundary.
# For a plane in $n$ dimensions the span then is $n - 1$; for a sphere, which has dimension $n - 1$ as well, it is $n$.
# With more classes the fixed level is one more condition.
# Between two of three linear classes with a softmax, the level fixes the third probability too, $1 - 2a$, so that only $n - 2$ directions are left in the plane.
# The word is a definition, so it cannot be false; as a dimension it fails.
# Counted locally, on the boundary instead of its level, the number comes out right: of a sample within radius $r$ one singular value shrinks like $r^2$, the others like $r$.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Singular values of samples of a sphere against the sample's radius, both logarithmic: at small radii seven lines of slope one, which coincide, and a lowest one of slope two. At large radii all flatten."}}
run.show("fig-sphere")

# %% [markdown]
# ### Bounded cells, noise and slivers
#
# Two remarks of the part about Voronoi cells and triangulations can be counted.
# A cell is bounded exactly if its point lies in the interior of the convex hull, and we compare the two for scipy's diagrams; the share of bounded cells falls quickly with the dimension.
# For images a witness is enough: if an image lies farther than all others in the direction from the mean to itself, its cell has no end.

# %% [markdown]
# The other remark says that triangulations are unstable in many dimensions, that noise upsets them, and that data lessen both that are plentiful and have no more than a small amount of noise.
# We move every point by noise and count how many edges change: first by a twentieth of the mean spacing in two and in four dimensions, then by the *same* amount with few and with many points.
# The quality of a simplex is $d$ times its inradius over its circumradius: 1 for a regular one, 0 for a flat one.

# %% [markdown]
# ### Weighted Delaunay boundaries
#
# A Voronoi classifier knows only the nearest point.
# Definition 30.5 adds up the barycentric coordinates of a query in its Delaunay simplex by label, $w(z)_i$, and takes the class with the largest sum.
# On a triangulated square this works, and the weights are scipy's linear interpolation of the labels (the tests of the package check that).
# On a curved manifold it need not: new points of a circle, or of any curve that bounds a strictly convex set, lie outside every simplex that the samples span.
# A curve that bends both ways, such as a sine curve, has many new points inside simplices; but these simplices reach across its bends, between samples that are far apart along the curve.

# %% [markdown]
# Theorem 30.6 says that the boundary of these weights converges to the true one.
# Here is what is true, with its conditions.
#
# ```{prf:theorem} The weighted Delaunay boundary lies in a tube
# :label: thm-delaunay-tube
#
# Let $M$ be convex and flat, let every point of it have a class, each class the closure of its interior, and let the samples carry their true classes.
# If $\varepsilon$ is the length of the longest Delaunay edge, every point of the samples' convex hull that the weights misclassify lies within $\varepsilon$ of the true boundary.
# ```
#
# ```{prf:proof}
# A simplex whose corners all have the true class of $z$ gives $z$ this class with weight one.
# So if $z$ is misclassified, a corner $c$ of its simplex has another class, and the segment from $z$ to $c$, which stays in $M$, meets the true boundary.
# Its length is at most the diameter of the simplex, which is its longest edge.
# ```
#
# No Lipschitz constant is needed, and errors retreat with $\varepsilon$.
# Flatness is: on a circle the longest edge never falls below $\sqrt{3}$ times the radius, since some triangle holds the centre, so that the limit is never taken.
# The points of the weighted boundary retreat with them: a tie needs corners of two classes.
# That is one direction only.
# A piece of a class that is thinner than $\varepsilon$ may hold no sample; then its boundary is missed, however far from everything else it lies.
# For fixed classes on a compact $M$ every piece is found in the end, since each holds a ball, but how soon depends on its thickness.
# We measure both directions on ever finer jittered grids with a disc as one of the classes, and draw how far from the circle the farthest error lies.
# The second curve has one label in twenty exchanged.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: a circle in a square with coarse samples, and the boundaries of the Voronoi and of the weighted Delaunay classifier around it; both follow it unevenly. Right: distance of the farthest error from the true boundary against the longest Delaunay edge, both logarithmic. With true labels it shrinks with the edge and stays below the dotted diagonal; with one label in twenty exchanged it stays large."}}
run.show("fig-tube")

# %% [markdown]
# ## Wedges
#
# To test what a measurement says of a boundary one needs boundaries whose shape is known.
# The part proposes the $k$-orthant, $x_1, \dots, x_k > 0$, and tips its faces towards each other to make a wedge.
# It does so twice, and differently.
# Definition 30.8 is $\{x_1 > 0,\ x_i > x_1 \tan\theta_{i-1}\}$, which we call the *upper* wedge.
# The centreline of Definition 30.9, $x_i = t \tan(\theta_{i-1}/2)$, and most of the text belong to the *lower* wedge $\{0 < x_i < x_1 \tan\theta_{i-1}\}$.
# For two faces one is what the other leaves of the quadrant.
# Both are open, and an open set has no nearest point; from here on they are closed.
#
# The second crossing of Definition 30.9 runs parallel to the first axis, $x_1 = t$, $x_i = \varepsilon$, and leaves the upper wedge where $t \tan\theta$ reaches $\varepsilon$.

# %% [markdown]
# ### The nearest point
#
# The part looks for the nearest point of the angled wedge and stops in mid-sentence.
# There is a short way.
#
# ```{prf:theorem} The nearest point of a wedge
# :label: thm-wedge-projection
#
# The nearest point $p$ of the closed upper wedge to $x$ has $p_i = \max(x_i, p_1 \tan\theta_{i-1})$ for $1 < i \le k$, $p_i = x_i$ for $i > k$, and $p_1 = \max(t, 0)$, where $t$ is the root of the increasing, piecewise linear function
#
# $$g(t) = t - x_1 + \sum_{i=2}^{k} \tan\theta_{i-1}\, \max(0,\ t \tan\theta_{i-1} - x_i) .$$
# ```
#
# ```{prf:proof}
# For fixed $p_1 = t \geq 0$ the constraints on the other coordinates are one each, so each takes the allowed value nearest to $x_i$.
# What remains is half the squared distance as a function of $t$ alone, which is convex with derivative $g$; its minimum over $t \geq 0$ is at the root of $g$, or at 0 where the root is negative.
# ```
#
# In a line of code each, with a grid of candidates in place of the root:

# %% tags=["nbval-check-output"]
point = torch.tensor([1.0, -0.5, 0.2, 2.0], dtype=torch.float64)
tangents = torch.tensor([0.5, -0.4, 1.0], dtype=torch.float64).tan()
grid = torch.linspace(0, 3, 3_000_001, dtype=torch.float64)
pushed = (grid[:, None] * tangents - point[1:]).clamp_min(0)
distance = (grid - point[0]).square() + pushed.square().sum(1)
t_best = grid[distance.argmin()]
rest = torch.maximum(point[1:], t_best * tangents)
exact = geometry.project_wedge(point[None], tangents.atan())[0]
print("by the grid:", np.round(torch.cat([t_best[None], rest]).numpy(), 4))
print("exact:      ", np.round(exact.numpy(), 4))

# %% [markdown]
# `geometry.project_wedge` sorts the corners of $g$ and takes the root from the piece that holds it: exact, batched, without iteration; the tests compare it with two quadratic-program solvers.
#
# For *orthogonal* faces, $\theta = 0$, projecting onto one half-space after the other is right, in one sweep and in any order (Lemma 30.11).
# For angled faces the part has two proposals: the same sweep repeated, von Neumann's alternating projections, and a sequence of directions made orthogonal, which amounts to projecting onto the intersection of the *planes* of all violated faces.
# {cite:t}`dykstra1983` has the correction that the first one lacks: each half-space takes back its last step before it makes a new one.

# %% [markdown]
# Equations 125 and 137 to 139 give the directions that the part makes orthogonal, and the evidence multiplies out each slip on the way to them.
# They are right: up to length, the first is $w_j$ without its share of $w_i$, the second $w_k$ without its share of both.
# Several equations on the way are not.
# Equation 107 subtracts a number from a vector, and 110 and 142 leave the vector $e_1$ in a number; 114 asks for $w_{ij} \perp w_j$ where the text asks for $w_{ij} \perp w_i$; 137 says $w_j$ for $w_k$; the general rule after 139 sums $\tan^2\theta_i$ up to $k$ where it has to stop before; 140 to 142 exchange sine and cosine, so that they speak of other planes.
# Four more can be checked by multiplying out, with $w_i = e_i \cos\theta_i - e_1 \sin\theta_i$:
#
# $$\begin{aligned}
# (w_j + a) \cdot w_i &= \sin\theta_j \sin\theta_i - a_1 \sin\theta_i + a_i \cos\theta_i , \\
# (w_j + a) \cdot (e_1 + e_i \tan\theta_i + e_j \tan\theta_j) &= a_1 + a_i \tan\theta_i + a_j \tan\theta_j .
# \end{aligned}$$
#
# The first line is 119, and 128 with $k$ for $j$; they print $\sin\theta_j$ and $\sin\theta_k$ beside $a_1$, while 129 is right.
# The second is 120, which prints $-a_i \tan\theta_i$, and with a third term on both sides 130, whose left side lacks $e_k \tan\theta_k$.
# None of these four slips reaches the results, since $a_1 = 0$ there, and 121 to 124 go on with the right signs.
#
# The method itself fails for another reason.
# A face that the point violates need not touch the nearest point, and a face that it respects can.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: violated and active faces per outside point against the number of faces, with two dashed curves for faces in one set but not the other. Right: the share of outside points for which projecting onto the violated planes is right falls from most of them at two faces to few at many faces."}}
run.show("fig-projection")

# %% [markdown]
# ### Persistence in a wedge
#
# {doc}`../05_persistence/lesson` measures the $\gamma$-persistence of a point, the largest $\sigma$ up to which Gaussian noise keeps its class with probability $\gamma$, and has a closed form for the orthant: $\sigma^* = d / \Phi^{-1}(\gamma^{1/k})$ at distance $d$ from all $k$ faces.
# Angled faces have an exact form too.
# Given the noise of the first coordinate the other faces are independent, so
#
# $$P(\text{inside}) = \int_{-x_1/\sigma}^{\infty} \varphi(z) \prod_{i=2}^{k} \Phi\!\left(\frac{x_i - (x_1 + \sigma z) \tan\theta_{i-1}}{\sigma}\right) dz ,$$
#
# one integral, whatever $k$.
# We keep the point at distance 1 from every face and vary the number of faces and their angle.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Persistence at unit distance from all faces against their number, one curve for each tip angle. All curves fall steeply from one face to two, where they nearly meet; beyond, the untipped one falls on close above a dotted lower bound and the tipped ones fall less."}}
run.show("fig-tipped")

# %% [markdown]
# Persistence falls with the number of faces.
# What the angle does depends on that number.

# %% tags=["hide-input"]
bell = run.paper("bell2023")
two, three, ten = (
    bell.found("persistence-recreated", f"tipped_over_untipped_{k}_faces") - 1
    for k in (2, 3, 10)
)
run.say(
    f"At the largest angle drawn, tipping changes the persistence of two faces by "
    f"{two:+.1%}, of three by {three:+.1%} and of ten by {ten:+.1%}."
)

# %% [markdown]
# With many faces, all but the first turn towards one another, until they are nearly a single one, and the point is left with two.
# So acuteness costs little persistence at a given distance, and the union bound $\sigma^* \geq d / \Phi^{-1}(1 - (1-\gamma)/k)$, which knows no angles at all, is nearly attained by the orthant.
#
# The picture that set the part going (section 32) is a path from an image to its adversarial example, along which persistence drops at the boundary.
# A heading asks whether a skewed orthant recreates it.
# We cross a plane, an orthant of ten faces and tipped wedges, along the line through their equidistant points; on the outside the class is the complement, whose persistence can be infinite and is cut at the largest $\sigma$ that we look at, 64.
# So we compare the inside with a plane at the same distance: outside, nothing is less persistent than before a plane, and the drop is at least as deep as that.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Persistence on a logarithmic axis along the line through the equidistant points of a plane and three wedges, outside on the left. The plane's curve dips symmetrically at the crossing. Those of the wedges stay at the top outside, fall to low values just inside and rise again, ten faces lowest, tipped ones a little higher."}}
run.show("fig-through")

# %% [markdown]
# A plane gives a symmetric dip to zero and no drop.
# Inside ten faces the persistence is a small fraction of what it is at the mirrored point outside, however far the cut: the drop comes back, tipped or not.
#
# ## Singular values of boundary samples
#
# The part samples a boundary, takes singular values, and reads its dimension off the values that drop.
# It begins with orthants: noise of mean zero, projected, and the singular values of random differences among these samples.
#
# What should one see?
# Clipping a standard normal coordinate at zero leaves mean $1/\sqrt{2\pi}$, second moment $1/2$ and variance $1/2 - 1/2\pi \approx 0.341$.
# So around the *mean*, $k$ directions have $0.584$ of the standard deviation of the others.
# The difference of two samples has twice the variance in every direction, and no mean: by differences exactly $k$ values drop as well, as the part says.
# Around *zero*, the mean adds $k/2\pi$ along one of these directions: $k - 1$ values drop, and the last one has variance $0.341 + 0.159\,k$, which is one between $k = 4$ and $k = 5$ and grows on.
# So the centring, or the differences, cannot be left out.
#
# And how small is small?
# A Gaussian sample of $N$ points in $n$ dimensions has singular values that spread over $1 \pm \sqrt{n/N}$ (the law of {cite:t}`marchenko1967`); a value counts as dropped only below that range.
# `boundary_spectrum` estimates the noise from the middle of the spectrum and counts what lies outside.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Sorted singular values of samples projected onto orthants, for four numbers k of faces, uncentred on the left and by differences on the right, over a grey band of what noise explains. By differences, exactly k values lie below the band. Uncentred, for k above one only k minus one do, and for the larger k one value stands far above the band."}}
run.show("fig-orthants")

# %% [markdown]
# A "valid experiment" of the part is exact: the differences between points and their projections are combinations of the normals of the faces, so they have rank $k$, for the orthant and for tipped wedges alike.

# %% [markdown]
# ### The flat distribution
#
# With few samples the noise's own spread hides a drop.
# The part replaces Gaussian noise by a sample whose singular values are all equal: take $X = U \Sigma V$ and put a constant in place of $\Sigma$.
# "$|\Sigma|_2$" is not the constant that keeps the Frobenius norm, in either reading; $\lVert X \rVert_F / \sqrt{r}$ is.
# The figure shows what it is good for: an orthant of five faces with three samples for two dimensions.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Sorted singular values of five-face orthant samples with few points. For Gaussian noise a smooth slope close to the grey line of pure Gaussian noise; for flat noise a nearly level line with five values clearly below it."}}
run.show("fig-flat")

# %% [markdown]
# ## Trained networks
#
# From here on the boundaries are those of networks.
# A *linear* classifier is trained beside them: its boundaries are planes, so whatever it shows too is no sign of curvature.
#
# Each network gives *natural* crossings, on the line between two test images of different classes, and *adversarial* ones, on the line from a test image to an adversarial example of it, by PGD (the budget in the largest pixel change), by L-BFGS (the least Euclidean distance, {cite:p}`szegedy2014`), and by FMN {cite:p}`pintor2021`, which looks for the nearest point and here may leave the box of pixel values.
# Bisection halves a bracket until its two sides are neighbours among the floats of the segment.

# %% tags=["hide-input"]
run.show("table-accuracy")

# %% [markdown]
# ### Skewness
#
# How steeply does a line cross the boundary?
# The angle of incidence at each crossing, beside the null of a uniformly random direction.
# *Matched* attacks start on the natural line itself, as far before its crossing as an image is from its adversarial example in the median: the same place, and another direction.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Cumulative shares of crossings against their angle of incidence, one panel per network. Crossings on lines between images and by PGD are more grazing (larger angles) than those by L-BFGS; those at the nearest points without the box have the smallest angles. All curves lie to the left of the dotted one for random directions."}}
run.show("fig-skewness")

# %% [markdown]
# The nearest point of a smooth boundary lies along its normal, so an attack of least distance crosses at 0 degrees, and *nearest, without the box* should lie there: how far it is from that says how far the search is from the nearest point.
# L-BFGS falls short of that because the box $[0, 1]$ lets no black pixel go darker, and because it does not find the nearest point.
# The line between two images is chosen without regard to the boundary, and meets it at an angle that is large, though smaller than chance alone would make it.
# PGD spends its budget in every pixel alike, and its angle tells of that more than of the boundary.
# The linear network shows the same order, and its boundaries are planes.
# So a difference in skewness says how a line was chosen; it is no evidence of a wedge.
#
# ### Samples around a crossing
#
# We add noise of the flat distribution to boundary points, interpolate each noisy point towards the parent on the other side, one of the part's two ways (the other, descending a loss, is not run), and look at the singular values, uncentred and by differences.
# What should one see?
# Around a *plane* with unit normal $\nu$, interpolating along the line of the parents, with direction $u$, is the oblique projection $I - u \nu^\top / (u^\top \nu)$.
# Its singular values are 0 along $\nu$, $1 / \cos\alpha$ for the angle of incidence $\alpha$, and ones.
# Two values stand out, but only one of them is *degenerate* as the part uses the word, smaller than the rest; and neither is one of the two images, with which the part thinks two degenerate values correspond: one direction is the normal, the other lies in the plane, where the line between the images casts its shadow.
#
# L-BFGS ends *on* the boundary, so that interpolating towards its result would gather half the sample in one point; behind those crossings we take the mirror image of the starting point as the second parent.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Singular values of boundary samples around natural crossings on the left and adversarial ones on the right, one colour per crossing, relative to their median, on a logarithmic axis. Each shows a level line and one value far below it. For the natural crossings one value stands well above the line, close to a cross at one over the cosine of the angle of incidence."}}
run.show("fig-neighbourhoods")

# %% [markdown]
# The crosses mark $1/\cos\alpha$ at the first rank: the large value of a natural crossing is its angle, and the smallest value its normal.
# The table collects all neighbourhoods.

# %% tags=["hide-input"]
run.show("table-neighbourhoods")

# %% [markdown]
# The large first value of the uncentred sample is the boundary image itself, and it grows with the image's norm over the noise: a fact about means, not about boundaries.
# Differences remove it.
#
# Is the boundary a plane there?
# In a ball of the small radius we call a neighbourhood planar if the spread along its fitted normal is below a twentieth of the median spread.
# A "slightly larger" ball has twice the radius here, and there we count the samples that leave the class into a third one, another piece of the boundary.
# Both answers are given for each network by itself.

# %% tags=["hide-input"]
run.say(
    "Of the natural crossings of the fully connected network "
    f"{bell.found('mnist-plane', 'dense_planar_share'):.0%} are planar by this "
    "measure, of the convolutional one's "
    f"{bell.found('mnist-plane', 'conv_planar_share'):.0%}."
)

# %% [markdown]
# The part compares the normals that a least-squares fit finds with the gradients of the loss; of all classes only two have a share in the loss at a boundary between confident regions, so that the gradients of the gap between their scores stand beside them in the row.
# The differences between noisy points and their place on the boundary are no normals: they lie along the lines to the parents, and so at the angle of incidence.
#
# ### The radius of curvature
#
# A plane looks flat at every radius.
# We go a distance $r$ into random tangent directions and look how far along the normal the boundary lies from there, the height $h$, as a share of $r$; where it is not found within $r$, the share counts as one.
# Beside it the angle between the normals at the two places, which is what the part means to compare.
# The row asks whether the normals turn on a way as long as an image's distance to the boundary, beside the linear network, whose normals cannot; and at which radius they have turned by 30 degrees, where the range of radii reaches it.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: height over the tangent plane as a share of the radius, against the radius, both logarithmic, for linear and curved networks; middle: angle between normals. Both stay near zero for the linear network at small radii and grow for the others. Right: principal curvatures at a middle radius, for natural and adversarial crossings."}}
run.show("fig-bending")

# %% [markdown]
# Dotted lines mark the median distance of an image from the boundary, by the nearer of what two searches find.
# A network of ReLUs is flat within each of its linear regions, and what the curves show is how many of them a step of that length crosses.
# The two measures need not agree: heights average over random directions, of which in many dimensions nearly all are flat, while a normal turns with the few that are not.
# What the linear network shows at large radii is not curvature but the next piece of its boundary, where a third class begins: its normals at the places that were found do not turn.
#
# "Flat as far as the images" can hold by heights in random directions while it fails by normals, the comparison that the text asks for.

# %% tags=["hide-input"]
run.say(
    "On a way as long as an image's distance the boundary of the convolutional "
    f"network rises {bell.found('curvature-radius', 'conv_height'):.1%} of the way "
    "over its tangent plane, and its normals turn by "
    f"{bell.found('curvature-radius', 'conv_turn_degrees'):.0f} degrees."
)

# %% [markdown]
# ### The dimpled manifold
#
# {cite:t}`shamir2021` picture the boundary as a sheet that runs along the manifold of the images, with a dimple at each of them; adversarial directions then leave the manifold.
# If so, the boundary's normals should have little length in the directions in which images differ.
# We take the principal directions that hold nine tenths of the training images' variance, and measure the share of squared length in them: of the line between two images, of the boundary's normals, and of a random direction.

# %% [markdown]
# Whether normals hold less of the images' directions than the images' own differences do is what skewness asks in other words.
# The prediction that is peculiar to the dimpled manifold is that they hold less than *chance* would.

# %% tags=["hide-input"]
held = [bell.found("dimpled-manifold", f"{k}_normal_share") for k in ("dense", "conv")]
chance = bell.found("dimpled-manifold", "random_share")
run.say(
    f"Is it so? {bell.verdict('dimpled-manifold')}: normals hold {held[0]:.2f} and "
    f"{held[1]:.2f} of their squared length in the images' directions, and a random "
    f"direction {chance:.2f}."
)

# %% [markdown]
# The principal directions are those of all training images together.
# The tangent space of the images' manifold at one place is a smaller one, and a test with it could end otherwise.
#
# ### The wedge, the spectrum and the network side by side
#
# Does anything in a trained network look like a wedge?
# Three measurements answer together, though not at the same crossings.
# *Persistence* at mirrored points, at equal distance before and behind a PGD crossing: the ratio is 1 for a plane and small for a wedge.
# The *spectrum* of boundary samples at L-BFGS crossings, centred: a wedge of $k$ faces drops $k$ values, a plane one.
# And the *angle* at which natural and L-BFGS crossings meet the boundary: the way through the apex of an orthant has $\cos\alpha = 1/\sqrt{k}$ to each of its faces.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: persistence behind the crossing divided by that before it, against the number of faces of a wedge, with the networks' medians as horizontal lines. Middle: singular values of samples of a ten-face wedge, a plane and a network. Right: cumulative angles of incidence of natural and adversarial crossings of two networks, with vertical lines for the way through the apex of orthants of 2, 3 and 10 faces."}}
run.show("fig-side-by-side")

# %% tags=["hide-input"]
run.show("table-mirrored")

# %% [markdown]
# The linear network is the ruler here: its classes are intersections of half-spaces, so it, too, may have less room behind a crossing than before it, without any curvature of a single piece.
# Only what a network shows beyond that ruler speaks of bending.
# Two readings of "how many faces" are shown, and they need not agree.
# The curve on the left sets persistence in a wedge beside that of a plane at the same distance; the table asks for the faces whose orthant has the persistence found behind, at the distance of the tangent plane.
# Where they do not, no number of faces should be read off either.
# Where persistence behind the crossing falls far below the ruler's, the curvatures under *The radius of curvature* should lie below zero at adversarial crossings, since then the class behind is the convex one: the cone of chapter 5, found by two measurements that share no step.
# The first column of the table and the boxes of that figure answer it together, for each network by itself.
#
# ## What did not reproduce, and why
#
# The table collects the verdicts.

# %% tags=["hide-input"]
run.show_verdicts()

# %% [markdown]
# What is refuted falls by a counterexample: an obtuse triangle for the Delaunay edges, the two readings of one definition for the incidence, one wedge's alternating projections for the nearest point.
# Most of it can be mended, and the corrected statements are short: Gabriel edges for Delaunay edges, a local count for the span, Dykstra's correction or one sorted sum for the projection, a tube of width $\varepsilon$ around the errors for a Lipschitz bound.
#
# The measurements on networks share one lesson.
# A large singular value is an image, or an angle of incidence; a skew crossing is a line that was not aimed at the nearest piece of the boundary; and a linear network, whose boundaries are planes, shows both.
# Each quantity needs its null beside it, and what is left when the null is taken away differs from network to network, as the tables show.
#
# What this chapter does not settle: whether the pieces of a network's boundary meet at corners that matter, for which one would need the neighbours of a piece and not a sample of it, and the persistence of complements, which has no closed form here beyond the one integral.

# %% tags=["hide-input"]
run.finish()
