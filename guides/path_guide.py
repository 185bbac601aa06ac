"""What guides without an encoder share: a table with one entry for each trial.

A trial is found in the table of parameters by its number, so that batches may be any of the trials. Trials that are
not in the table have NaN everywhere until :meth:`PathGuide.adapt` has fitted them, with the program frozen. A number
stands for one trial of one recording as it was shown: trials of another recording, trials cut short and trials with
hidden neurons are adapted to first, which gives parameters of their own. Start: x at the principal components of the
signals, or at paths smoothed under the program (:meth:`PathGuide.at`).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.infer.autoguide import AutoGuide

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.guides.base import drawn_of, guide_of_weights, padding
from mrsds_ppl.guides.guide import Guide
from mrsds_ppl.models.filtering import smooth_new_trials
from mrsds_ppl.models.program import Program
from mrsds_ppl.nn.adam import descend
from mrsds_ppl.ppl.elbo import log_terms
from mrsds_ppl.statespace.principal_components import principal_components
from mrsds_ppl.statespace.smoothing import PathMoments

START_SCALE = -0.5  # of tables that say nothing yet: a standard deviation of 0.46 by `positive`
# Numbers of the table's trials. They are floating, as are all parameters of an optimiser, and no gradient moves them.
_NUMBERS = "auto_trials"


class PathGuide(AutoGuide):
    """q(x) from a table with one entry a trial; subclasses say what an entry holds and which law it gives.

    The first trials that the guide is called with, and only they, are those of the table: call it first, or start
    ``SVI``, with all training trials. Their mini-batches can follow.

    Args:
        model: the program; sizes are read off it. Weights with a prior get NumPyro's guide of the same kind.
        (others): accepted so that all guides are made alike; there is no encoder.
    """

    # Values of the first call are kept, which must be all training trials and must not be a compiler's.
    needs_every_trial = True
    recognition = None
    point = False
    # Steps and rate of the fit of a trial that was not trained on; none where `at` gives more than a start.
    new_trial_steps, new_trial_rate = 400, 0.03

    def __init__(self, model: Program, *, key: PRNGKeyArray | None = None) -> None:
        super().__init__(model, prefix="auto")
        self._start: dict[str, np.ndarray] | None = None
        self._direct: tuple[np.ndarray, np.ndarray] | None = None
        self.global_guide = guide_of_weights(model, point=self.point)

    def entries(self, loc: Float[np.ndarray, "trial bin latent"]) -> dict[str, np.ndarray]:
        """The table at the start, by site, for paths that start at ``loc``."""
        raise NotImplementedError

    def at(self, moments: PathMoments) -> dict[str, Array]:
        """Entries of the table that give the law nearest to smoothed paths; those left out stay as they are."""
        return {"auto_path_loc": moments.mean}

    def law(self, entries: dict[str, Array], batch: Batch) -> dist.Distribution:
        """q(x) of a batch: batch (trial,), event (bin, latent); standard normal in padding (zero of a point)."""
        raise NotImplementedError

    def begin(self, batch: Batch) -> None:
        """Take the start of the table from all training trials; the first call does it where nobody did.

        Raises:
            RunError: called inside a compiled function, or two trials have one number.
        """
        if self._start is None:
            self._start = self._begin(batch)

    def __call__(self, batch: Batch) -> dict[str, Array]:
        self.begin(batch)
        assert self._start is not None
        batch = jax.tree.map(jnp.asarray, batch)
        others = {} if self.global_guide is None else self.global_guide(batch)
        table = {name: numpyro.param(name, jnp.asarray(value)) for name, value in self._start.items()}
        law = self.law(_look_up(table, batch), batch)
        with self.model.trials_plate(batch):
            x = numpyro.sample("x", law)
        return {"x": x, **others}

    def path_law(self, params: dict[str, Any], batch: Batch) -> dist.Distribution:
        """q(x | y, u) of a batch under fitted parameters."""
        batch = jax.tree.map(jnp.asarray, batch)
        table = {name: value for name, value in params.items() if name.startswith("auto_path_") or name == _NUMBERS}
        return self.law(_look_up(table, batch), batch)

    def sample_posterior(
        self, rng_key: Array, params: dict[str, Any], batch: Batch, *, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Array]:
        """Draws of every latent site, (*sample_shape, trial, bin, latent) for x."""
        return drawn_of(rng_key, self.path_law(params, batch), self.global_guide, params, sample_shape)

    def median(self, params: dict[str, Any], batch: Batch) -> dict[str, Array]:
        """Posterior median of every latent site."""
        batch = jax.tree.map(jnp.asarray, batch)
        others = {} if self.global_guide is None else self.global_guide.median(params)
        path = _look_up({n: params[n] for n in ("auto_path_loc", _NUMBERS)}, batch)["auto_path_loc"]
        return {"x": jnp.where(padding(batch), 0.0, path), **others}

    def adapt(
        self,
        key: PRNGKeyArray,
        params: dict[str, Any],
        batch: Batch,
        steps: int | None = None,
        learning_rate: float | None = None,
    ) -> dict[str, Any]:
        """Parameters with entries for new trials, fitted to the bound by Adam while everything else stays as it is.

        Only what the batch shows (``visible``) is scored, so that held-out neurons stay held out. The entries replace
        those of the same numbers. Those of other numbers remain where the padded length is the same, and go otherwise.

        Args:
            key: random key.
            params: fitted parameters by site.
            batch: the new trials.
            steps, learning_rate: of Adam, the guide's own where not given; the rate falls by a cosine. With no steps
                the entries stay where :meth:`first_entries` begins.

        Raises:
            RunError: the guide was never called with the training trials; the fit of the new ones is not finite.
        """
        if self._direct is None:
            raise RunError(
                "the guide has no training trials yet; call it with them once before it is adapted to others"
            )
        batch = jax.tree.map(jnp.asarray, batch)
        shown = batch._replace(observed=batch.observed & batch.visible)
        start = self.first_entries(params, shown)
        numbers = start.pop(_NUMBERS)
        rest = {name: value for name, value in params.items() if name not in start and name != _NUMBERS}
        steps = self.new_trial_steps if steps is None else steps
        rate = self.new_trial_rate if learning_rate is None else learning_rate
        table = start
        if steps > 0:
            held = {**rest, _NUMBERS: numbers}
            table, last = _fit_entries(key, start, held, shown, guide=self, steps=steps, rate=rate)
            if not np.isfinite(float(last)):
                raise RunError(
                    f"the fit of {len(numbers)} new trials ended at a loss of {float(last)}; lower learning_rate"
                )
        elif not all(np.isfinite(np.asarray(value)).all() for value in table.values()):
            raise RunError(f"the paths of {len(numbers)} new trials are not finite under the fitted program")
        table[_NUMBERS] = numbers
        known = params.get("auto_path_loc")
        if known is not None and known.shape[1] == table["auto_path_loc"].shape[1]:
            others = np.flatnonzero(~np.isin(np.asarray(params[_NUMBERS]), np.asarray(numbers)))
            table = {name: jnp.concatenate([params[name][others], value]) for name, value in table.items()}
        return {**params, **table}

    def first_entries(self, params: dict[str, Any], batch: Batch) -> dict[str, Array]:
        """Where the entries of new trials start, and the numbers by which they are found.

        At paths smoothed under the program: from the principal components the fit of a path ends in the first mode.

        Args:
            params: fitted parameters by site.
            batch: the new trials, of which ``observed`` is what may be used.
        """
        seen = batch._replace(y=jnp.where(batch.observed, batch.y, 0.0))
        program = {name: value for name, value in params.items() if not name.startswith("auto_")}
        if self.global_guide is not None:
            program |= self.global_guide.median(params)
        moments, _ = smooth_new_trials(program, self.model, seen)
        return jax.tree.map(jnp.asarray, self._entries(batch)) | self.at(moments)

    def _begin(self, batch: Batch) -> dict[str, np.ndarray]:
        if any(isinstance(leaf, jax.core.Tracer) for leaf in batch):
            raise RunError(
                f"{type(self).__name__} takes its start from the training trials and cannot be called first inside a "
                "compiled function; call guide(batch) under numpyro.handlers.seed, or SVI.init, outside of it"
            )
        whole = jax.tree.map(np.asarray, batch)
        numbers, times = np.unique(whole.number, return_counts=True)
        if times.max() > 1:
            raise RunError(
                f"the training trials: found {times.max()} of number {numbers[times.argmax()]}; each needs a number of "
                "its own, by which its entry is found"
            )
        if whole.session is not None:
            # Components of sessions are not alike; where a start smooths, it gives the paths.
            shape = (whole.y.shape[2], self.model.num_latents)
            self._direct = np.zeros(shape[0]), np.zeros(shape)
            return self._entries(batch)
        signals = np.where(whole.observed, whole.y, np.nan)
        paths = [y[:length] for y, length in zip(signals, whole.lengths, strict=True)]
        trials = Trials.from_arrays(paths, region_sizes=self.model.region_sizes)
        found = principal_components(trials, self.model.latent_sizes)
        weighted = found.loadings / found.residual[:, None]
        inverse = np.linalg.inv(np.eye(weighted.shape[1]) + found.loadings.T @ weighted)
        self._direct = found.center, weighted @ inverse
        return self._entries(batch)

    def _entries(self, batch: Batch) -> dict[str, np.ndarray]:
        assert self._direct is not None
        center, direct = self._direct
        whole = jax.tree.map(np.asarray, batch)
        loc = np.where(whole.observed, whole.y - center, 0.0) @ direct
        kind = jax.dtypes.canonicalize_dtype(float)
        values = {**self.entries(loc.astype(kind)), _NUMBERS: whole.number}
        return {name: np.asarray(value, kind) for name, value in values.items()}


@partial(jax.jit, static_argnames=("guide", "steps", "rate"))
def _fit_entries(
    key: PRNGKeyArray,
    start: dict[str, Array],
    params: dict[str, Any],
    shown: Batch,
    *,
    guide: PathGuide,
    steps: int,
    rate: float,
) -> tuple[dict[str, Array], Array]:
    """Entries after some steps of Adam, and the last loss."""
    size = jnp.maximum(shown.observed.sum(), 1)

    def loss(table: dict[str, Array], key: Array) -> Array:
        return -log_terms(key, {**params, **table}, guide.model, guide, shown).log_weights.sum() / size

    found = descend(key, loss, start, num_steps=steps, rate=rate, last=0.05)
    return found.params, found.losses[-1]


def for_new_trials(key: PRNGKeyArray, params: dict[str, Any], guide: Guide, batches: Sequence[Batch]) -> dict[str, Any]:
    """Parameters that serve trials which were not trained on; an amortised guide's are those it has."""
    if isinstance(guide, PathGuide):
        for batch in batches:
            params = guide.adapt(key, params, batch)
    return params


def _look_up(table: dict[str, Array], batch: Batch) -> dict[str, Array]:
    """The entries of a batch's trials, found by their numbers.

    A trial that is not in the table gets NaN: compiled code cannot raise, and the path of another trial looks right.
    """
    same = lax.stop_gradient(table[_NUMBERS]) == batch.number[:, None]
    index, known = same.argmax(-1), same.any(-1)

    def found(value: Array) -> Array:
        return jnp.where(known.reshape(-1, *(1,) * (value.ndim - 1)), value[index], jnp.nan)

    return {name: found(value) for name, value in table.items() if name != _NUMBERS}
