"""What the compiler of this machine can be asked for."""

import jax
import pytest

from mrsds_ppl.backend.device import known_options


def test_options_that_the_compiler_does_not_have_are_left_out():
    options = {"xla_cpu_multi_thread_eigen": False, "xla_no_such_option": "1"}
    assert known_options(options) == {"xla_cpu_multi_thread_eigen": False}


def test_a_value_that_an_option_cannot_have_is_an_error():
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_cpu_multi_thread_eigen"):
        known_options({"xla_cpu_multi_thread_eigen": "perhaps"})
