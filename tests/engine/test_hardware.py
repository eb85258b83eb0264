"""The description of the processor that figures are measured with."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import hardware
from engine.hardware import describe_processor


@pytest.mark.parametrize(
    ("flags", "units"),
    [("fpu avx2 avx512f amx_tile", "AMX"), ("fpu avx2 avx512f", "AVX-512"), ("fpu sse2", "")],
)
def test_a_processor_is_named_with_its_widest_vector_units(
    flags: str, units: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: {flags}\n")
    monkeypatch.setattr(hardware, "CPUINFO", cpuinfo)

    found = describe_processor()

    assert (found["processor"], found["units"]) == ("Some CPU @ 2 GHz", units)


def test_where_linux_does_not_tell_the_units_are_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "absent")

    assert describe_processor()["units"] == ""
