"""Decision boundaries and decision regions: where they are, how they bend, where they end, and test
objects whose boundary is known.

- :mod:`~support.geometry.crossings` finds boundary points by bisection, samples the boundary around
  them, and measures normals, angles of incidence and curvatures;
- :mod:`~support.geometry.wedges` has orthants and wedges with exact projections, the alternating
  projections of bell2023 beside them;
- :mod:`~support.geometry.spectra` has singular values of boundary samples with a null model;
- :mod:`~support.geometry.delaunay` has the Voronoi and the weighted Delaunay classifier and the
  edges of a triangulation;
- :mod:`~support.geometry.nullspace` has what a last layer cannot see (zou2018): directions that
  leave every output as it is, and regions that reach infinity.

The first four are at work in chapter 7 ("Decision boundaries"), the last in chapters 3 and 8. Wrong
input raises a ``ValueError`` that says what was given and what is wanted.
"""

from support.geometry.crossings import (
    BoundarySample,
    Crossing,
    bisect,
    boundary_sample,
    curvatures,
    fitted_normals,
    gradient_normals,
    heights,
    incidence,
    incidence_null,
    tangent_frames,
)
from support.geometry.delaunay import (
    Triangulation,
    barycentric_weights,
    bounded_cells,
    delaunay_classifier,
    gabriel,
    simplex_quality,
    triangulate,
    voronoi_classifier,
)
from support.geometry.nullspace import (
    Region,
    adversarial_directions,
    cone_probability,
    cone_ray,
    null_share,
    parallel_pairs,
    region,
    rounding_bound,
)
from support.geometry.spectra import (
    Spectrum,
    boundary_spectrum,
    flat_spectrum,
    noise_range,
    noise_spectrum,
)
from support.geometry.wedges import (
    Faces,
    alternating_projections,
    dykstra,
    inside_lower_wedge,
    inside_wedge,
    project_violated,
    project_wedge,
    wedge_classifier,
    wedge_faces,
    wedge_normals,
    wedge_probability,
)

__all__ = [
    "BoundarySample", "Crossing", "Faces", "Region", "Spectrum", "Triangulation",
    "adversarial_directions", "alternating_projections", "barycentric_weights", "bisect",
    "boundary_sample", "boundary_spectrum", "bounded_cells", "cone_probability", "cone_ray",
    "curvatures", "delaunay_classifier", "dykstra", "fitted_normals", "flat_spectrum",
    "gabriel", "gradient_normals", "heights", "incidence", "incidence_null",
    "inside_lower_wedge", "inside_wedge", "noise_range", "noise_spectrum", "null_share",
    "parallel_pairs", "project_violated", "project_wedge", "region", "rounding_bound",
    "simplex_quality", "tangent_frames", "triangulate", "voronoi_classifier",
    "wedge_classifier", "wedge_faces", "wedge_normals", "wedge_probability",
]  # fmt: skip
