"""What the Python front door is given, as a configuration."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.config.messages import explain
from mrsds_ppl.config.names import RECORDING
from mrsds_ppl.errors import ConfigError

# What each start says in the section ``training``.
_STARTS: dict[str, dict[str, Any]] = {
    "auto": {},
    "staged": {"start": "staged"},
    "smoothing": {"start": "smoothing"},
    "none": {"switch_init_steps": 0},
}


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
    """The configuration of a fit from Python; arguments as of :func:`mrsds_ppl.fit`.

    Args:
        emission: the kind of emissions where ``model`` names none.

    Raises:
        ConfigError: an argument, or a key of ``model`` or ``training``, is wrong.
    """
    if start not in _STARTS:
        raise ConfigError(f"start: found {start!r}; allowed: {', '.join(_STARTS)}")
    emissions = {"dist": emission, **(model or {}).get("emissions", {})}
    seeds = {f"{name}_seed": seed for name in ("data", "model", "train")}
    values = {
        "data": {"data_source": RECORDING},
        "model": {**(model or {}), "num_states": num_states, "latent_dims": latent_sizes, "emissions": emissions},
        "inference": {"guide": guide},
        "training": {**seeds, "test_perc": test, **_STARTS[start], **(training or {})},
    }
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("mrsds_ppl.fit: " + "; ".join(explain(error, RunConfig))) from None
