"""The specification of a flow: what YAML, TOML, a mapping or Python says, as frozen models.

`reading.read_spec` reads and lints; building these models by hand is the Python form of the same.
Fields hold numbers and names only. Arrays are named under ``data`` and made by `data`.
"""

from typing import Annotated, Literal

from pydantic import Field

from temporal_fabric.flows.data_spec import Count, Data, Positive, Sizes, Slug, Weight
from temporal_fabric.requests.fields import EntryPoint, Items, Model

__all__ = [
    "Budget",
    "CertificationProfile",
    "Data",
    "FlowPolicy",
    "FlowSpec",
    "GapDial",
    "HoldoutSpec",
    "LensPolicy",
    "LensSpec",
    "MultiscaleSchedule",
    "OperatorSpec",
    "PhysicsSpec",
    "Slot",
    "SparsityPolicy",
    "Term",
]

Numbers = Annotated[tuple[float, ...], Items]
Boundary = Literal["periodic", "zero", "symmetric", "edge"]


class LensSpec(Model):
    """A transform W."""

    type: Literal["identity", "haar", "db4", "db8", "fourier", "graph"] = "identity"
    levels: Annotated[int, Field(ge=1, le=20)] = 1
    """Of a wavelet; each one halves every axis."""
    bands: Annotated[int, Field(ge=2, le=64)] = 4
    """Of a graph."""
    edges: Slug | None = None
    """Data with the graph's edges, rows of (from, to) or (from, to, weight)."""


class InvariantSpec(Model):
    """A number that should keep its value."""

    kind: Literal["sum", "mean", "norm", "own"] = "sum"
    entry_point: EntryPoint | None = None
    """package.module:function of the state, for ``own``."""
    tolerance: Positive | None = None


class Slot(Model):
    """A named array that the flow moves."""

    shape: Sizes
    initial: Slug | None = None
    """Data to start from; zeros (on a manifold: a random point) where unset."""
    reference: Slug | None = None
    """Data with the truth, where it is known: PSNR is told, and nothing else uses it."""
    manifold: Literal["euclidean", "sphere", "stiefel", "spd", "so3", "se3"] = "euclidean"
    product: bool = False
    """The first axis counts copies of the manifold."""
    invariants: dict[Slug, InvariantSpec] = Field(default={})


class IdentityOperator(Model):
    """A = I."""

    type: Literal["identity"]


class DenseOperator(Model):
    """A matrix on raveled arrays."""

    type: Literal["dense"]
    matrix: Slug
    """Data of (outputs, inputs)."""
    out_shape: Sizes | None = None


class MaskOperator(Model):
    """Pointwise multiplication."""

    type: Literal["mask"]
    entries: Slug
    """Data in the shape of the slot."""


class ConvolutionOperator(Model):
    """Convolution: circular by FFT, or separable with a boundary."""

    type: Literal["fft_convolution", "separable_convolution"]
    sigma: Positive | None = None
    """Of a Gaussian kernel, in pixels."""
    radius: Count | None = None
    """Where the Gaussian is cut off."""
    kernel: Slug | None = None
    """Data of odd length along each axis; separable: one axis, used for all."""
    boundary: Boundary = "periodic"


class GradientOperator(Model):
    """Forward differences."""

    type: Literal["gradient"]
    boundary: Literal["free", "periodic"] = "free"


class SumOperator(Model):
    """Sum of other operators."""

    type: Literal["sum"]
    parts: Annotated[tuple[Slug, ...], Items, Field(min_length=1)]


class CompositionOperator(Model):
    """Product of other operators; the last one acts first."""

    type: Literal["composition"]
    parts: Annotated[tuple[Slug, ...], Items, Field(min_length=1)]


class OwnOperatorSpec(Model):
    """A linear function of the user's own."""

    type: Literal["own"]
    entry_point: EntryPoint
    """package.module:function of (parameters, x)."""
    adjoint: EntryPoint | None = None
    """Function of (parameters, y); derived by JAX where unset."""
    parameters: Slug | None = None
    out_shape: Sizes | None = None


OperatorSpec = Annotated[
    IdentityOperator
    | DenseOperator
    | MaskOperator
    | ConvolutionOperator
    | GradientOperator
    | SumOperator
    | CompositionOperator
    | OwnOperatorSpec,
    Field(discriminator="type"),
]


class _Term(Model):
    weight: Positive = 1.0
    variable: Slug = "x"
    name: Slug | None = None


class SmoothSpec(_Term):
    """weight * loss(A x): quadratic, tikhonov, huber or kl."""

    type: Literal["quadratic", "tikhonov", "huber", "kl"]
    operator: Slug = "identity"
    also: dict[Slug, Slug] = Field(default={})
    """More slots, with their operators: A x + B z."""
    target: Slug | None = None
    """Data; zero where unset."""
    width: Positive | None = None
    """Of huber."""
    background: Positive | None = None
    """Of kl."""


class QuadraticFormSpec(_Term):
    """weight * (x'Q x / 2 - b'x)."""

    type: Literal["quadratic_form"]
    operator: Slug
    linear: Slug | None = None


class L1Spec(_Term):
    """weight * |W x|_1, or the number of coefficients (l0)."""

    type: Literal["l1", "l0"]
    lens: LensSpec = LensSpec()
    scale_weights: Numbers = ()
    """A factor for each scale of the lens, the coarsest first."""


class WaveletL1Spec(_Term):
    """weight * |W x|_1 with a wavelet."""

    type: Literal["wavelet_l1"]
    wavelet: Literal["haar", "db4", "db8"] = "haar"
    levels: Annotated[int, Field(ge=1, le=20)] = 2
    scale_weights: Numbers = ()


class GroupSpec(_Term):
    """weight * sum of norms of groups."""

    type: Literal["group_l1"]
    lens: LensSpec = LensSpec()
    axes: Annotated[tuple[int, ...], Items] = ()
    """Axes that a group runs over."""
    labels: Slug | None = None
    """Data: the number of each entry's group."""


class TreeSpec(_Term):
    """weight * sum of norms of subtrees of wavelet coefficients."""

    type: Literal["tree"]
    wavelet: Literal["haar", "db4", "db8"] = "haar"
    levels: Annotated[int, Field(ge=1, le=20)] = 2


class TvSpec(_Term):
    """weight * total variation."""

    type: Literal["tv"]
    boundary: Literal["free", "periodic"] = "free"
    isotropic: bool = True


class ConstraintSpec(_Term):
    """x >= 0, low <= x <= high, or x on a simplex."""

    type: Literal["nonnegativity", "box", "simplex"]
    low: float | None = None
    high: float | None = None
    total: Positive = 1.0


Term = Annotated[
    SmoothSpec
    | QuadraticFormSpec
    | L1Spec
    | WaveletL1Spec
    | GroupSpec
    | TreeSpec
    | TvSpec
    | ConstraintSpec,
    Field(discriminator="type"),
]


class FlowPolicy(Model):
    """How the energy is descended."""

    family: Literal[
        "gradient", "preconditioned", "proximal", "accelerated", "primal_dual", "hamiltonian_damped"
    ] = "proximal"
    discretization: Literal["explicit", "symplectic"] = "explicit"
    step: Annotated[float, Field(gt=0, le=1.9)] | None = None
    """alpha * beta_up; 1.9 for plain steps, 1 for accelerated ones where unset."""
    restart: Literal["gradient", "value", "none"] = "gradient"
    dual_step: Positive | None = None
    """sigma of primal_dual; balanced with tau where unset."""
    friction: Positive | None = None
    """c of hamiltonian_damped; a tenth of the square root of beta_up where unset."""
    preconditioner: Slug | None = None
    """``jacobi``: row sums of the Hessian; or data with the metric, one number a coefficient."""
    polish: Count | None = None
    """Iterations of phase 3, in float64; kept only where the energy fell and every check holds."""


class MultiscaleSchedule(Model):
    """When scales of the lens begin to move."""

    mode: Literal["residual_driven", "fixed_schedule"] = "residual_driven"
    levels: Annotated[int, Field(ge=1, le=20)] | None = None
    """Scales that take part; all of the lens where unset."""
    tau: Positive = 0.5
    """residual_driven: a scale joins when its residual is above tau times that of the others."""
    every: Count = 20
    """fixed_schedule: iterations for each scale."""


class SparsityPolicy(Model):
    """What sparsity means for this flow, over what its terms say."""

    penalty: Literal["l1", "group_l1", "tree"] | None = None
    """Of the sparse terms; as they are written where unset."""
    thresholding: Literal["soft", "hard"] = "soft"
    """``hard`` counts coefficients (l0) in place of adding them up; no longer convex."""
    adaptive_rule: Literal["none", "median", "mad"] = "none"
    """Lets the tuner look for the lambda that noise alone does not pass, sigma sqrt(2 log n), with
    sigma from the data's finest coefficients: the median of moduli, or that about the median."""


class PhysicsSpec(Model):
    """Equations P x = q that the result should satisfy; measured, never enforced."""

    operator: Slug
    variable: Slug = "x"
    target: Slug | None = None
    """Data with q; zero where unset."""
    tolerance: Positive = 1e-3


class HoldoutSpec(Model):
    """Data that no term has seen, to hold the result against: A x = q up to noise."""

    operator: Slug = "identity"
    variable: Slug = "x"
    target: Slug
    """Data with q."""
    noise: Positive
    """Its standard deviation."""
    entries: Slug | None = None
    """Data in the shape of q: what is not 0 in it is held out; all of q where unset."""


class LensPolicy(Model):
    """The lenses to choose from: they are probed at the start, and tried in that order.

    The best one is taken before the first certificate; the others are remedies for eta_dd.
    """

    candidates: Annotated[tuple[LensSpec, ...], Items, Field(min_length=1)]
    """At most one of each type."""
    probe_metrics: Annotated[
        tuple[Literal["compressibility", "reconstruction_error"], ...], Items
    ] = ("compressibility", "reconstruction_error")
    rule: Literal["most_compressible", "min_reconstruction_error"] = "most_compressible"


class GapDial(Model):
    """The gates of the strict profile, and what the tuner may do."""

    eta_max: Positive = 0.9
    """Bound of eta_dd; of the strict profile only."""
    gamma_min: Weight = 1e-6
    """Bound of gamma_low; of the strict profile only."""
    beta_estimator: Literal["power", "lanczos"] = "lanczos"
    """Where no structure gives a bound; ``power`` is refused: it proves nothing from above."""
    per_scale_seed: Literal["median", "mad"] | None = None
    """Weigh the scales before the first certificate, by the spread of their coefficients."""
    lambda_move_cap: Annotated[float, Field(gt=0, le=0.2)] = 0.2
    """Largest relative move of a lambda."""
    target_sparsity: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of zero coefficients that the tuner looks for; there is no tuner where unset."""


class CertificationProfile(Model):
    """Which claims are wanted, and how tight; verdicts are `certificates`' business."""

    profile: Literal[
        "strict", "strongly_convex", "convex", "nonconvex", "manifold", "hamiltonian"
    ] = "strict"
    tolerances: dict[Slug, float] = Field(default={})
    """Bounds that replace the profile's own."""
    mu_max: Weight = 0.0
    """Largest Tikhonov weight that may be added to open a gate; it changes the energy, and is
    recorded. None where unset."""
    refinement_test: bool = False
    """Solve the flow on two coarser meshes too, and say whether the energy depends on the mesh."""
    refinement_order: Positive = 2.0
    """Of the discretisation, as it is expected."""
    refinement_tolerance: Positive = 1e-2
    """For the grid index, relative to the energy."""


class Budget(Model):
    """When a run ends though nobody stopped it."""

    iterations: Count = 1000
    wall_s: Positive | None = None
    trials: Count | None = None
    rollbacks: Annotated[int, Field(ge=0)] | None = None
    """How often certified steps may be undone; 3 where unset."""


class FlowSpec(Model):
    """An energy, how to descend it, and what to claim of the result."""

    name: Annotated[str, Field(min_length=1, max_length=100)] = "flow"
    dtype: Literal["float32", "float64"] = "float64"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    deterministic: bool = False
    """Only operations whose order of summation is fixed."""
    devices: Count | Literal["all"] = 1
    """Over which the arrays are cut; their number changes the order of sums, and so the bits."""
    state: Annotated[dict[Slug, Slot], Field(min_length=1)]
    data: dict[Slug, Data] = Field(default={})
    operators: dict[Slug, OperatorSpec] = Field(default={})
    terms: Annotated[tuple[Term, ...], Items, Field(min_length=1, max_length=50)]
    physics: dict[Slug, PhysicsSpec] = Field(default={})
    holdout: dict[Slug, HoldoutSpec] = Field(default={})
    lens: LensPolicy | None = None
    flow: FlowPolicy = FlowPolicy()
    multiscale: MultiscaleSchedule | None = None
    sparsity: SparsityPolicy = SparsityPolicy()
    gap_dial: GapDial = GapDial()
    certification: CertificationProfile = CertificationProfile()
    budget: Budget = Budget()
    sample_every: Count = 1
    """Iterations for each row of telemetry."""
