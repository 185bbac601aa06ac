"""Whether polynomials can stand for a model's dynamics, and how many weights they have; no JAX."""

from collections.abc import Sequence
from math import comb

from mrsds_ppl.models.options import ModelOptions

DEGREE = 3
# A step takes the square of them for every latent and bin: of so many, nine latents and 20,000 bins some 40 s.
MOST_WEIGHTS = 1500


def num_monomials(size: int) -> int:
    """Of degrees 1 to 3, of so many latents."""
    return comb(size + DEGREE, DEGREE) - 1


def num_features(latent_sizes: Sequence[int], num_inputs: int) -> int:
    """Length of phi."""
    return 1 + sum(map(num_monomials, latent_sizes)) + num_inputs


def num_weights(latent_sizes: Sequence[int], num_inputs: int, num_states: int) -> int:
    """Of all latents in all states."""
    return num_states * sum(latent_sizes) * num_features(latent_sizes, num_inputs)


def why_no_polynomials(
    options: ModelOptions, latent_sizes: Sequence[int], num_inputs: int, num_states: int
) -> str | None:
    """What keeps polynomials from standing for a model's dynamics, or None.

    Args:
        options: of the model.
        latent_sizes: of each region.
        num_inputs: that the dynamics read.
        num_states: K.
    """
    dynamics = options.dynamics
    add_up = dynamics.communication_type in ("additive", "additive-shared")
    if not add_up or (num_inputs and dynamics.input_type != "additive"):
        ways = "communication_type: additive or additive-shared, input_type: additive"
        return f"those are for messages that add up ({ways})"
    if not dynamics.layers or (num_inputs and dynamics.input_layers):
        return "those are for dynamics with hidden layers and inputs without"
    count = num_weights(latent_sizes, num_inputs, num_states)
    return f"their polynomials would have {count} weights, more than {MOST_WEIGHTS}" if count > MOST_WEIGHTS else None
