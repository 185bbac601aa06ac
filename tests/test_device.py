"""What the compiler of this machine can be asked for, and how many programs of it a process keeps."""

import jax
import pytest

from mrsds_ppl.backend.device import known_options, make_room_for_programs


def test_options_that_the_compiler_does_not_have_are_left_out():
    options = {"xla_cpu_multi_thread_eigen": False, "xla_no_such_option": "1"}
    assert known_options(options) == {"xla_cpu_multi_thread_eigen": False}


def test_a_value_that_an_option_cannot_have_is_an_error():
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_cpu_multi_thread_eigen"):
        known_options({"xla_cpu_multi_thread_eigen": "perhaps"})


@pytest.mark.parametrize(("maps", "traced"), [(40, 1), (60, 2)])
def test_programs_are_forgotten_where_they_take_half_of_a_processs_memory_maps(tmp_path, maps, traced):
    """Beyond the last map the compiler ends the process: after some sixteen fits in one."""
    (tmp_path / "self").mkdir()
    (tmp_path / "sys" / "vm").mkdir(parents=True)
    (tmp_path / "self" / "maps").write_text("7f00-7f01 r-xp\n" * maps)
    (tmp_path / "sys" / "vm" / "max_map_count").write_text("100\n")
    calls = []
    program = jax.jit(lambda x: calls.append(x) or x)
    program(1.0)
    make_room_for_programs(tmp_path)
    program(1.0)
    assert len(calls) == traced


def test_a_system_that_tells_no_memory_maps_keeps_programs(tmp_path):
    calls = []
    program = jax.jit(lambda x: calls.append(x) or x)
    program(1.0)
    make_room_for_programs(tmp_path)
    program(1.0)
    assert len(calls) == 1
