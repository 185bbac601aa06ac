"""A recurrent switching linear system of several populations by Laplace EM: `ssm` of the Linderman lab, MIT licence.

Poisson emissions of each region's latents under a softplus, linear dynamics with inputs and the penalty of its own
example for several populations, transitions that depend on state, latents and inputs, states first from one AR-HMM, all
else as it stands by default. Needs the version with `ssm.extensions`, newer than the one in the package index.
"""

import warnings

import numpy as np
from exchange import given, leave

warnings.simplefilter("ignore")
try:
    import ssm
    from ssm.extensions.mp_srslds.emissions_ext import PoissonOrthogonalCompoundEmissions
except ImportError as error:
    leave(f"ssm: {error}")

ROUNDS, INFERENCE_ROUNDS = 10, 5
SHOWN = (1, 2, 5)


def made(recording):
    """The model, before anything is fitted."""
    regions, inputs = len(recording.region_sizes), recording.train.u[0].shape[1]
    latents = [recording.latents] * regions
    neurons, total = int(recording.region_sizes.sum()), sum(latents)
    emissions = PoissonOrthogonalCompoundEmissions(
        neurons, 1, total, M=inputs, N_vec=list(recording.region_sizes), D_vec=latents, link="softplus"
    )
    return ssm.SLDS(
        neurons,
        recording.states,
        total,
        M=inputs,
        emissions=emissions,
        transitions="recurrent",
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
            x, z = found.mean_continuous_states, found.mean_discrete_states
        findings.write(after, x, z, when)

    for number in range(1, ROUNDS + 1):
        _, posterior = model.fit(
            train,
            inputs=recording.train.u,
            method="laplace_em",
            variational_posterior=posterior,
            initialize=number == 1,
            num_iters=1,
            verbose=0,
        )
        if number in SHOWN:
            show(f"round {number}")
    # What is known at the end takes the posterior of the test trials too.
    _, found = model.approximate_posterior(
        test, inputs=recording.test.u, method="laplace_em", num_iters=INFERENCE_ROUNDS, verbose=0
    )
    states = found.mean_discrete_states
    findings.write("the end", found.mean_continuous_states, states, findings.now())


if __name__ == "__main__":
    main()
