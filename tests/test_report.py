"""The report: what its checks say of good and bad fits, and that its page stands alone."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
import yaml

from mrsds_ppl import cli
from mrsds_ppl.analysis.communication import communication_matrix
from mrsds_ppl.analysis.contrast import contrast_conditions
from mrsds_ppl.fitted import load
from mrsds_ppl.output.report.checks import Check, Evidence, run_checks
from mrsds_ppl.output.report.conditions import Conditions, conditions_section
from mrsds_ppl.output.report.edges import Edges, edges_section
from mrsds_ppl.output.report.flow import conditions_of
from mrsds_ppl.output.report.page import Figure, Section, Table, page, png_address

pytestmark = [pytest.mark.slow, pytest.mark.compiling]

mpl.use("agg")
SETTLED = np.concatenate([np.linspace(-3.0, -1.0, 100), -1.0 + 0.01 * np.sin(np.arange(400))])
GOOD = Evidence(
    step=500,
    num_steps=500,
    skipped=0,
    elbo=SETTLED,
    elbo_test=-1.01,
    occupancy=np.array([0.6, 0.4]),
    certainty=0.97,
    r2_train=0.41,
    r2_test=0.4,
    r2_hidden=0.38,
    r2_hidden_average=0.05,
    r2_hidden_linear=0.36,
)


def by_title(evidence):
    return {check.title: check for check in run_checks(evidence)}


def test_a_good_fit_passes_every_check():
    checks = run_checks(GOOD)
    assert len(checks) == 7
    assert {check.status for check in checks} == {"good"}


@pytest.mark.parametrize(
    ("change", "title", "status", "word"),
    [
        ({"step": 300}, "Training finished", "bad", "--resume"),
        ({"skipped": 3}, "Numerical trouble", "look", "not a finite number"),
        ({"skipped": 50}, "Numerical trouble", "bad", "learning rate"),
        ({"elbo": np.linspace(-3.0, -1.0, 500)}, "Training settled", "look", "training.num_steps"),
        ({"elbo": np.zeros(5)}, "Training settled", "look", "Too few"),
        (
            {"elbo": np.append(np.full(400, -1.0), np.linspace(-1.0, -50.0, 100))},
            "Training settled",
            "bad",
            "too large",
        ),
        ({"r2_test": 0.36}, "Training and test trials", "look", "by heart"),
        ({"r2_test": 0.1}, "Training and test trials", "bad", "by heart"),
        ({"r2_hidden": 0.04}, "Better than plain predictions", "bad", "Do not interpret"),
        ({"r2_hidden": 0.2}, "Better than plain predictions", "look", "latent"),
        ({"occupancy": np.array([0.995, 0.005])}, "States in use", "look", "State 1"),
        ({"certainty": 0.6}, "States told apart", "look", "hard to tell apart"),
    ],
)
def test_each_kind_of_trouble_is_found_and_told_in_words(change, title, status, word):
    checks = by_title(replace(GOOD, **change))
    assert checks[title].status == status
    assert word in checks[title].meaning
    assert {check.status for name, check in checks.items() if name != title} == {"good"}


def test_checks_that_do_not_apply_are_left_out():
    one_state = by_title(replace(GOOD, occupancy=np.ones(1), certainty=1.0))
    assert not {"States in use", "States told apart"} & set(one_state)
    nan = float("nan")
    nothing_hidden = by_title(replace(GOOD, r2_hidden=nan, r2_hidden_average=nan, r2_hidden_linear=nan))
    assert "Better than plain predictions" not in nothing_hidden


class Reader(HTMLParser):
    """Tags in order with their attributes; fails where one is closed that is not open."""

    def __init__(self):
        super().__init__()
        self.found, self.open, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def expect_page_that_stands_alone(html):
    reader = read(html)
    assert not re.search(r"https?://|@import|url\(", html)
    assert not {tag for tag, _ in reader.found} & {"script", "iframe", "object", "embed"}
    addresses = [a[k] for tag, a in reader.found for k in ("src", "href") if k in a]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    anchors = {a["id"] for _, a in reader.found if "id" in a}
    assert {address[1:] for address in addresses if address.startswith("#")} <= anchors
    assert all(a.get("alt") for tag, a in reader.found if tag == "img")
    viewport = [a["content"] for tag, a in reader.found if a.get("name") == "viewport"]
    assert viewport == ["width=device-width, initial-scale=1"]
    return reader


def small_page(**more):
    ax = plt.subplots()[1]
    figure = Figure(ax, "an empty figure", "Nothing <here>.")
    table = Table(["state", "share"], [["state 0", "60%"]])
    given = {
        "title": "Report of a & b",
        "subtitle": "sub",
        "facts": [("Regions", "<b>V1</b>")],
        "checks": run_checks(GOOD),
        "scores": Section("scores", "Scores", ["text"], [table]),
        "sections": [Section("one", "One", ["text"], [figure])],
        "listings": [("Log", "a < b")],
    }
    return page(**{**given, **more})


def test_page_stands_alone_and_shows_names_as_they_are():
    html = small_page()
    reader = expect_page_that_stands_alone(html)
    text = " ".join(reader.words)
    for words in ("Report of a & b", "<b>V1</b>", "Nothing <here>.", "a < b", "Every check is in order."):
        assert words in text
    assert plt.get_fignums() == []


def test_page_opens_with_what_is_wrong():
    bad = Check("bad", "Training finished", "300 of 500.", "Stopped early.")
    look = Check("look", "States in use", "5%.", "Rare.")
    assert "before this is mended: training finished." in small_page(checks=[bad, look])
    assert "look at: states in use." in small_page(checks=[look])


def test_page_fits_a_phone():
    html = small_page()
    assert re.search(r"figure img \{[^}]*max-width: 100%", html)
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto", html)
    assert html.count('<div class="scroll"><table>') == 1
    assert "@media (max-width: 40rem)" in html


def test_embedded_figure_is_a_png():
    import base64

    kind, _, data = png_address(plt.subplots()[1]).partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")


def edges_found(present):
    """Edges of two states and all, from V1 and LGN and an input; each at a tenth where it is present."""
    axes, shape = ("state", "target", "source"), (3, 2, 3)
    there = np.zeros(shape, bool)
    for edge in present:
        there[edge] = True
    own = np.broadcast_to(np.eye(2, 3, dtype=bool), shape)
    values = {"evidence": 1.25, "error": 0.5, "q_value": np.where(there, 0.0123, 0.8)}
    found = xr.Dataset({name: (axes, np.where(own, np.nan, value)) for name, value in values.items()})
    found["present"] = axes, there
    attrs = {"trials": 24, "false_discovery_rate": 0.1}
    return found.assign_coords(state=["0", "1", "all"]).assign_attrs(attrs)


def edges_page(edges):
    return edges_section(edges, np.ones((2, 2, 3)), ["state 0", "state 1"], ["V1", "LGN"], ["V1", "LGN", "input 0"])


def test_edges_that_are_present_are_drawn_and_listed_and_no_others():
    section = edges_page(Edges(edges_found([(0, 1, 0), (2, 1, 0), (2, 0, 2)])))
    assert section.text[0] == "2 of 4 messages are present, in all states together; in single states 1 of 8."
    figure, table = section.parts
    assert len(figure.axes) == 1
    assert table.rows == [
        ["0", "V1 to LGN", "1.25 (0.50)", "0.012"],
        ["all", "input 0 to V1", "1.25 (0.50)", "0.012"],
        ["all", "V1 to LGN", "1.25 (0.50)", "0.012"],
    ]
    plt.close("all")


def test_edges_that_trials_could_not_show_are_no_claim():
    section = edges_page(Edges(edges_found([])))
    assert section.parts == []
    assert section.text[0] == "None of the 4 messages between regions and from inputs could be shown by these trials."
    assert edges_page(Edges(reason="found 3 trials")).text == ["This page cannot say: found 3 trials"]


@pytest.fixture(scope="module")
def counts_run(tmp_path_factory):
    """A tiny run on counts: three states, regions of 2, 1 and 3 latents, inputs, trials of unequal length."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    y = rng.poisson(1.0, (12, 20, 10)).astype(np.float32)
    y[2, 3:6, 1] = np.nan
    names = np.array(["V1", "LGN", "motor <cortex>"])
    np.savez(
        folder / "data.npz",
        ys=y,
        us=rng.normal(size=(12, 20, 2)),
        region_sizes=np.array([4, 3, 3]),
        region_names=names,
        lengths=rng.integers(12, 21, 12),
        bin_width=np.array(0.02),
    )
    config = {
        "data": {"data_source": "mydata"},
        "model": {
            "num_states": 3,
            "latent_dims": [2, 1, 3],
            "emissions": {"dist": "poisson"},
            "xtransition": {"dynamics": {"layers": [4], "activations": ["relu"]}},
        },
        "inference": {"embedding": {"layers": [3], "activations": [None]}, "convolution_params": {"channels": 4}},
        "training": {"num_steps": 24, "log_steps": 8, "save_steps": 8, "batch_size": 5, "switch_init_steps": 0},
        "output": {"draws": 8},
    }
    config["training"]["test_perc"] = 0.3
    (folder / "counts.yaml").write_text(yaml.safe_dump(config))
    command = ["fit", str(folder / "counts.yaml"), "--data-path", str(folder / "data.npz")]
    assert cli.main([*command, "--result-path", str(folder)]) == 0
    return folder / "counts"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "options", "words", "figures"),
    [
        (
            "finished_run",
            ["--quick"],
            ["V1 (4 neurons, 1 latent)", "9 to train on, 3 kept", "12 of 12 steps", "2 discrete states"],
            9,
        ),
        pytest.param(
            "counts_run",
            [],
            [
                "V1 (4 neurons, 2 latents)",
                "LGN (3 neurons, 1 latent)",
                "8 to train on, 4 kept",
                "24 of 24 steps",
                "3 discrete states",
                "bits per spike",
            ],
            11,
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_report_of_a_run_is_one_page_that_stands_alone(run, options, words, figures, request, tmp_path, capsys):
    run, path = request.getfixturevalue(run), tmp_path / "page.html"
    assert cli.main(["report", f"{run}-log.txt", "--out", str(path), *options]) == 0
    assert str(path) in capsys.readouterr().out
    reader = expect_page_that_stands_alone(path.read_text(encoding="utf-8"))
    text = " ".join(reader.words)
    for some in (*words, "motor <cortex>", "num_steps: "):
        assert some in text, some
    # Latents, states, activity twice, messages, graph, a flow of each region, hidden neurons, training.
    assert sum(tag == "img" for tag, _ in reader.found) == figures
    assert plt.get_fignums() == []


@pytest.mark.slow
@pytest.mark.nightly
def test_report_tests_two_conditions_where_trials_are_labelled(counts_run, tmp_path, capsys):
    run, table, path = load(counts_run), tmp_path / "labels.csv", tmp_path / "page.html"
    ids = run.trials.ids

    def write(labels):
        table.write_text("trial,label\n" + "".join(f"{i},{label}\n" for i, label in zip(ids, labels, strict=True)))
        assert cli.main(["report", str(counts_run), "--out", str(path), "--labels", str(table)]) == 0
        reader = expect_page_that_stands_alone(path.read_text(encoding="utf-8"))
        return " ".join(reader.words), sum(tag == "img" for tag, _ in reader.found)

    # Trials are alike, and labels say nothing of them.
    text, figures = write(["go", "stop"] * 6)
    assert "Communication by condition" in text
    assert "No difference between go and stop that these 12 trials could show." in text
    for claim in ("interval)", "overlap", "differs most"):
        assert claim not in text, claim
    assert figures == 13  # with states and latents by condition
    few, several = (conditions_of(run, np.array(some)) for some in (["go"] * 10 + ["stop"] * 2, list("abcdefgghiij")))
    assert "found 10 trials of 'go' and 2 of 'stop'; need at least 4 of each" in few.reason
    assert few.contrast is several.contrast is None
    assert several.names == ["a", "b", "c", "d", "g", "i"]
    told = run.messages("all", draws=20)
    for place, name in enumerate(several.names):
        alone = communication_matrix(told.isel(trial=np.flatnonzero(np.array(list("abcdefgghiij")) == name)))
        np.testing.assert_allclose(several.mean[place], alone.mean("draw").values, rtol=1e-5)
    table.write_text("trial,label\n")
    assert cli.main(["report", str(counts_run), "--labels", str(table)]) == 2
    assert f"no label for the trials {ids[0]}" in capsys.readouterr().err


REGIONS = ["V1", "LGN"]


def contrast_of(size):
    """Twenty trials of each condition, of which one message differs."""
    rng = np.random.default_rng(0)
    values = 1.0 + 0.1 * rng.normal(size=(40, 2, 3))
    values[::2, 0, 1] += size
    coords = {"target": REGIONS, "source": [*REGIONS, "input 0"]}
    norms = xr.DataArray(values[None], coords, ("draw", "trial", "target", "source"))
    return contrast_conditions(norms, np.array(["stop", "go"] * 20), permutations=999)


def section_of(**found):
    names = ["go", "stop"] if "mean" not in found else list("abc")[: len(found["mean"])]
    conditions = Conditions(names, np.full(len(names), 20), **found)
    return conditions_section(conditions, REGIONS, [*REGIONS, "input 0"])


def test_page_lists_the_messages_that_differ_between_two_conditions():
    section = section_of(contrast=contrast_of(0.5))
    assert section.text[0] == "1 message of 4 differs between go and stop, at a false discovery rate of 5%."
    (table,) = section.parts
    assert table.head == ["Message", "go", "stop", "difference (90% interval)", "q"]
    ((name, *_, difference, q),) = table.rows
    assert name == "LGN to V1"
    found = re.fullmatch(r"\+(0\.\d+) \(\+(0\.\d+) to \+(0\.\d+)\)", difference)
    assert found, difference
    middle, low, high = map(float, found.groups())
    assert 0.3 < low < middle < high < 0.7
    assert float(q) < 0.05


def test_page_says_where_trials_show_no_difference():
    section = section_of(contrast=contrast_of(0.0))
    assert section.text[0] == "No difference between go and stop that these 40 trials could show."
    assert section.parts == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"mean": np.ones((3, 2, 3))}, "A contrast is between two conditions"),
        ({"mean": np.ones((2, 2, 3)), "reason": "found 3 trials."}, "No contrast was computed: found 3 trials."),
    ],
)
def test_page_shows_means_of_several_conditions_and_claims_nothing(found, words):
    section = section_of(**found)
    assert words in section.text[1]
    assert "does not test whether the conditions do" in section.text[1]
    assert len(section.parts) == 1


def test_run_that_has_not_ended_is_refused(tmp_path, capsys):
    (tmp_path / "first-config.yaml").touch()
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "first_latents.mat: no such file, so the run has not ended yet" in capsys.readouterr().err
