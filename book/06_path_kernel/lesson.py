# %% [markdown]
# # The path kernel
#
# A network that was trained by gradient steps has seen its training points only through inner products of gradients.
# So its output can be written as a sum over training points, each with a weight and a kernel value: a kernel machine.
# {cite:t}`domingos2020` says so for gradient flow, as an approximation; {cite:t}`bell2023` (part II) says it for the discrete steps that are really taken, as an *exact* identity, and calls the kernel the discrete path kernel.
#
# Three questions decide what the identity is worth.
# Exact for which points, and with which kernel: the text offers two, and one of them fails on the training set.
# What does it cost: the text computes all Jacobians at a hundred places of each step.
# And what does it say about a network that its author could not have said without it?
#
# This chapter derives the identity, computes it to rounding error at a small part of that cost, corrects the statement where it slips, and then uses it: to see which training images made a prediction, and to test what the text hopes for, from outliers to Gaussian processes.

# %% tags=["parameters", "hide-input"]
profile: str = "quick"  # quick, standard or paper: see data/profiles
seed: int = 0  # first random seed; the profile's `seeds` says how many follow
device: str = "cpu"  # cpu, cuda or auto
overrides: dict = {}  # fields of the profile to change, such as {"steps": 100}

# %% tags=["hide-input"]
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from support import data, path_kernel
from support.book import chapter_run

run = chapter_run.start("06_path_kernel/lesson", profile, seed, device, overrides)

# %% [markdown]
# ## What we check
#
# Each claim of part II has its row in the {doc}`evidence <evidence>`, with the few numbers that the text prints.
# *Identity* claims hold or fail on any computer; *questions* are announced by the text without an experiment; those here are ours.

# %% [markdown]
# ## One step
#
# Write $f_w(x) \in \mathbb{R}^K$ for the scores (not the features, as elsewhere in this book), $J_w(x)$ for their Jacobian with respect to the weights, one row per score, and $g_i = \partial L(f_{w_s}(x_i), y_i) / \partial f$ for the loss gradient of training point $i$ at the scores.
# A full-batch step of size $\varepsilon$ moves the weights to
#
# $$w_{s+1} = w_s + \Delta_s, \qquad \Delta_s = -\varepsilon \sum_{i=1}^{M} J_{w_s}(x_i)^\top g_i .$$ (eq-path-step)
#
# This is what equations (18) and (34) of the text mean; as printed they lose the sum over the points on one side and sum over the weights on the other.
# Now go from $w_s$ to $w_{s+1}$ on a straight line, $w_s(t) = w_s + t \Delta_s$.
# By the fundamental theorem of calculus and the chain rule, the scores of *any* input $x$ change by
#
# $$f_{w_{s+1}}(x) - f_{w_s}(x) = \int_0^1 J_{w_s(t)}(x)\, \Delta_s \, dt = -\varepsilon \sum_{i=1}^{M} \underbrace{\left( \int_0^1 J_{w_s(t)}(x) \, dt \right) J_{w_s}(x_i)^\top}_{k_s(x,\, x_i) \,\in\, \mathbb{R}^{K \times K}} g_i .$$ (eq-path-change)
#
# Nothing was approximated, and nothing was asked of $x$.
# Here it is in the open, on a small network of the plane, with the kernel of the package (`support.path_kernel`): we take one step by hand, ask the kernel what the step does to the scores of nine other points, and compare.

# %%
points, labels = data.two_gaussians(24, seed)
points, queries = points.double(), data.two_gaussians(9, seed + 1)[0].double()
net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()
epsilon, before = 0.003, net(queries).detach()

loss = nn.functional.cross_entropy(net(points), labels, reduction="sum")
slopes = torch.autograd.grad(loss, list(net.parameters()))
path = path_kernel.train_path(net, points, labels, lr=epsilon * 24, steps=1)
with torch.no_grad():  # the step, taken by hand
    moved = parameters_to_vector(net.parameters())
    vector_to_parameters(
        moved - epsilon * parameters_to_vector(slopes), net.parameters()
    )
kernel = path.kernel(queries)  # (query, training point, class, class)

# %% tags=["nbval-check-output"]
probabilities = path.model_at(0)(points).softmax(1).detach()
g = probabilities - nn.functional.one_hot(labels, 2)  # dL/df of each point
by_kernel = -epsilon * torch.einsum("nmkc,mc->nk", kernel, g)
by_network = net(queries).detach() - before
print("shape of the kernel:", tuple(kernel.shape))
print("they agree:", bool((by_kernel - by_network).abs().max() < 1e-12))

# %% [markdown]
# ## All steps, all points
#
# Summed over the steps, equation {eq}`eq-path-change` telescopes.
#
# ```{prf:theorem} Exact kernel representation
# :label: thm-path-kernel
#
# Let $w_0, \dots, w_S$ be the weights of a full-batch gradient descent with steps of size $\varepsilon$ on the summed loss, and let the scores be continuous and piecewise differentiable along each step.
# Then for every input $x$, in the training set or not,
#
# $$f_{w_S}(x) = f_{w_0}(x) + \sum_{s=0}^{S-1} \sum_{i=1}^{M} k_s(x, x_i)\, a_{i,s}, \qquad a_{i,s} = -\varepsilon\, g_{i,s} .$$
# ```
#
# Theorem 14.5 of the text differs in three places.
# It asks for a constant start $f_{w_0}(x) = b$, sums over $s = 1, \dots, N$, and takes a *symmetric* kernel: the weights of the second argument stay at $w_s$ where it is a training point, and so do those of the *first* argument where that is a training point.
# The last of these is not harmless, as the next section shows.
#
# How is the integral to be computed?
# The text takes the Jacobians at 100 values of $t$ between 0 and 1, it does not say which; we read them as the left ends of 100 equal pieces.
# Three observations do better.
#
# - **The free residual.** The integral's true value is known: it must give $f_{w_{s+1}}(x) - f_{w_s}(x)$. So every rule can be judged at each step, for each query, at no cost.
# - **Closed form.** With one hidden ReLU layer the pre-activations $z(t) = z + t\,\delta$ are linear in $t$, so each unit switches at most once in a step, at $t = -z/\delta$, and the integrals of $\mathbb{1}[z(t) > 0]\, t^k$ are powers of that place.
# - **Cuts at kinks.** Between kinks the scores of a ReLU network with $L$ layers are a polynomial of degree $L$ in $t$, so $\lceil L/2 \rceil$ Gauss-Legendre nodes are exact. Where the free residual says that a kink is near, the step is cut at the zero of the pre-activation that changes its sign.
#
# No Jacobian needs to be formed either.
# For a linear layer with input $a$ and back-flowing gradient $\delta$ the gradient is $\delta a^\top$, and $\langle \delta a^\top, \delta' a'^\top \rangle = (a^\top a')(\delta^\top \delta')$: two Gram matrices and an entrywise product (`support.path_kernel`).
#
# Beside the fast kernel stands its definition in ten lines, `path_kernel.ntk_by_jacobian`, which forms every Jacobian and against which it is tested.
#
# We train four kinds of network and compare the kernel machine with the network after every step, on points outside the training set.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Residual of each training step on a logarithmic axis for four networks: the method of this chapter (closed form, nodes, or cuts at kinks) stays at rounding error. A hundred left points, as in the text, lie several orders of magnitude above it in each panel."}}
run.show("fig-residuals")

# %% [markdown]
# The rule of the text leaves a residual at every step that rounding does not explain; ours stays at rounding or within a few digits of it.
#
# ### On the training set
#
# Equation (14) of the text stops the clock for training points: there the first argument stays at $w_s$, too.
# In our notation that is one left node per step.
# The kernel becomes symmetric on the training set, and the sum is no longer the network's score.

# %% [markdown]
# So the theorem is exact off the training set with either kernel, and exact *on* it with the asymmetric kernel only.
#
# ### Other optimisers
#
# Nothing depended on the step being the gradient of all points at once.
# With minibatches the sum runs over the points of each batch.
# With momentum $\Delta_s$ is a sum of gradients of *earlier* steps, and with Adam each of its entries is scaled by what the optimiser remembers: the kernel pairs $J$ at step $s$ with $J$ at step $r \leq s$, through that scaling.
# The contributions of the training points are still exact sums; the package accumulates them from the last step back.

# %% [markdown]
# ## Two kernels
#
# The kernel $k_s(x, x')$ of equation {eq}`eq-path-change` averages its first argument over the step and takes the second at its start.
# It is continuous, exact everywhere, and not symmetric.
# The kernel of Definition 14.3 moves both arguments of two points outside the training set, and neither of two points inside; it is symmetric and positive semi-definite for each step, since it averages inner products.

# %% [markdown]
# A remark in section 17.1 calls the asymmetric kernel symmetric for points outside the training set.
# It treats its arguments in two ways whatever they are.

# %% [markdown]
# ### The jump
#
# Between two training points the symmetric kernel machine equals the network, and the network is continuous.
# At a training point it has another value: an isolated jump.
# On the left we walk along a line through a training point; on the right the step size is halved while the training time (step size times number of steps) stays.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: the network's score along a line, covered by the asymmetric kernel machine, and one dot away from it at the training point, the value of the symmetric kernel machine. Right: the height of the jump against step size on logarithmic axes, rising close to a line of slope one."}}
run.show("fig-jump")

# %% [markdown]
# Remark 1 goes on: the jump *is* the error between the discrete path and the gradient flow, for each step.
# Both can be computed for one step.
# The jump is $J_{w_s}(x)\Delta_s - (f_{w_{s+1}}(x) - f_{w_s}(x))$, the curvature of $f$ along the straight step.
# The flow follows the changing gradient instead; we approach it by 250 small steps over the same time.

# %% [markdown]
# They are different vectors, whichever the sign.
#
# And the last sentence of the remark, that the asymmetric function is a valid kernel *if and only if* averaged and first gradient agree, fails for $f_w(x) = w^2 x$.
# Its gradient is $2 w x$, its average over a step $(w_s + w_{s+1})\, x$: the two differ, and yet their product is a constant times $x x'$.

# %% [markdown]
# ## The start, and small steps
#
# *The start.* Definition 14.3 asks for a network with constant output at the start, for instance with a last layer of zeros.
# Otherwise, Remark 2 says, the representation is approximate, and converges rapidly as training goes on.
# The derivation above says something else: the kernel part is exact whatever the start, and a constant $b$ in place of $f_{w_0}(x)$ is wrong by $f_{w_0}(x) - b$ for ever.

# %% [markdown]
# *Small steps.* Remark 3 lets the step size tend to zero.
# The averaged gradient tends to the first one, and the path kernel to a sum of tangent kernels.
# For a smooth network the difference is proportional to the step size, with the Lipschitz constant of the *gradient* in front.
# The text has the Lipschitz constant of the model instead.
# The function $f_w = \sin(A w) / A$ shows why that is not enough: its Lipschitz constant is 1, and on the step from $0$ to $\pi / A$ its averaged gradient is 0 and the first one 1.
# A single unit $\max(wx, 0)$ needs no $A$: in a step that crosses $w = 0$ half-way the average is half the slope and the start none of it, however small the step is.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Averaged minus first gradient of a step against step size, logarithmic axes: the tanh network follows a line of slope one while steps are small. The ReLU network lies above it, farthest at middle step sizes."}}
run.show("fig-small-steps")

# %% [markdown]
# ## Several classes
#
# With $K$ scores the kernel of two points is a $K \times K$ matrix: every class of the query against every class of the training point.
# The text derives this correctly in (89) to (93), and then leaves it: (100) has a loss gradient of $-1$ at the label and 0 elsewhere, and (102) keeps equal classes only.
# For scores under the softmax the loss gradient is $p - y$, with an entry for every class, and the blocks off the diagonal are not zero.

# %% [markdown]
# ## One kernel machine, or an ensemble?
#
# The representation has a weight $a_{i,s}$ for every point *and step*.
# Section 17.3 asks when it is a single kernel machine $\sum_i \alpha_i K(x, x_i)$, and answers: when the signs of $a_{i,s}$ do not change with $s$, as under binary cross-entropy.
# The signs are indeed constant there.
# But the candidate $K(x, x_i) = \sum_s |a_{i,s}|\, k_s(x, x_i)$ weighs each step by its *second* argument, and is not symmetric even if every $k_s$ is.

# %% [markdown]
# To weigh by both arguments mends it: $\sum_s \alpha_s(x)\, \alpha_s(x')\, k_s(x, x')$, with $\alpha_s(x_i) = |a_{i,s}|$ for a training point and 1 for any other, is symmetric and positive semi-definite where every $k_s$ is, and off the training set the machine is the same.
#
# What is always true needs no sign.
# Let $\Phi(x)$ hold the averaged gradients of all steps, one after the other.
# The prediction is $f_{w_0}(x)$ plus one linear functional of $\Phi(x)$, with a dual point for every pair $(x_i, s)$: a kernel machine on $M \cdot S$ points.
#
# ## What the kernel sees in the plane
#
# Figure 20 of the text has two Gaussians with 2000 points each.
# The kernel machine is the network again; what is new is what its kernel looks like.
# We sum the kernel over steps that are spread evenly over the path (`kernel_steps` of the profile), where the text takes every step, and take the trace over the two classes.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: two overlapping clouds of points in the plane. Right: probability of the first class by the kernel machine against the network's, all on the diagonal."}}
run.show("fig-plane")

# %% [markdown]
# Figure 21 colours the training points by their kernel value with a test point, for two test points inside the distribution and two outside, and reads off that the sum is lower outside.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Four panels of the two clouds coloured by kernel value with a test point marked by a star: two test points at the class means, one far above at (4, 15) and one far below at (-8, -8). The logarithmic colour scale is shared; the far point above has the largest values."}}
run.show("fig-stars")

# %% [markdown]
# Of the two points outside, the text names (4, 15) only; the other is our choice.
# The two need not agree: outside is not one thing to this kernel.
# The gradient of a ReLU network with respect to its first layer is proportional to the input, so kernel values grow with the distance from the origin in directions in which the units are active that training points use.
# Elsewhere they need not grow.

# %% tags=["hide-input"]
ring, normalised = (
    run.found("bell2023.fig21", f"auc_{which}")
    for which in ("in_against_out", "normalised")
)
run.say(
    "Ranked by the mean kernel value, points inside are told from a whole ring of "
    f"points outside with an area under the curve of {ring:.2f}; after the length of "
    f"the query's own gradients is divided out, with {normalised:.2f}."
)

# %% [markdown]
# The kernel is non-stationary, too: over pairs of points with one and the same displacement, its value varies by the factor in the row that follows it.

# %% [markdown]
# ## Images
#
# The network of section 15.2 has two layers and ReLU, trained by full-batch gradient descent on images.
# Its step has a closed form, so that nothing but rounding separates the kernel machine's scores from the network's.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: scores by the kernel machine against the network's scores on test images, all on the diagonal. Right: cumulative distribution of their difference on a logarithmic axis, at rounding error for the closed form and many orders of magnitude larger for 100 left points per step."}}
run.show("fig-images")

# %% [markdown]
# ### What it costs
#
# The prediction needs no pair of points at all: the training points are summed once a step, whatever the number of queries.
# The contributions of single points need every pair.
# The number of operations of either grows at most linearly in queries, training points and steps; each time in the figure is one short measurement, and single ones stand out from their line.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three panels of computing time of predictions and contributions against number of queries, of training points and of steps in doubled sizes, on logarithmic axes with a dotted line of slope one. A fourth shows the memory held against the number of steps."}}
run.show("fig-cost")

# %% [markdown]
# ### Neighbours
#
# The nearest training image in the kernel is the one with the largest kernel value.
# Beside it stand the nearest by the cosine of the same gradients, which no long gradient can win by its length, and the nearest in pixels.

# %% tags=["hide-input"] mystnb={"image": {"alt": "A row of test images; in the rows below, the nearest training image of each by kernel value, by the cosine of gradients, and in pixels, with their labels."}}
run.show("fig-neighbours")

# %% [markdown]
# An inner product favours training images with long gradients, whatever the query: the count of different neighbours says how often the same ones win.
# To be another neighbour than in pixels is no finding by itself, for an image drawn at random would be another one, too; so the row asks as well whether the neighbour has the label of the test image more often than a random image has.
#
# ## Which training points made this prediction?
#
# The contributions $\sum_s k_s(x, x_i)\, a_{i,s}$ of the training points add up to the change of the scores, exactly.
# We look at the score of the predicted class minus the mean over the classes, and show the training images that raised it most, and those that lowered it most.
# The first row of each pair is a test image; the second is the same image after PGD.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Test images and their adversarial versions in rows. Beside each: the four training images with the largest contributions to the predicted class, and the four with the most negative ones, with labels and contributions."}}
run.show("fig-contributions")

# %% [markdown]
# The positive columns hold images of the predicted class and the negative ones images of its rivals, for the adversarial images as well: the kernel machine explains a wrong answer as smoothly as a right one.
#
# When were the contributions made?
# The table splits the sum of their absolute values by thirds of the training.

# %% tags=["hide-input"]
run.show("table-phases")

# %% [markdown]
# ### Does taking a point out do what its contribution says?
#
# A contribution says what a point *added* along this path.
# The question of importance is another one: what would the network say had the point not been there?
# We answer it by retraining without the point, from the same start, with the same step on every other point, and compare four predictions of that change:
#
# - the **path** contribution, with its sign turned;
# - **TracIn** {cite:p}`pruthi2020`: the same sum, at eight checkpoints, with both gradients at the checkpoint;
# - **influence functions** {cite:p}`koh2017`: a Newton step at the end, here with the Gauss-Newton matrix in its dual form and a damping of a thousandth of its mean eigenvalue;
# - the **final tangent kernel** times the final loss gradient.
#
# A share of the training labels is wrong, so that some points deserve to be found.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Four scatter plots of the change of a score found by retraining when one training point is left out, against the predicted change, in units of their spread: predicted by path contributions, TracIn, influence functions and the final tangent kernel."}}
run.show("fig-leave-out")

# %% [markdown]
# Two numbers of its row are to be read together: whether taking out many of the largest contributors changes the answer, and whether single contributions rank single absences.
# The first does not imply the second, for the points that stay take over a part of the work.
# Nor is the first what it seems: with ten classes, a twentieth of the training points is about half of one class, and the largest contributors to a class are mostly its own images.
# To take them out comes close to deleting the class, whose answer may change for that; so the fair comparison is with as many random images *of that class*, and the row has it.
# The other scores of the row say what the whole path is worth here: TracIn needs eight checkpoints of it, and the final tangent kernel one.
# A point that had to be learnt against its neighbours had to do the work itself: does a point's contribution to its *own* label find the wrong labels?

# %% tags=["hide-input"]
name = "auc_wrong_labels_by_self_contribution"
found = run.found("bell2023.sample-importance", name)
run.say(f"The area under its curve is {found:.2f}, where chance has 0.5.")

# %% [markdown]
# Here are the training images with the largest such contribution; titles give the label trained on and the true one.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Sixteen training images with the largest contribution to their own label, titled with the label that was trained on and the true one; some of them differ."}}
run.show("fig-wrong-labels")

# %% [markdown]
# Which points made a wrong label's prediction?
# For three training images with wrong labels, the next figure has the contributions to the score of the label that they were given.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three training images with wrong labels in rows. Beside each: the four training images with the largest contributions to the wrong label, the image itself among them, and the four with the most negative ones."}}
run.show("fig-taught")

# %% [markdown]
# ## The path itself
#
# Figure 24 of the text goes straight from the random start of a convolutional network to its trained state, and draws loss, accuracy, squared norm and the gradient along that line.
# From the norm it concludes that learning is dominated by angle; and the titles of sections 20 to 24, which have no text, make further statements about paths.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Along the line from random to trained weights: accuracy rises, loss falls, the squared norm grows smoothly, and the gradient's component along the line is negative, in places close to zero."}}
run.show("fig-line")

# %% [markdown]
# That almost all of the move is off the radius is no finding: of a random move it is even more, as the row shows beside it.
#
# The sections with titles only are measured on the two-layer network, whose path we have in full.
# *Section 20*: the share of pairs of a training image and a step at which the image's own downhill direction points towards the final weights.
# *Section 21*: the cosine between the gradients of neighbouring steps.
# *Section 23*: the length of the path over the length of its chord.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: histograms of the training images' pull towards the final weights at the first and at a late step; at the first step some lie below zero. Right: cosine between the gradients of neighbouring steps, along the training."}}
run.show("fig-facts")

# %% [markdown]
# ### Are interpolated networks robust?
#
# Section 24 is a title: linearly interpolated weights "yield robust models".
# First the reading that its time would have had, accuracy under one gradient step (FGSM) along the line; then, for the place that does best and for the trained end, the modern protocol.
# The place that does best is chosen under FGSM on training images, and compared on test images.
# The protocol is run for one network and few images, so that a difference of a few images between its two columns says nothing.
# Beside its accuracies stand its tests for masked gradients, one panel each.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Accuracy of the networks on the line from random to trained weights, on clean training images and on test images under FGSM."}}
run.show("fig-fgsm")

# %% tags=["hide-input"]
run.show("table-protocol")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Accuracy of the interpolated and the trained network under each row of the modern protocol, and a panel for each masking flag with the numbers behind it."}}
run.show("fig-protocol")

# %% [markdown]
# ## What the kernel was hoped for
#
# ### Projections onto convex hulls
#
# Section 16 says that image classification has been represented by projection onto the convex hull of training data (its references are blank), and that the kernel's spatial view can be compared with that.
# We read it as the classifier that answers with the class whose training images have the nearest convex hull, and compare its answers with the network's.
# The kernel enters only in so far as its predictions are the network's; its view of space is not compared.
# Each projection is a small quadratic programme.

# %% [markdown]
# ### Outsiders
#
# Images out of distribution should have little kernel mass, the sum of their kernel values over the training set.
# Two scores that need no path compete: the largest score of the network, and the distance to the tenth neighbour among the training images' features.
# The normalised mass divides by the length of the query's own gradients.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Histograms of four scores for test images and images out of distribution: kernel mass, normalised kernel mass, largest score of the network, and distance to feature neighbours with its sign turned."}}
run.show("fig-outsiders")

# %% [markdown]
# An image with many bright pixels has long gradients, and long gradients make a large mass, whatever the image shows.
# That alone does not explain the ranking: the normalised mass has the length of the query's gradients divided out, and where its area is close to that of the mass, what ranks the images is the *direction* of their gradients, against those of the training images.
# An area below one half says that the outsiders' gradients agree with those of the training images better than the gradients of test images do.
# Which outsiders are taken decides: the profile's field `outside` names them, pixels in another order or Fashion-MNIST.
#
# ### A Gaussian process
#
# The abstract promises uncertainty from Gaussian process regression with this kernel; the text has no such experiment.
# Ours takes a symmetric kernel as the covariance of one process per class: the tangent kernel at the start of a step (one left node for *all* points, trained on or not), traced over the classes and summed over `kernel_steps` steps that are spread over the path.
# It regresses the labels (1 for the class, 0 for the others), and chooses signal and noise variance by the marginal likelihood.
# We ask three things: do its 90 % intervals hold 90 % of the test targets, and is its variance larger for outsiders and for adversarial images?

# %% tags=["hide-input"] mystnb={"image": {"alt": "Histograms of the Gaussian process's predictive standard deviation for test images, adversarial images and images out of distribution."}}
run.show("fig-process")

# %% [markdown]
# For each image all targets but one are zero and easy, so that a coverage that is pooled over the classes says little; the row asks for the target of the true class, and has the pooled share beside it.
#
# ### Dropout
#
# Section 18 consists of two sentences and "insert figure(s)": with dropout on, the line from an image of one class to one of another visits further classes, and the places of the crossings have a Gaussian histogram.
# We train a network with dropout, draw one mask for each line, the same at all its places, and note every change of the predicted class.
# A mask is a network of its own, with boundaries of its own; new masks at every place would count the noise of the prediction as well.
# A further class is one that this network gives to neither end of the line.
#
# A place between 0 and 1 cannot be Gaussian exactly, and a distance between distributions hardly tells a bell from a triangle here.
# The row has the excess kurtosis instead: 0 of a Gaussian, $-0.6$ of a triangle, $-1.2$ of a uniform distribution.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Histogram of the places on the line between two images where the predicted class changes, with dropout on and off, and the Gaussian with the same mean and spread as the former."}}
run.show("fig-dropout")

# %% [markdown]
# ## What did not reproduce, and why
#
# The table collects the verdicts, with the corrections of the claims registry.

# %% tags=["hide-input"]
run.show_verdicts()

# %% [markdown]
# The identity itself stands, and is sharper than the text has it: exact for every point, every start, any number of classes and every optimiser whose steps are made of gradients, with the asymmetric kernel.
# What fails are the statements that want more of it: symmetry and exactness at the same time, a single kernel machine of the form that is printed, a bound by the Lipschitz constant of the model, a start that ceases to matter.
#
# A caution goes with the rest.
# An identity that holds for every trained network cannot by itself tell a good network from a bad one, nor a right prediction from a wrong one: the adversarial images are explained to the last digit.
# What the kernel adds is a decomposition, and its terms have to be tested like any other score: against retraining, against simpler scores for outsiders, against counted coverage.
#
# What this chapter does not settle: the exact networks and their training behind figures 20 to 24, whose details are not in the text, and the kernel of networks with batch normalisation, where the training points of a batch influence one another within the forward pass.

# %% tags=["hide-input"]
run.finish()
