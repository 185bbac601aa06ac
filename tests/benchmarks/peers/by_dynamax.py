"""What dynamax has for this: a linear system by EM, and a switching autoregression of its smoothed latents by EM.

dynamax fits no switching linear system, and no latents under counts. This is the usual way around it, in two stages:
square roots of the counts as Gaussian signals of one linear system with the latents of all regions together, then a
hidden Markov model whose state decides how the latents of a bin follow from those of the last one and from the inputs.
It fits batches of trials of one length, so training trials are cut to the shortest; test trials are not. The linear
system has the conjugate priors that come with it: without them EM of several trials ends in NaN in dynamax 1.0.3.
"""

import warnings

import numpy as np
from exchange import given, leave

warnings.simplefilter("ignore")
try:
    import jax
    import jax.numpy as jnp
    from dynamax.hidden_markov_model import LinearRegressionHMM
    from dynamax.linear_gaussian_ssm import LinearGaussianConjugateSSM
except ImportError as error:
    leave(f"dynamax: {error}")

EM_ROUNDS, RESTARTS, STATE_ROUNDS, STAY = 50, 10, 100, 0.95


def linear_system(y, u, latents, seed):
    """Model and parameters, from principal components of the signals."""
    model = LinearGaussianConjugateSSM(latents, y.shape[-1], u.shape[-1])
    rows = y.reshape(-1, y.shape[-1])
    mean = rows.mean(0)
    _, sizes, axes = np.linalg.svd(rows - mean, full_matrices=False)
    scale = sizes[:latents] / np.sqrt(len(rows))
    params, props = model.initialize(
        jax.random.PRNGKey(seed),
        emission_weights=jnp.asarray(axes[:latents].T * scale),
        emission_bias=jnp.asarray(mean),
        emission_covariance=jnp.diag(jnp.asarray(rows.var(0))),
    )
    return model, model.fit_em(params, props, y, u, num_iters=EM_ROUNDS, verbose=False)[0]


def switching(x, u, states, seed):
    """Model and parameters of the likeliest of some restarts; x and u of trials of one length."""
    told, moved = jnp.concatenate([x[:, :-1], u[:, 1:]], -1), x[:, 1:]
    model = LinearRegressionHMM(states, told.shape[-1], moved.shape[-1])
    plain = np.linalg.lstsq(
        np.column_stack([told.reshape(-1, told.shape[-1]), np.ones(moved.shape[0] * moved.shape[1])]),
        np.asarray(moved).reshape(-1, moved.shape[-1]),
        rcond=None,
    )[0].T
    rng, best = np.random.default_rng(seed), (-np.inf, None)
    off = (1 - STAY) / max(states - 1, 1)
    for _ in range(RESTARTS):
        # Around the regression without states, as random ones explain so little that one state takes every bin.
        weights = plain + 0.1 * rng.normal(size=(states, *plain.shape))
        params, props = model.initialize(
            jax.random.PRNGKey(seed),
            transition_matrix=jnp.asarray(np.full((states, states), off) + (STAY - off) * np.eye(states)),
            emission_weights=jnp.asarray(weights[..., :-1]),
            emission_biases=jnp.asarray(weights[..., -1]),
            emission_covariances=jnp.tile(jnp.cov(moved.reshape(-1, moved.shape[-1]).T), (states, 1, 1)),
        )
        params, scores = model.fit_em(params, props, moved, told, num_iters=STATE_ROUNDS, verbose=False)
        best = max(best, (float(scores[-1]), params), key=lambda one: one[0])
    return model, best[1]


def main():
    recording, findings = given()
    jax.config.update("jax_enable_x64", True)
    shortest, seed = int(recording.train.lengths.min()), recording.seed
    y = np.stack([np.sqrt(y[:shortest]) for y in recording.train.y]).astype(float)
    u = np.stack([u[:shortest] for u in recording.train.u]).astype(float)
    linear, params = linear_system(y, u, recording.latents * len(recording.region_sizes), seed)
    smoother = jax.jit(jax.vmap(lambda y, u: linear.smoother(params, y, u).smoothed_means))
    chain, chosen = switching(smoother(y, u), jnp.asarray(u), recording.states, seed)
    latents, states = [], []
    for y, u in zip(recording.test.y, recording.test.u, strict=True):
        x = linear.smoother(params, jnp.sqrt(jnp.asarray(y, float)), jnp.asarray(u, float)).smoothed_means
        told = jnp.concatenate([x[:-1], jnp.asarray(u[1:], float)], -1)
        z = np.asarray(chain.smoother(chosen, x[1:], told).smoothed_probs)
        latents.append(np.asarray(x))
        # Of the first bin nothing is known but the state of the second.
        states.append(np.concatenate([z[:1], z]))
    findings.write("the end", latents, states, findings.now())


if __name__ == "__main__":
    main()
