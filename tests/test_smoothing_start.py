"""A guide with an encoder that follows the program which smoothing found, and what says that a run starts so."""

import by_hand
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
from jax import random

from mrsds_ppl import cli
from mrsds_ppl.build import initial_parameters
from mrsds_ppl.config.loading import ignored_keys, load_config
from mrsds_ppl.errors import ConfigError
from mrsds_ppl.guides import MeanField
from mrsds_ppl.models import DynamicsOptions, ModelOptions
from mrsds_ppl.models.dynamics import with_scaled_noise
from mrsds_ppl.models.mrsds import Networks
from mrsds_ppl.nn.encoders import EncoderOptions
from mrsds_ppl.start.smoothing_start import GuideTraining
from mrsds_ppl.train.objective import make_objective
from mrsds_ppl.train.training import TrainingSettings

BINS, STEPS = 6, 30
SETTINGS = TrainingSettings(num_steps=8, batch_size=4, learning_rate=1e-3, chunk_steps=15)
TINY = """
data: {data_source: oscillators, simulation: {num_trials: 8, num_regions: 2, num_states: 2, min_bins: 10, num_bins: 12}}
model:
  latent_dims: 1
  xtransition: {dynamics: {layers: [4], activations: [relu, null]}}
  emissions: {dist: poisson, final_activation: softplus}
inference: {guide: mean_field, convolution_params: {channels: 4}}
training: {start: smoothing, num_steps: 8, switch_init_steps: 6, log_steps: 4, save_steps: 4, batch_size: 4}
output: {draws: 8}
"""


class Case:
    """A program with its guide, and an objective that counts how often it is traced."""

    def __init__(self, *, trainable=True):
        form = DynamicsOptions(layers=(), activations=(None,), trainable_covariance=trainable)
        self.data = jax.tree.map(
            lambda a: a.astype(jnp.float32) if a.dtype == float else a, by_hand.make_batch([BINS] * 6, BINS, 5)
        )
        model = by_hand.filled_model([3, 2], [1, 1], 2, num_inputs=1, options=ModelOptions(dynamics=form))
        small = EncoderOptions(embedding_layers=(3,), channels=4, dilations=(1,))
        guide = MeanField(model, key=random.key(1), options=small)
        self.params = initial_parameters(random.key(0), model, guide, self.data).params
        self.plain = make_objective(model, guide, float(self.data.observed.sum()))
        self.traces = 0

    def objective(self, *args):
        self.traces += 1
        return self.plain(*args)

    def bring(self, **options):
        training = GuideTraining(self.objective, SETTINGS, STEPS, **options)
        return training(random.key(2), self.params, self.data)

    def loss(self, params, factor):
        """Mean over a hundred draws, with the Cholesky factor of the first Q times ``factor``."""
        scaled = {**params, "dynamics$params": with_scaled_noise(self.params["dynamics$params"], factor)}
        one = jax.jit(jax.vmap(lambda key: self.plain(scaled, key, self.data, jnp.int32(0))[0]))
        return float(one(random.split(random.key(3), 100)).mean())


@pytest.mark.slow
@pytest.mark.compiling
def test_the_bound_of_the_guide_alone_rises_and_q_ends_four_times_as_wide():
    case = Case()
    brought = case.bring()
    # One compiled program for both scales of the noise.
    assert case.traces == 1
    assert case.loss(brought, 4.0) < case.loss(case.params, 4.0) - 0.05
    program = {name for name in brought if name.split("$")[0] in Networks._fields}
    assert program < set(brought)
    loosened = {**case.params, "dynamics$params": with_scaled_noise(case.params["dynamics$params"], 4.0)}
    for name in program:
        before = loosened[name]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), brought[name], before)
    pairs = (brought["emissions$params"], case.params["emissions$params"])
    jax.tree.map(np.testing.assert_array_equal, *pairs)


@pytest.mark.slow
@pytest.mark.compiling
def test_a_q_that_is_not_trained_is_as_it_was():
    case = Case(trainable=False)
    brought = case.bring()
    jax.tree.map(np.testing.assert_array_equal, brought["dynamics$params"], case.params["dynamics$params"])
    assert case.loss(brought, 4.0) < case.loss(case.params, 4.0) - 0.05


@pytest.mark.slow
@pytest.mark.compiling
def test_a_request_to_stop_ends_it_after_a_chunk():
    case, asked = Case(), []
    stopped, through = case.bring(should_stop=lambda: asked.append(None) or True), case.bring()
    assert len(asked) == 1
    noise, before = (some["dynamics$params"].noise.scale for some in (stopped, case.params))
    np.testing.assert_allclose(noise, 8.0 * before, rtol=1e-5)
    assert case.loss(through, 4.0) < case.loss(stopped, 4.0)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.compiling
def test_a_run_with_an_encoder_starts_by_smoothing_where_it_is_asked_to(tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(TINY)
    command = ["fit", str(tmp_path / "tiny.yaml"), "--name", "a", "--result-path", str(tmp_path)]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "smoothing: linear dynamics" in said
    assert "AR-HMM" not in said
    assert "training.start" not in said
    assert scipy.io.loadmat(tmp_path / "a_latents.mat")["elbos"].size == 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training.restarts": 4}, "found smoothing with training.restarts 4; allowed: staged, or 1 restart"),
        ({"training.switch_init_steps": 0}, "found smoothing with training.switch_init_steps 0, which leaves"),
        ({"model.weight_prior.scale": 0.5}, "found smoothing with model.weight_prior; allowed: staged, or weights"),
        (
            {"inference.guide": "auto_normal"},
            "with auto_normal; allowed: staged, or smoothing with inference.enc",
        ),
        (
            {"training.start": "staged", "inference.guide": "auto_normal", "inference.encoder": "none"},
            "found staged with inference.encoder none; allowed: smoothing, or staged with an encoder",
        ),
        ({"training.start": "smooth"}, 'found "smooth"; allowed: staged, smoothing; did you mean smoothing?'),
    ],
    ids=str,
)
def test_a_start_that_cannot_be_is_refused(tmp_path, changes, words):
    (tmp_path / "tiny.yaml").write_text(TINY)
    with pytest.raises(ConfigError, match=r"training\.start: found") as caught:
        load_config(tmp_path / "tiny.yaml", changes)
    assert words in str(caught.value)


def test_steps_on_the_evidence_belong_to_either_kind_of_start_by_smoothing(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    steps = {"training.evidence_steps": 3}
    assert "training.evidence_steps" not in ignored_keys(load_config(tmp_path / "tiny.yaml", steps))
    staged = {**steps, "training.start": "staged"}
    assert "training.evidence_steps" in ignored_keys(load_config(tmp_path / "tiny.yaml", staged))
