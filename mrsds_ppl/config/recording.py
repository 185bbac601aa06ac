"""The trials that a configuration names, ready to be fitted."""

from pathlib import Path

from mrsds_ppl.config.loading import RunConfig, reject_unknown
from mrsds_ppl.data.check import idle_neurons
from mrsds_ppl.data.readers import load_recording, load_user_function
from mrsds_ppl.data.sessions.join import join
from mrsds_ppl.data.simulate import SIMULATORS, simulation_options
from mrsds_ppl.data.split import Split, split_into_fold, split_trials
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.models.emissions.emissions import refused_of


def make_trials(config: RunConfig) -> Trials:
    """The recording, validated for the likelihood that the configuration names; of several files, joined sessions.

    Raises:
        ConfigError, DataError: the source or what it holds is wrong.
    """
    data = config.data
    if data.is_simulation:
        simulator = SIMULATORS[data.data_source]
        reject_unknown("data.simulation", data.simulation, simulation_options(data.data_source))
        trials = _prepared(simulator(config.training.seeds.data, **data.simulation), config)
    elif ".py:" in data.data_source:
        path = None if data.data_path is None else data.recordings()[0]
        own = load_user_function(data.data_source, path, bin_width=data.bin_width, region_names=data.region_names)
        trials = _prepared(own, config)
    else:
        paths = data.recordings()
        parts = [_prepared(load_recording(path, **data.reading()), config, n) for n, path in enumerate(paths)]
        # A file of a run may hold sessions that were joined before.
        trials = parts[0] if len(parts) == 1 else join(parts, [Path(path).stem for path in paths])
    trials.validate(refused=refused_of(config.model.emissions, trials))
    return trials


def split_of(config: RunConfig, trials: Trials, session: int = 0) -> Split:
    """Trials for training and test as a configuration has them: a share drawn by the data seed, or one of the folds.

    Args:
        config: the configuration.
        trials: the recording.
        session: number of the session that it is, where it is one of several that are not joined yet.

    Raises:
        DataError: too few trials.
    """
    split, seed = config.training.split, config.training.seeds.data + session
    if split.folds is None:
        return split_trials(trials, split.test_perc, seed)
    return split_into_fold(trials, split.folds, split.fold, seed)


def _prepared(trials: Trials, config: RunConfig, number: int = 0) -> Trials:
    """Trials of one session with what the section ``data`` says of them.

    Args:
        trials: as they were read.
        config: the configuration.
        number: of the session, by which it is split.
    """
    data = config.data
    if data.tlim is not None:
        trials = trials.limit_bins(data.tlim)
    if data.input_width is not None and trials.num_inputs:
        trials = trials.with_inputs(data.input_width)
    trials = trials.in_pieces(data.piece)
    if data.drop_silent_neurons:
        train = split_of(config, trials, number).train
        trials = trials.without_neurons(trials.neuron_ids[idle_neurons(train)])
    return trials
