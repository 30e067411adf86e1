"""The kernels for attention maps: what they compute, that a GPU's compiler takes them, and where they are not used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mmkd.models import fused_maps
from mmkd.models.attention import mult_mask
from mmkd.models.scores import Scores

KERNELS = ["log_normaliser", "mean_map", "query_gradient", "key_gradient"]
SHARED_MEMORY = 99 * 2**10
"""Bytes that a program may have on every GPU since 2020; an H200 has 227 KiB."""


def run_cases(**environment: str) -> str:
    command = [sys.executable, "-m", "pytest", "-n", "0", "-W", "ignore", "kernel_cases.py"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "TRITON"))}
    done = subprocess.run(
        command, cwd=Path(__file__).parent, env=inherited | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_kernels_make_the_maps_and_gradients_of_torchs_operators_in_tritons_interpreter(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton is not installed here; torch brings it with CUDA on Linux")
    said = run_cases(TRITON_INTERPRET="1", TRITON_CACHE_DIR=str(tmp_path))
    assert " passed" in said


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_kernels_make_the_maps_and_gradients_of_torchs_operators_on_a_gpu() -> None:
    assert " passed" in run_cases()


class NoGpu:
    """Triton's word for a device, here an H100 or H200, to build for and not to run on."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The kernels that are called, built instead of run."""
    pytest.importorskip("triton", reason="Triton is not installed here; torch brings it with CUDA on Linux")
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    found: list[Any] = []
    run = JITFunction.run

    def build(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        found.append(run(kernel, *arguments, grid=grid, warmup=True, **options))

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(driver, "_active", NoGpu())
    monkeypatch.setattr(JITFunction, "run", build)
    return found


def call_all(rows: int, keys: int, width: int, *, masked: bool) -> None:
    query, key = torch.randn(2, 3, rows, width), torch.randn(2, 3, keys, width)
    scores = Scores(query, key, mult_mask(rows, keys, query.device) if masked else None)
    mean, normaliser = fused_maps.mean_map(scores, 1.0)
    fused_maps.gradients(scores, 1.0, normaliser, mean, query.clone(), key.clone())


@pytest.mark.parametrize(("masked", "tf32"), [(True, False), (False, True)])
def test_the_kernels_compile_for_an_h200_without_atomics_once_for_all_sizes(
    masked: bool, tf32: bool, built: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_maps, "_tf32", lambda: tf32)
    call_all(7, 13, 5, masked=masked)
    assert [kernel.metadata.name for kernel in built] == KERNELS
    for kernel in built:
        ptx = kernel.asm["ptx"]
        assert kernel.asm["cubin"]
        assert kernel.metadata.shared <= SHARED_MEMORY
        assert "st.global" in ptx
        assert not [line for line in ptx.splitlines() if line.strip().startswith(("atom.", "red."))]
        # Factors of float32 products are rounded only by the user's leave.
        assert ("tf32" in ptx) == tf32
    for rows, keys, width in ((64, 32, 16), (1, 1, 1)):
        call_all(rows, keys, width, masked=masked)
    assert len(built) == 3 * len(KERNELS)
    assert len({kernel.hash for kernel in built}) == len(KERNELS)


@pytest.mark.parametrize("width", [1, 5, 16, 17, 100, 256])
def test_a_block_holds_a_whole_head(width: int) -> None:
    held = fused_maps.blocks(width)["WIDTH"]
    assert held >= max(width, 16)
    assert held & (held - 1) == 0
    assert held < 2 * width or held == 16


def test_products_are_rounded_to_tf32_only_where_the_user_lets_torch_do_so() -> None:
    assert not fused_maps._tf32()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        assert fused_maps._tf32()
    finally:
        torch.set_float32_matmul_precision(before)
    assert not fused_maps._tf32()


class OnGpu:
    """What is asked of a tensor before a kernel is chosen."""

    is_cuda, dtype, device = True, torch.float32, torch.device("cuda")

    def __init__(self, *shape: int, dtype: torch.dtype = torch.float32) -> None:
        self.shape, self.dtype = shape, dtype


def test_kernels_are_for_float32_on_a_gpu_and_heads_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[torch.device, int]] = []
    monkeypatch.setattr(fused_maps, "_agree", lambda *which: asked.append(which) or True)
    use: Any = fused_maps.use_kernels
    assert use(OnGpu(2, 3, 7, 8))
    assert asked == [(torch.device("cuda"), 8)]
    assert not use(OnGpu(2, 3, 7, 257))
    assert not use(OnGpu(2, 3, 7, 8, dtype=torch.float64))
    assert not use(OnGpu(2, 3, 7, 8, dtype=torch.bfloat16))
    assert not use(torch.zeros(2, 3, 7, 8))
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (RuntimeError("Failed to find C compiler.\nPlease"), "RuntimeError: Failed to find C compiler."),
        (ModuleNotFoundError("No module named 'triton'"), "ModuleNotFoundError: No module named 'triton'"),
        (0.5, "they differ from torch's operators by 0.5"),
        (float("nan"), "they differ from torch's operators by nan"),
    ],
)
def test_where_kernels_do_not_work_one_line_says_why_and_torchs_operators_are_used(
    found: float | Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def difference(device: torch.device, width: int) -> float:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(fused_maps, "_difference", difference)
    fused_maps._agree.cache_clear()
    assert not fused_maps.use_kernels(OnGpu(2, 3, 7, 8))  # type: ignore[arg-type]
    assert not fused_maps.use_kernels(OnGpu(2, 3, 7, 8))  # type: ignore[arg-type]
    fused_maps._agree.cache_clear()
    assert capsys.readouterr().err == f"warning: no Triton kernels for attention maps ({said}): it is slower\n"


def test_a_full_gpu_is_no_reason_to_do_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def difference(device: torch.device, width: int) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(fused_maps, "_difference", difference)
    fused_maps._agree.cache_clear()
    with pytest.raises(torch.OutOfMemoryError):
        fused_maps.use_kernels(OnGpu(2, 3, 7, 8))  # type: ignore[arg-type]
