"""What the Python front door is given, as a configuration."""

from collections.abc import Mapping
from typing import Any

from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.config.names import RECORDING


def config_for(
    num_states: int,
    latent_sizes: Any,
    *,
    model: Mapping[str, Any] | None = None,
    guide: str = "gaussian_markov",
    start: str = "auto",
    training: Mapping[str, Any] | None = None,
    test: float = 0.1,
    seed: int = 0,
    emission: str,
) -> RunConfig:
    """The configuration of a fit from Python."""
    emissions = {"dist": emission, **(model or {}).get("emissions", {})}
    seeds = {f"{name}_seed": seed for name in ("data", "model", "train")}
    named = {"start": start} if start in ("staged", "smoothing") else {}
    return RunConfig.model_validate(
        {
            "data": {"data_source": RECORDING},
            "model": {**(model or {}), "num_states": num_states, "latent_dims": latent_sizes, "emissions": emissions},
            "inference": {"guide": guide},
            "training": {**seeds, "test_perc": test, **named, **(training or {})},
        }
    )
