"""Conditions of trials from a table."""

from pathlib import Path

import numpy as np
import pytest

from mrsds_ppl.data.labels import labels_of, read_labels
from mrsds_ppl.errors import DataError


def test_labels_come_in_the_order_of_the_trials_that_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("\ufefftrial, label\r\n3,left\r\n\r\n1, right side\r\n7,\r\n", encoding="utf-8")
    np.testing.assert_array_equal(read_labels(file, np.array([1, 3, 7])), ["right side", "left", ""])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found the header ''"),
        ("1,left\n", "found the header '1,left'; need a CSV file with the header trial,label"),
        ("trial,label\none,left\n", "found the line 'one,left'"),
        ("trial,label\n1\n", "found the line '1'"),
        ("trial,label\n1,a\n1,b\n", "trial 1 has the labels 'a' and 'b'; give it one"),
        ("trial,label\n1,a\n", "no label for the trials 2, 3, 4, 5, 6 and 1 more; add them"),
        (
            "trial,label\n" + "".join(f"{number},a\n" for number in range(1, 10)),
            "labels of trials that do not exist 8, 9; the ids are 1 to 7",
        ),
        # Off by one.
        ("trial,label\n" + "".join(f"{number},a\n" for number in range(7)), "no label for the trials 7"),
    ],
)
def test_tables_that_do_not_say_it_all_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        read_labels(file, range(1, 8))
    assert message in str(caught.value)


def test_labels_by_trial_or_in_order() -> None:
    ids = np.array([3, 5, 8])
    np.testing.assert_array_equal(labels_of({8: "b", 3: 1, 5: None}, ids), ["1", "", "b"])
    np.testing.assert_array_equal(labels_of(["b", None, 1.5], ids), ["b", "", "1.5"])
    for wrong, message in (
        ({3: "a", 5: "a", 8: "b", 9: "b"}, "labels of trials that do not exist: 9. The ids are 3 to 8"),
        ({3: "a", 5: "a"}, "no label for the trials: 8"),
        ({2: "a", 4: "a", 7: "b"}, "labels of trials that do not exist: 2, 4, 7"),
        (["a", "b"], r"found shape \(2,\), but there are 3 trials"),
        (None, "the recording has none"),
    ):
        with pytest.raises(DataError, match=message):
            labels_of(wrong, ids)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv: cannot be read \(No such file or directory\); need a CSV"):
        read_labels(tmp_path / "labels.csv", [1])
