"""Conditions of trials from a table."""

from pathlib import Path

import numpy as np
import pytest

from mrsds_ppl.data.labels import read_labels
from mrsds_ppl.errors import DataError


def test_labels_come_in_the_order_of_the_trials_that_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("\ufefftrial, label\r\n3,left\r\n\r\n1, right side\r\n7,other\r\n", encoding="utf-8")
    np.testing.assert_array_equal(read_labels(file, np.array([1, 3])), ["right side", "left"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found the header ''"),
        ("1,left\n", "found the header '1,left'; need a CSV file with the header trial,label"),
        ("trial,label\none,left\n", "found the line 'one,left'"),
        ("trial,label\n1\n", "found the line '1'"),
        ("trial,label\n1,a\n1,b\n", "trial 1 has the labels 'a' and 'b'; give it one"),
        ("trial,label\n1,a\n", "no label for the trials 2, 3, 4, 5, 6 and 1 more; add them"),
    ],
)
def test_tables_that_do_not_say_it_all_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        read_labels(file, range(1, 8))
    assert message in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv: cannot be read \(No such file or directory\); need a CSV"):
        read_labels(tmp_path / "labels.csv", [1])
