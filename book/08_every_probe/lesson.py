# %% [markdown]
# # Every probe on every model
#
# Each of the five papers explains robustness by a quantity of its own: the distance to a class centre {cite:p}`hess2020`, the slope of the margin {cite:p}`wang2022`, the subspace that the last layer cannot see {cite:p}`zou2018`, a certified radius {cite:p}`alfarra2021`, the noise that an image stands and the shape of the boundary {cite:p}`bell2023`.
# Each measures it on its own networks, and mostly on two of them.
#
# Here all quantities are measured on all networks.
# Then we ask what no single paper could: *which of them orders networks as their measured robustness does?*
#
# Eight networks are few, and the quick profile has only three of them.
# So the page says of each answer how sure it can be with that many, and the first thing to learn from it is how much a table of so few networks leaves open.

# %% tags=["parameters", "hide-input"]
profile: str = "quick"  # quick, standard or paper: see data/profiles
seed: int = 0  # first random seed; the profile's `seeds` says how many follow
device: str = "cpu"  # cpu, cuda or auto
overrides: dict = {}  # fields of the profile to change, such as {"images": 20}

# %% tags=["hide-input"]
import numpy as np
from scipy.stats import rankdata

from support.book import chapter_run

run = chapter_run.start("08_every_probe/lesson", profile, seed, device, overrides)

# %% [markdown]
# ## What we ask
#
# No paper compares its quantity with the others', so there is no published number to reproduce.
# But each tells a story that can be turned into a question for any network: where this quantity is larger (or smaller), is the network more robust?
# Several papers say it of *images* of one network, or of its attacks; that it should order networks too is this book's reading, and a story that fails here may hold where its paper tells it.
# Each row of the {doc}`evidence <evidence>` is such a question.
# *Yes* means that, over the networks, the rank correlation with the protocol's worst case is above zero in the story's direction, and *no* that it is below, both beyond what chance gives with so many questions; anything else is *undecided*.

# %% [markdown]
# ## The networks
#
# All have the same body, see the same training images equally often, and start from the same weights of their seed.
# They differ in the head and in the loss.
#
# | network | head | training |
# |---|---|---|
# | nominal | linear | cross-entropy |
# | Gauss | Gauss kernel of the distance to a class mean | features pulled to frozen class means ({doc}`../01_softmax_kmeans/lesson`) |
# | softRmax | linear, then inverse squared distances to the unit vectors | its own log-probability ({doc}`../02_softrmax/lesson`) |
# | Magnet | clusters, two a class | Magnet loss from random weights ({doc}`../04_clustr/lesson`) |
# | ClusTR | the same | Magnet loss after cross-entropy |
# | QTRADES | linear | cross-entropy, and one quick adversary an image |
# | ClusTR + QTRADES | clusters | Magnet loss, and one quick adversary an image |
# | adversarial | linear | cross-entropy, then cross-entropy on the images that PGD finds {cite:p}`madry2018` |
#
# The last one belongs to no paper of this book.
# It is the yardstick: the one method in the list that makes networks robust by common agreement.
#
# softRmax and Magnet take all passes by themselves; the others share the first part of their training, with cross-entropy.
# An adversary costs passes of its own, so an equal number of looks at the data is no equal number of seconds: the table of times further down shows both.
# The networks are trained by `support.networks`, with the rates that the chapters use.

# %% [markdown]
# ## The probes
#
# A probe is a function of a network that returns numbers.
#
# ### Answers: accuracy, calibration, confidence where there is nothing to see
#
# The *expected calibration error* sorts answers by their confidence into fifteen bins of equal width and averages how far confidence and accuracy lie apart.
# It is the network's own confidence that counts, as its paper defines it: for the Gauss network that is no probability and need not sum to one.
#
# A network that knows what it does not know is unsure of noise, and surer of test images than of images from elsewhere.
# The second is an area under the ROC curve: the chance that a test image gets a higher confidence than an outsider.
#
# ### Features: near the own centre, far from the others
#
# One algebra ties the book together: scores are log-kernels of distances to centres.
# To compare networks whose features have different sizes, we take lengths relative to the features themselves.
# The centres are the class means of the training features, for all networks alike.
#
# - *Distance to the own centre*: root mean square over test images, as a share of the distance to the mean of all. It is 0 where all classes have collapsed to points, and 1 where class means tell nothing.
# - *Distance between centres*: the smallest one as a share of their mean. It is 1 if all are equally far apart.
# - *Share of the features in the null space* of the last layer, of the squared length about the mean, over the share that a random direction has. Below 1 the features avoid the null space. A head with clusters sees what its centres span; softRmax sees all that its weights see, since it does not ignore a number added to all scores.
#
# ### The least perturbation, and where it points
#
# L-BFGS looks for the shortest perturbation that changes the class (Euclidean length, inside the box; {doc}`../05_persistence/lesson`).
# Its length is a second measurement of robustness, in another norm than the protocol's.
# Three quantities are read off the same pairs of images.
#
# - *Share of the attack in the null space*: of the squared length by which the features move, over that of a random direction.
# - *Theorem 2's margin*: the lower bound of {prf:ref}`thm-distortion` at its best over the two freedoms that it leaves open, over the length found. It is defined for one centre a class, and needs a Lipschitz constant.
# - *Skewness*: the angle between the perturbation and the normal of the boundary where it crosses. The shortest way to a smooth boundary crosses at 0 degrees, if the box allows it.
#
# ### A certificate
#
# The distance of the features to the nearest bisector, over an upper bound on the Lipschitz constant: no shorter perturbation changes the class of the nearest centre ({prf:ref}`thm-clustr-radius`).
# For the linear heads the bisectors are those of the scores.
# For heads with clusters it certifies the class of the nearest cluster, which is not quite the class of the soft sum.
# Residual blocks have no bound here, so ResNet has no certificate on this page.
#
# ### The slope of the margin
#
# The magnitude-margin ratio $R$ divides the mean size of the margin's gradient by the margin ({doc}`../02_softrmax/lesson`).
# softRmax is judged on the scores before its last activation, as its paper does; the other heads on their log-scores.
#
# ### One pixel
#
# Every pixel of every image is set to every corner of the colour cube, and two rules judge the result ({doc}`../01_softmax_kmeans/lesson`): *any* change of class, and a change with a confidence above $1/K$, the outlier threshold of the Gauss network.
# For a softmax the two rules are nearly the same.
#
# ### Noise
#
# The $0.7$-persistence of an image is the largest standard deviation of Gaussian noise under which it keeps its class for seven draws of ten ({doc}`../05_persistence/lesson`).
# We measure it at natural images, at the adversarial images of least perturbation, and at the natural images' *mirror images*: as far behind the crossing as the natural image lies before it.
# If the boundary were flat there, the mirror image would stand as much noise as the image.
# {cite:t}`bell2023` reads a loss of persistence behind the boundary as the cone that adversarial images live in.
#
# ### The boundary between two images
#
# Straight lines between test images of different classes cross the boundary somewhere.
# There we measure the angle of incidence, and how the boundary bends: {doc}`../07_decision_boundaries/lesson` goes a distance $r$ into the tangent plane and looks how far along the normal the boundary lies from there, the height $h$.
# A sphere of radius $R$ has left its tangent plane by $h \approx r^2 / 2R$, so we call $R = r^2 / 2h$, with the median height over places and directions, the *radius of curvature* at the scale $r$, `bend_reach` of the profile.
# Chapter 7 uses the name for something else, the radius at which $h$ reaches a tenth of $r$; the two numbers cannot be compared.
# Where the boundary is not found within $r$, the height counts as $r$.
#
# ### The kernel of training
#
# {doc}`../06_path_kernel/lesson` writes a network as a kernel machine over its training images, with a kernel that is summed along the path of training.
# Such a path holds the weights before every step.
# The {doc}`evidence <evidence>` says how much that would be for the networks of this page, all of them together.
# What stands in the way even where that is little: the theorem, as the package has it, wants one loss of each image's scores over fixed images.
# The Magnet loss couples the images of a batch, and QTRADES, their sum and the yardstick train on images that move: four of the seven losses do not fit.
# A mass that only some of the networks have orders too few, so the path kernel's mass is *not run* here, and no number stands in for it.
#
# What can be had of every plain chain of layers is the kernel at the path's end: the tangent kernel of the trained weights.
# We read all networks alike, by the scores $2 f(x)^\top m_k - \lVert m_k \rVert^2$ with the class means $m_k$, and ask how well a query's kernel mass over training images, divided by the length of the query's own gradient, tells test images from outsiders.
#
# ### Measured robustness
#
# The judge of all others is the modern protocol ({doc}`../02_softrmax/lesson`): attacks with several losses, towards all classes, with and without gradients, by transfer from the nominal network; an image counts as right if nothing breaks it.
# The budget is cut to what the machine of each profile can pay for all networks, and what it leaves out is not run.

# %% tags=["hide-input"]
run.show("table-protocol")

# %% [markdown]
# ## The matrix
#
# All numbers side by side, the mean over the seeds in each cell.
# The colour is the rank within the row, turned so that dark blue is the side that the paper's story calls robust; grey cells have no number, and the table below it says why.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Matrix of all probes, one a row, by all networks, one a column, with the worst case of the protocol above the line. Numbers in the cells are means over seeds; the colour is the rank within the row, dark blue on the side that the probe's paper calls robust. Where a probe is not defined, the cell is grey."}}
run.show("fig-matrix")

# %% tags=["hide-input"]
run.show("table-undefined")

# %% [markdown]
# The sign after each name is the story's: (+) if more of it should mean more robust.
# Where a column that is dark in the first row is pale further down, a story and the measurement part.
#
# ### What it cost
#
# Seconds of each unit, mean over the seeds, as they were when the unit was computed.

# %% tags=["hide-input"]
run.show("table-seconds")

# %% [markdown]
# ## Which probe predicts robustness?
#
# The core of the answer is three lines: the ranks of one row of the matrix, the ranks of the first row, and their correlation.

# %%
persistence, robust = [2.1, 2.6, 3.4], [0.00, 0.13, 0.62]  # three networks, made up
ranks = np.array([rankdata(persistence), rankdata(robust)])
correlation = np.corrcoef(ranks)[0, 1]  # 1: both order the networks alike
print(correlation)

# %% tags=["hide-input"]
by_hand, packaged = run.evidence.kept["by hand"]
run.say(
    "Of natural persistence and the worst case, over the networks of this page, these "
    f"three lines give {by_hand:.3f}, and the package gives {packaged:.3f}."
)

# %% [markdown]
# What makes it hard is the number of networks.
# Runs of one network differ by their seeds only: they are no new networks, so the number that counts is that of the columns, and everything below treats it so.
#
# - The *interval* holds the correlations of a whole population of networks under which the order that we see is not too rare (for ranks of normal draws). It treats the networks as drawn from something, and they were chosen. It is wide enough for the intervals of all probes to hold together.
# - The *p-value* deals out the robustness of the networks in every possible order and counts how often a correlation as far from zero arises. Holm's correction then pays for having asked about so many probes.
# - *Clean accuracy* goes along with many things. So we repeat the question twice: with what a straight line in the ranks of clean accuracy leaves (a partial rank correlation), and among the networks alone whose clean accuracy lies within `matched_points` of the best.
# - The *share of ordered pairs* asks in plain words: of two networks, how often does the probe name the more robust one?
#
# All numbers are turned so that positive means: as the story says.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: rank correlation of each probe with the protocol's worst case, its sign turned so that positive agrees with what the probe's paper tells, with intervals; open diamonds, where drawn, are partial correlations given clean accuracy. Right: share of pairs of networks that each probe orders as the protocol does, with a dotted line at one half."}}
run.show("fig-correlations")

# %% tags=["hide-input"]
run.show("table-correlations")

# %% [markdown]
# ### How sure can so few networks make us?
#
# The figure deals out the robustness of the networks in every order, for all probes at once, and notes the largest correlation that appears in any of them.
# That is what the best of so many probes looks like when none of them knows anything.
#
# The other side of it is what can be found at all.
# With the three networks of the quick profile nothing can: even if they come in exactly the order that a story tells, one order in six does so by chance.
# A probe that only five networks have cannot be decided either.
# So "undecided" on this page mostly means "too few networks to tell", and each row says how probable a decision was.

# %% tags=["hide-input"]
weaker, stronger = run.evidence.kept["power"]
run.say(
    "If a probe had a rank correlation of .8 with robustness among all networks, the "
    f"networks of this page would show it with a probability of {weaker:.0%}; at .9, "
    f"with {stronger:.0%}."
)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Histogram of the largest absolute rank correlation over all probes when robustness is dealt out to the networks at random, with vertical lines at the 95 percent quantile and at the largest one found."}}
run.show("fig-chance")

# %% tags=["hide-input"]
kept = run.evidence.kept
beyond = ", ".join(kept["beyond"]) or "none"
run.say(
    f"To be exceeded by chance once in twenty times, the best of {kept['complete']} "
    f"probes has to reach a correlation of {kept['needed']:.2f}; the strongest one "
    f"reaches {kept['strongest']:.2f}. Beyond it: {beyond}."
)

# %% [markdown]
# ## What did not reproduce, and why
#
# These are questions, so nothing here is reproduced or not.
# A story is answered with *yes* or *no* only where its interval leaves zero out.
# A probe may also go along with robustness only because it goes along with clean accuracy; the table says where that has not been told apart.
# The sign of an undecided correlation is no finding.

# %% tags=["hide-input"]
run.show("table-stories")

# %% [markdown]
# Whatever the table says, it says of the networks in it.
# They were chosen because five papers made them, not drawn from all networks there are.
# Of the eight, half come from one paper.
# And those that meet an adversary in training meet it in the protocol's own norm and radius, so any quantity which adversarial training happens to change will look like a predictor.
# A story with a yes has passed a first test, which is no law; an undecided one has not been shown to be wrong.
#
# Two limits lie in the probes themselves.
# Quantities in feature space have no unit in pixels: a loss that draws features to their centres can do so without moving any image away from the boundary.
# Only those that divide by a slope, as the ratio $R$ and the certificate do, can know how far an image is from it, and the certificate divides by a bound on the steepest slope anywhere.
# Quantities that are measured along an attack, such as the skewness of attacks, describe the attack's box and norm as well as the network.
#
# What would settle more is plain: more networks, made by more ideas than five papers have, at matched clean accuracy.
# The number of probes is no substitute for them; each one more raises the bar of the figure above.

# %% tags=["hide-input"]
run.show_verdicts()

# %% tags=["hide-input"]
run.finish()
