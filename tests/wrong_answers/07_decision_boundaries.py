# %% [markdown]
# Plausible wrong answers to the graded exercises of "Decision boundaries", with the points that each must get.
# ruff: noqa: F811, F821


# %% exercise="bracket" mistake="compares the middle with the class of b" points=2
def bracket(classify, a, b, steps):
    other = classify(b)
    near, far = np.zeros(len(a)), np.ones(len(a))
    for _ in range(steps):
        middle = (near + far) / 2
        crossed = classify(a + middle[:, None] * (b - a)) == other
        near, far = np.where(crossed, near, middle), np.where(crossed, middle, far)
    return near, far


# %% exercise="bracket" mistake="bisects one segment after the other" points=3
def bracket(classify, a, b, steps):
    places = []
    for start, end in zip(a, b, strict=True):
        near, far = 0.0, 1.0
        own = classify(start[None])[0]
        for _ in range(steps):
            middle = (near + far) / 2
            if classify((start + middle * (end - start))[None])[0] == own:
                near = middle
            else:
                far = middle
        places.append((near, far))
    return np.array(places).T


# %% exercise="bracket" mistake="one step too few" points=1
def bracket(classify, a, b, steps):
    own = classify(a)
    near, far = np.zeros(len(a)), np.ones(len(a))
    for _ in range(1, steps):
        middle = (near + far) / 2
        stays = classify(a + middle[:, None] * (b - a)) == own
        near, far = np.where(stays, middle, near), np.where(stays, far, middle)
    return near, far


# %% exercise="ties" mistake="joins the two pictures with a jump" points=3
def tied_scores(z):
    touch = np.stack([0 * z[:, 0], -((z[:, 0] + 2) ** 2) - z[:, 1] ** 2, -1 + 0 * z[:, 0]], 1)
    meet = np.stack([z[:, 0] - 2, 2 - z[:, 0], z[:, 1]], 1)
    return np.where(z[:, :1] < 0, touch, meet)


# %% exercise="ties" mistake="the scores cross at A" points=1
def tied_scores(z):
    cross = np.stack([z[:, 0] + 2, -z[:, 0] - 2, -1 + 0 * z[:, 0]], 1)
    meet = np.stack([z[:, 0] - 2, 2 - z[:, 0], z[:, 1]], 1)
    share = np.clip(-z[:, :1], 0, 1)
    return share * cross + (1 - share) * meet


# %% exercise="ties" mistake="a boundary near B, not at it" points=2
def tied_scores(z):
    touch = np.stack([0 * z[:, 0], -((z[:, 0] + 2) ** 2) - z[:, 1] ** 2, -1 + 0 * z[:, 0]], 1)
    cross = np.stack([z[:, 0] - 2.005, 2.005 - z[:, 0], -9 + 0 * z[:, 0]], 1)
    share = np.clip(-z[:, :1], 0, 1)
    return share * touch + (1 - share) * cross


# %% exercise="midpoint" mistake="no third point nearer to both ends than they are to each other" points=1
def direct_edges(points):
    squares = ((points[:, None] - points[None]) ** 2).sum(2)
    seen = (np.maximum(squares[:, None, :], squares[None, :, :]) < squares[:, :, None]).any(2)
    return ~seen & ~np.eye(len(points), dtype=bool)


# %% exercise="midpoint" mistake="all Delaunay edges" points=0
def direct_edges(points):
    from scipy.spatial import Delaunay

    out = np.zeros((len(points), len(points)), dtype=bool)
    for simplex in Delaunay(points).simplices:
        for i, j in itertools.permutations(simplex, 2):
            out[i, j] = True
    return out


# %% exercise="midpoint" mistake="the whole edge as radius of the ball over it" points=0
def direct_edges(points):
    out = np.zeros((len(points), len(points)), dtype=bool)
    for i, j in itertools.permutations(range(len(points)), 2):
        away = np.linalg.norm(np.delete(points, [i, j], 0) - (points[i] + points[j]) / 2, axis=1)
        out[i, j] = (away > np.linalg.norm(points[i] - points[j])).all()
    return out


# %% exercise="weights" mistake="the triangle of the three nearest points" points=1
def label_weights(points, labels, queries, classes):
    out = np.zeros((len(queries), classes))
    for q, query in enumerate(queries):
        trio = np.linalg.norm(points - query, axis=1).argsort()[:3]
        shares = np.linalg.solve(np.vstack([points[trio].T, np.ones(3)]), [*query, 1])
        if (shares >= 0).all():
            np.add.at(out[q], labels[trio], shares)
    return out


# %% exercise="weights" mistake="the first triangle that holds the query" points=1
def label_weights(points, labels, queries, classes):
    out = np.zeros((len(queries), classes))
    for q, query in enumerate(queries):
        for trio in itertools.combinations(range(len(points)), 3):
            shares = np.linalg.solve(np.vstack([points[list(trio)].T, np.ones(3)]), [*query, 1])
            if (shares >= 0).all():
                np.add.at(out[q], labels[list(trio)], shares)
                break
    return out


# %% exercise="weights" mistake="the smallest triangle that holds the query" points=2
def label_weights(points, labels, queries, classes):
    out = np.zeros((len(queries), classes))
    for q, query in enumerate(queries):
        best, least = None, math.inf
        for trio in itertools.combinations(range(len(points)), 3):
            corners = points[list(trio)]
            matrix = np.vstack([corners.T, np.ones(3)])
            shares = np.linalg.solve(matrix, [*query, 1])
            around = sum(np.linalg.norm(corners[i] - corners[i - 1]) for i in range(3))
            if (shares >= 0).all() and around < least:
                best, least = (list(trio), shares), around
        if best:
            np.add.at(out[q], labels[best[0]], best[1])
    return out


# %% exercise="wedge" mistake="alternating projections without a correction" points=4
def nearest_in_wedge(x, normals):
    at = x.copy()
    for _ in range(200):
        for normal in normals:
            at = at - np.minimum(at @ normal, 0)[:, None] * normal
    return at


# %% exercise="wedge" mistake="projects onto all violated planes at once" points=2
def nearest_in_wedge(x, normals):
    out = x.copy()
    for one in out:
        violated = normals[normals @ one < 0]
        if len(violated):
            one -= np.linalg.pinv(violated) @ (violated @ one)
    return out


# %% exercise="wedge" mistake="one sweep over the faces" points=2
def nearest_in_wedge(x, normals):
    at = x.copy()
    for normal in normals:
        at = at - np.minimum(at @ normal, 0)[:, None] * normal
    return at


# %% exercise="spectrum" mistake="the variance of the corner itself, wherever the centre is" points=1
def orthant_spectrum(k, n, d, sigma, centred):
    mean, variance = d + sigma / math.sqrt(2 * math.pi), sigma**2 * (0.5 - 0.5 / math.pi)
    values = np.array([variance] * k + [sigma**2] * (n - k))
    values[0] += 0 if centred or not k else k * mean**2
    return np.sort(values)[::-1]


# %% exercise="spectrum" mistake="forgets that the coordinates share their mean" points=3
def orthant_spectrum(k, n, d, sigma, centred):
    r = d / sigma
    mean = d * norm.cdf(r) + sigma * norm.pdf(r)
    second = (d**2 + sigma**2) * norm.cdf(r) + d * sigma * norm.pdf(r)
    return np.sort([second - centred * mean**2] * k + [sigma**2] * (n - k))[::-1]


# %% exercise="spectrum" mistake="sign of the density in the second moment" points=1
def orthant_spectrum(k, n, d, sigma, centred):
    r = d / sigma
    mean = d * norm.cdf(r) + sigma * norm.pdf(r)
    variance = (d**2 + sigma**2) * norm.cdf(r) - d * sigma * norm.pdf(r) - mean**2
    values = np.array([variance] * k + [sigma**2] * (n - k))
    values[0] += 0 if centred or not k else k * mean**2
    return np.sort(values)[::-1]


# %% exercise="drop" mistake="takes the corner for symmetric, as a plane is" points=1
def corner_persistence(d, k, gamma):
    return abs(d) / norm.ppf(gamma ** (1 / k)) if 2.0**-k < gamma else math.inf


# %% exercise="drop" mistake="no infinite persistence" points=3
def corner_persistence(d, k, gamma):
    return abs(d / norm.ppf((gamma if d > 0 else 1 - gamma) ** (1 / k)))


# %% exercise="drop" mistake="the union bound in place of the product" points=0
def corner_persistence(d, k, gamma):
    return abs(d) / norm.ppf(1 - (1 - gamma) / k)
