"""A recurrent switching linear system of several populations by Laplace EM: `ssm` of the Linderman lab, MIT licence.

As its own example for several populations sets it up: Poisson emissions of each region's latents under a softplus,
transitions that depend on the latents and on the state, penalties, ten restarts of an AR-HMM for the first states,
thirty rounds. Needs the version with `ssm.extensions`, which is newer than the one in the package index.
"""

import warnings

import numpy as np
from exchange import given, leave

warnings.simplefilter("ignore")
try:
    import ssm
    from ssm.extensions.mp_srslds.emissions_ext import PoissonOrthogonalCompoundEmissions
    from ssm.extensions.mp_srslds.transitions_ext import StickyRecurrentOnlyTransitions
except ImportError as error:
    leave(f"ssm: {error}")

ROUNDS, RESTARTS, STEP, INFERENCE_ROUNDS = 30, 10, 0.25, 20
SHOWN = (1, 2, 3, 5, 8, 12, 18, 24)


def made(recording):
    """The model, before anything is fitted."""
    regions, inputs = len(recording.region_sizes), recording.train.u[0].shape[1]
    latents = [recording.latents] * regions
    neurons, total = int(recording.region_sizes.sum()), sum(latents)
    emissions = PoissonOrthogonalCompoundEmissions(
        neurons, 1, total, M=inputs, N_vec=list(recording.region_sizes), D_vec=latents, link="softplus"
    )
    transitions = StickyRecurrentOnlyTransitions(
        recording.states, total, M=inputs, l2_penalty_similarity=10, l1_penalty=10
    )
    return ssm.SLDS(
        neurons,
        recording.states,
        total,
        M=inputs,
        emissions=emissions,
        transitions=transitions,
        dynamics="gaussian",
        dynamics_kwargs={"l2_penalty_A": 100},
    )


def main():
    recording, findings = given()
    np.random.seed(recording.seed)  # noqa: NPY002  it draws from numpy's own generator
    train, test = ([y.astype(int) for y in part.y] for part in (recording.train, recording.test))
    model, posterior = made(recording), "structured_meanfield"

    def show(after):
        when = findings.now()
        with findings.evaluation():
            state = np.random.get_state()  # noqa: NPY002  so that looking changes nothing
            _, found = model.approximate_posterior(
                test, inputs=recording.test.u, method="laplace_em", num_iters=INFERENCE_ROUNDS, verbose=0
            )
            np.random.set_state(state)  # noqa: NPY002
            x, z = found.mean_continuous_states, [one[0] for one in found.mean_discrete_states]
        findings.write(after, x, z, when)

    for number in range(1, ROUNDS + 1):
        _, posterior = model.fit(
            train,
            inputs=recording.train.u,
            method="laplace_em",
            variational_posterior=posterior,
            initialize=number == 1,
            num_init_restarts=RESTARTS,
            num_iters=1,
            alpha=STEP,
            verbose=0,
        )
        if number in SHOWN:
            show(f"round {number}")
    # What is known at the end takes the posterior of the test trials too.
    _, found = model.approximate_posterior(
        test, inputs=recording.test.u, method="laplace_em", num_iters=INFERENCE_ROUNDS, verbose=0
    )
    states = [one[0] for one in found.mean_discrete_states]
    findings.write("the end", found.mean_continuous_states, states, findings.now())


if __name__ == "__main__":
    main()
