"""The pages: every key of a run's files is explained, no page is too long, every link leads somewhere."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import yaml
from posterior_of import posterior_of, two_region_trials

from mrsds_ppl.models import MRSDS
from mrsds_ppl.output.datatree import posterior_tree
from mrsds_ppl.output.matfile import EVALUATION_KEYS, HISTORY_KEYS, write_latents
from mrsds_ppl.storage.paths import RunPaths

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
SCRIPTS = sorted(path for path in DOCS.glob("*.py") if "__main__" in path.read_text())
MOST_WORDS = {DOCS / "what-was-tried.md": 1500}


def explained():
    """What stands in code type on the page about the files."""
    return set(re.findall(r"`([^`\n]+)`", (DOCS / "files.md").read_text()))


def parts():
    trials = two_region_trials()
    train, test = trials.select(np.array([0, 1, 2])), trials.select(np.array([3, 4]))
    return {"train": train, "test": test}, {"train": posterior_of(train), "test": posterior_of(test)}


def test_every_key_of_the_mat_file_is_explained(tmp_path):
    trials, sets = parts()
    write_latents(
        tmp_path / "run.mat",
        train=sets["train"],
        test=sets["test"],
        train_trials=trials["train"],
        test_trials=trials["test"],
        dropout_ids=np.array([1]),
        latent_region_sizes=[2, 1],
        history={key: np.zeros(3) for key in HISTORY_KEYS},
        evaluations={key: [0.0] for key in EVALUATION_KEYS},
    )
    written = {name for name, _, _ in scipy.io.whosmat(tmp_path / "run.mat")}
    assert written - explained() == set()


def test_every_group_variable_and_coordinate_of_the_posterior_file_is_explained():
    import jax

    trials, sets = parts()
    model = MRSDS([3, 2], [2, 1], 2, num_inputs=1, key=jax.random.key(0))
    params = {f"{name}$params": part for name, part in model.networks._asdict().items()}
    tree = posterior_tree(
        sets=sets,
        trials=trials,
        which="all",
        latent_region_sizes=[2, 1],
        global_parameters=model.global_parameters(params),
        attrs={},
    )
    found = set(tree.children)
    for group in tree.children.values():
        found |= {str(name) for name in group.variables}
    assert {"x", "z_prob", "pareto_k", "u", "readout_weight", "latent_region"} <= found
    assert found - explained() == set()


def test_every_file_of_a_run_is_explained():
    paths = RunPaths(Path(), "NAME")
    files = {getattr(paths, name).name for name, value in vars(RunPaths).items() if isinstance(value, property)}
    assert {name for name in files if name not in {text.rstrip("/") for text in explained()}} == set()


def test_the_readme_has_at_most_120_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_no_page_is_too_long(page):
    assert len(page.read_text().split()) <= MOST_WORDS.get(page, 2000)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_relative_links_lead_to_files_and_headings(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}, link


def test_every_page_is_in_the_navigation():
    def pages(entry):
        if isinstance(entry, str):
            return [entry]
        return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in pages(part)]

    listed = yaml.safe_load((ROOT / "mkdocs.yml").read_text().replace("!ENV ", ""))["nav"]
    assert sorted(pages(listed)) == [str(page.relative_to(DOCS)) for page in PAGES]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_scripts_import_only_what_there_is(script):
    runpy.run_path(str(script), run_name="imported")
