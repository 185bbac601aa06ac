"""What a report says of a run, as plain arrays and words: gathered by whoever knows the run, drawn by the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mrsds_ppl.output.report.averages import Averages
from mrsds_ppl.output.report.checks import Evidence
from mrsds_ppl.output.report.conditions import Conditions
from mrsds_ppl.output.report.edges import Edges
from mrsds_ppl.output.report.restarts import Restarts


class Score(NamedTuple):
    """One line of the table of scores; None where a column does not apply."""

    name: str
    r2: float
    ceiling: float
    r2_average: float
    r2_linear: float | None = None
    bits: float | None = None


class Example(NamedTuple):
    """One test trial: seconds, latents, states, the truth of a simulation, activity by title, message norms."""

    number: int
    seconds: Float[np.ndarray, " bin"]
    x: Float[np.ndarray, "bin latent"]
    z_prob: Float[np.ndarray, "bin state"]
    x_true: Float[np.ndarray, "bin latent"] | None
    z_true: Int[np.ndarray, " bin"] | None
    activity: Mapping[str, Float[np.ndarray, "bin neuron"]]
    norms: Float[np.ndarray, "bin target source"]


class Field(NamedTuple):
    """Flow of one region in every state, on a grid of one or two coordinates of its latents; paths by state."""

    region: str
    coordinates: Sequence[str]
    points: Float[np.ndarray, "point latent"]
    changes: Float[np.ndarray, "state point latent"]
    trajectories: Sequence[Sequence[Float[np.ndarray, "_ latent"]]]
    fixed_points: Sequence[Float[np.ndarray, "_ latent"]]
    stable: Sequence[Bool[np.ndarray, " _"]]


@dataclass(frozen=True)
class Findings:
    """All that the page says. ``hidden`` scores are of the neurons hidden from the model in test trials."""

    name: str
    subtitle: str
    facts: Sequence[tuple[str, str]]
    evidence: Evidence
    scores: Sequence[Score]
    recovery: Sequence[str]
    latent_names: Sequence[str]
    latent_regions: Sequence[str]
    region_names: Sequence[str]
    region_sizes: Sequence[int]
    input_names: Sequence[str]
    neuron_names: Sequence[str]
    unit: str
    example: Example
    seconds: Float[np.ndarray, " bin"]
    z_prob: Float[np.ndarray, "trial bin state"]
    lengths: Int[np.ndarray, " trial"]
    communication: Float[np.ndarray, "state target source"]
    occupancy: Float[np.ndarray, " state"]
    fields: Sequence[Field]
    curves: Mapping[str, Float[np.ndarray, " step"]]
    skipped: Bool[np.ndarray, " step"]
    hidden_scores: Float[np.ndarray, " hidden"]
    hidden_baseline: Float[np.ndarray, " hidden"]
    hidden_region: Int[np.ndarray, " hidden"]
    hidden_unit: str
    listings: Sequence[tuple[str, str]]
    averages: Averages | None = None
    conditions: Conditions | None = None
    edges: Edges | None = None
    restarts: Restarts | None = None
