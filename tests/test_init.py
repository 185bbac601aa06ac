"""What suits a recording: the configuration that init writes, and that is used where none is given."""

import numpy as np
import pytest
import yaml

from mrsds_ppl import cli
from mrsds_ppl.commands.init import suited
from mrsds_ppl.config import config_for, load_config
from mrsds_ppl.errors import ConfigError

RNG = np.random.default_rng(0)


def save(path, ys, **more):
    np.savez(path, ys=ys, region_names=["V1", "V2"], region_sizes=[3, 4], bin_width=0.05, **more)
    return str(path)


@pytest.fixture
def counts(tmp_path):
    """Ten trials of counts with two inputs."""
    us = RNG.normal(size=(10, 20, 2))
    ys = RNG.poisson(2.0, size=(10, 20, 7)).astype(float)
    return save(tmp_path / "counts.npz", ys, us=us, input_names=["wheel", "contrast"])


def said_of(capsys, *words):
    assert cli.main(list(words)) == 0
    return capsys.readouterr().out


def test_check_of_a_recording_alone_says_what_suits_it(counts, tmp_path, capsys):
    said = said_of(capsys, "check", counts, "-k", "3", "-d", "2")
    assert "V1 (3 neurons), V2 (4 neurons)" in said
    assert "bins of 0.05 s; 2 inputs" in said
    assert "3 states, latents [2, 2], poisson emissions (all signals are counts)" in said
    assert "note:" not in said
    assert said_of(capsys, "check", "--data-path", counts, "-k", "3", "-d", "2") == said
    continuous = save(tmp_path / "continuous.npz", RNG.normal(size=(10, 20, 7)))
    assert "2 states, latents [2, 2], gaussian emissions," in said_of(capsys, "check", continuous)


def test_settings_win_over_what_suits(counts):
    laws = {"V1": "negative_binomial", "V2": "poisson"}
    for written in (
        {"model.emissions.dist": laws},
        {f"model.emissions.dist.{name}": law for name, law in laws.items()},
    ):
        config, trials = suited({"data.data_path": counts, "training.num_steps": 7, **written})
        assert config.model.emissions.of_regions(trials.region_names) == ("negative_binomial", "poisson")
        assert config.training.optimiser.num_steps == 7


def test_defaults_are_those_of_a_fit_in_python(counts):
    config, trials = suited({"data.data_path": counts, "model.num_states": 3, "model.latent_dims": [4, 2]})
    assert config.model_copy(update={"data": None}) == config_for(3, [4, 2], emission="poisson").model_copy(
        update={"data": None}
    )
    assert trials.input_names == ["wheel", "contrast"]


def test_init_prints_a_configuration_that_says_what_suits_the_recording(counts, tmp_path, capsys):
    text = said_of(capsys, "init", counts)
    assert len(text.splitlines()) < 40
    for words in ("#   V1: 3 neurons\n", "#   V2: 4 neurons\n", "inputs drive the latents: wheel, contrast", "0.05"):
        assert words in text
    (tmp_path / "mine.yaml").write_text(text)
    config, _ = suited({"data.data_path": counts, "data.bin_width": 0.05})
    assert load_config(tmp_path / "mine.yaml") == config
    assert said_of(capsys, "check", str(tmp_path / "mine.yaml")) == said_of(capsys, "check", counts)


def test_init_writes_a_file_and_never_over_another(counts, tmp_path, capsys):
    out = tmp_path / "new" / "mine.yaml"
    assert f"{out}: written" in said_of(capsys, "init", counts, "-o", str(out))
    written = out.read_text()
    assert yaml.safe_load(written)["data"] == {"data_source": "mydata", "data_path": counts, "bin_width": 0.05}
    for words, part in (
        (["-o", str(out)], "there is such a file already"),
        (["-o", str(tmp_path / "mine.txt")], "allowed endings are .yaml and .yml"),
        (["--set", "training.num_steps=5"], "allowed are keys of data"),
        (["--set", "data.bin_with=5"], "did you mean data.bin_width?"),
    ):
        assert cli.main(["init", counts, *words]) == 2
        assert part in capsys.readouterr().err
    assert out.read_text() == written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counts.npz", "new"]


def test_init_reads_a_loader_and_names_that_are_no_plain_text(tmp_path, capsys):
    loader = tmp_path / "loader.py"
    loader.write_text(
        "import numpy as np\n"
        "from mrsds_ppl import Trials\n"
        "def load():\n"
        "    ys = np.random.default_rng(0).normal(size=(4, 9, 2))\n"
        "    return Trials.from_arrays(ys, region_sizes=[1, 1], region_names=['a\\nb: [', 'c'])\n"
    )
    (tmp_path / "mine.yaml").write_text(said_of(capsys, "init", f"{loader}:load"))
    config = load_config(tmp_path / "mine.yaml")
    assert (config.data.data_source, config.data.data_path) == (f"{loader}:load", None)
    assert said_of(capsys, "check", str(tmp_path / "mine.yaml")) == said_of(capsys, "check", f"{loader}:load")


def test_a_wrong_key_without_a_configuration_is_refused_like_one_in_it(counts, capsys):
    with pytest.raises(ConfigError, match=r"did you mean training\.num_steps\?"):
        suited({"data.data_path": counts, "training.num_stps": 3})
    assert cli.main(["fit", counts, "--set", "training.num_steps=0"]) == 2
    assert "training.num_steps: found 0" in capsys.readouterr().err
