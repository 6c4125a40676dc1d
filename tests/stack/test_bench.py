"""A short run of `scripts/bench.sh` measures every layer; the test requires no speed."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.bench.__main__ import LAYERS
from tests.conftest import Figure
from tests.stack.harness import ROOT

pytestmark = pytest.mark.drill


def test_the_benchmark_counts_both_sides_and_each_layer(tmp_path: Path, figure: Figure) -> None:
    file = tmp_path / "bench.json"
    argv = ["./scripts/bench.sh", "--rounds", "1", "--seconds", "1", "--json", str(file)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text(encoding="utf-8"))
    assert [row["layer"] for row in found["layers"]] == ["whole path", *LAYERS]
    assert all(
        row["per_second"] > 1
        for row in (found["whole_path"], found["bare_uvicorn"], *found["layers"])
    )
    assert all(found["machine"].values())
    assert f"{found['ratio']['median']:.2f}" in done.stdout
    figure(
        "whole path against bare uvicorn, one burst of a second each: "
        f"{found['ratio']['median']:.2f}"
    )
