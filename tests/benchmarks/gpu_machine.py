"""What a run stands on: the device, its memory and driver, versions, commit. One JSON line.

python tests/benchmarks/gpu_machine.py --device cuda
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from typing import Any

import torch
from measuring import report


def main() -> None:
    """Print it; end with one line where torch sees no such device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    figures: dict[str, Any] = {"torch_built_for_cuda": torch.version.cuda}
    if args.device == "cuda":
        if not torch.cuda.is_available():
            raise SystemExit(
                f"torch {torch.__version__} sees no CUDA device (built for CUDA "
                f"{torch.version.cuda}); run on a machine with one, or rehearse with --rehearse"
            )
        about = torch.cuda.get_device_properties(0)
        figures |= {
            "devices": torch.cuda.device_count(),
            "memory_gib": round(about.total_memory / 2**30, 1),
            "multiprocessors": about.multi_processor_count,
            "compute_capability": f"{about.major}.{about.minor}",
            "bf16": torch.cuda.is_bf16_supported(),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "driver": _smi("driver_version"),
            "power_limit": _smi("power.limit"),
            "mig": _smi("mig.mode.current"),
        }
    report("machine", figures, device=args.device)


def _smi(field: str) -> str | None:
    """What the driver's own tool says of a field; None where there is no such tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    done = subprocess.run(
        [tool, f"--query-gpu={field}", "--format=csv,noheader", "--id=0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout.strip() or None


if __name__ == "__main__":
    main()
