"""The evidence lower bound of programs with a plate of time over discrete states, which NumPyro lacks.

    ELBO = E_q( log sum_z p(x, z, y) - log q(x) )

The sum runs over every discrete site that the guide does not draw. A chain along a plate whose name begins with
``_time``, in which ``_PREV_z`` is the state before ``z``, is summed as one, by funsor's ``log_density`` of the replayed
program; NumPyro's ``TraceEnum_ELBO`` would treat its bins as independent given ``_PREV_z``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, PRNGKeyArray, Shaped
from numpyro.handlers import replay, seed, substitute, trace
from numpyro.infer.util import log_density
from numpyro.primitives import Messenger
from numpyro.util import check_model_guide_match

from mrsds_ppl.errors import RunError
from mrsds_ppl.ppl.elbo import MeanOverDraws

Key = PRNGKeyArray | Shaped[Array, "2"]
Program = Callable[..., Any]


class TraceMarkovEnum_ELBO(MeanOverDraws):
    """The plain bound for any NumPyro program whose discrete sites funsor can enumerate, plates of time included.

    Use it as any NumPyro loss: ``SVI(program, guide, optimizer, loss=TraceMarkovEnum_ELBO())``. A plate of time is
    ``numpyro.plate("_time", T - 1, dim=...)``; the state before each of its bins is the site ``_PREV_z`` outside of it.
    Sites that the guide draws must be reparametrised, as for ``Trace_ELBO``. A mini-batch scales the logarithm of the
    sum over the states.

    Args:
        num_particles: draws of the guide a step; the bound is their mean.
        vectorize_particles: evaluate the draws side by side (``True``) or one after another.
        max_plate_nesting: dimensions that plates take, counted from the right; ``None`` looks them up in the program.
    """

    def __init__(
        self, num_particles: int = 1, vectorize_particles: bool = True, max_plate_nesting: int | None = None
    ) -> None:
        self.max_plate_nesting = max_plate_nesting
        super().__init__(num_particles=num_particles, vectorize_particles=vectorize_particles)

    def bound(
        self, key: Key, params: dict[str, Any], model: Program, guide: Program, *args: object, **kwargs: object
    ) -> Array:
        """log sum_z p(x, z, y) - log q(x) at one draw of the guide.

        Raises:
            RunError: a site of the program is neither drawn by the guide nor enumerable, or is both; or sites that are
                summed together have different scales. The sites are named.
        """
        # funsor takes longer to import than the rest, and few programs need it.
        from numpyro.contrib.funsor import config_enumerate, enum
        from numpyro.contrib.funsor.infer_util import log_density as enumerated_log_density

        model_key, guide_key = random.split(key)
        log_q, drawn = log_density(seed(guide, guide_key), args, kwargs, params)
        _check_guide(drawn)
        # What the guide draws is not enumerated: replayed, a site has the guide's marks in place of the program's.
        program = replay(seed(config_enumerate(model), model_key), drawn)
        form = _form(substitute(program, data=params), drawn, args, kwargs)
        nesting = form.nesting if self.max_plate_nesting is None else self.max_plate_nesting
        with _RelativeScale(form.scale, nesting):
            log_p, _ = enumerated_log_density(enum(program, -nesting - 1), args, kwargs, params)
        return form.scale * log_p - log_q


class _Form(NamedTuple):
    """Dimensions that the program's plates and batches take, and the scale that its enumerated sites share."""

    nesting: int
    scale: float


def _form(program: Program, drawn: dict[str, Any], args: tuple[object, ...], kwargs: dict[str, object]) -> _Form:
    """Read off a run without enumeration, of which nothing is computed."""
    nesting, scales = [0], {}

    def run() -> None:
        sites = trace(program).get_trace(*args, **kwargs)
        for name, site in sites.items():
            if site["type"] != "sample":
                continue
            nesting.append(len(site["fn"].batch_shape))
            nesting.extend(-frame.dim for frame in site["cond_indep_stack"])
            if site["is_observed"]:
                continue
            if site["infer"].get("enumerate") == "parallel" and site["fn"].has_enumerate_support:
                scales[name] = 1.0 if site["scale"] is None else site["scale"]
            elif name not in drawn:
                raise RunError(
                    f"The program's site '{name}' is neither drawn by the guide, which has {sorted(drawn)}, nor "
                    f"discrete with states that can be listed. Add numpyro.sample('{name}', ...) to the guide."
                )
        check_model_guide_match(sites, drawn)

    jax.eval_shape(run)
    for name, scale in scales.items():
        if not isinstance(scale, int | float):
            raise RunError(f"The enumerated site '{name}' is scaled by an array. A scale of summed sites is a number.")
    if len(set(scales.values())) > 1:
        raise RunError(f"Sites that are summed over share one scale; found {scales}. Put them into the same plates.")
    return _Form(max(nesting), float(next(iter(scales.values()), 1.0)))


def _check_guide(drawn: dict[str, Any]) -> None:
    for name, site in drawn.items():
        if site["type"] == "sample" and site["infer"].get("enumerate") == "parallel":
            raise RunError(
                f"The guide marks its site '{name}' to be enumerated. Leave it out of the guide, and the program's is "
                "summed exactly; or drop the mark, and it is drawn."
            )


class _RelativeScale(Messenger):
    """Divides every scale by that of the enumerated sites, which so keep none.

    s log sum_z p(z) p(x|z) is the bound's term where a mini-batch has the scale s; left on the sites, s would be taken
    into the sum as powers.
    """

    def __init__(self, scale: float, nesting: int) -> None:
        super().__init__(None)
        self.scale, self.nesting = scale, nesting

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample":
            scale = 1.0 if msg["scale"] is None else msg["scale"]
            same = isinstance(scale, int | float) and scale == self.scale
            msg["scale"] = None if same else scale / self.scale
            # NumPyro notes the dimensions of a site in this dictionary, which a program may have given to several.
            msg["infer"] = dict(msg["infer"])

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample" or msg["scale"] is None:
            return
        batch_dim = max(len(msg["fn"].batch_shape), jnp.ndim(msg["value"]) - msg["fn"].event_dim)
        if batch_dim > self.nesting:
            raise RunError(
                f"The site '{msg['name']}' depends on enumerated states but has another scale than theirs. "
                "Put it into the same plates."
            )
