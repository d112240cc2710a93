"""Times the operators, beside their peers where those are installed, and writes benchmarks/results/ops.json.

    OMP_NUM_THREADS=2 OMP_PROC_BIND=true GOMP_SPINCOUNT=10000 python benchmarks/ops.py [FAMILY ...] [--rounds 15]

The families are the modules of benchmarks/op_cases. Each number is the median over rounds, in milliseconds; operator
and peer take turns within a round, so that a slow moment hits both. `cpu_per_wall` near the number of threads means
that both threads really ran. torchvision has no build for CPU-only torch: its column needs an environment with the
CUDA pair.
"""

import argparse
import datetime
import importlib
import json
import pkgutil
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import op_cases
from benchmarks.op_cases import Case, Peers

RESULTS = Path(__file__).parent / "results" / "ops.json"
FAMILIES = tuple(sorted(m.name for m in pkgutil.iter_modules(op_cases.__path__)))


def installed(name: str) -> ModuleType | None:
    """The module, or None where it cannot be imported."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError):
        return None


def measure(case: Case, rounds: int) -> dict[str, object]:
    """The case's row of the results."""
    start = time.perf_counter()
    case.ours()
    first = time.perf_counter() - start
    if case.peer:
        case.peer()
    times: list[float] = []
    peer_times: list[float] = []
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(rounds):
        for work, into in ((case.ours, times), (case.peer, peer_times)):
            if work:
                start = time.perf_counter()
                work()
                into.append(time.perf_counter() - start)
    share = (time.process_time() - cpu) / (time.perf_counter() - wall)
    ours = statistics.median(times)
    row: dict[str, object] = {
        "op": case.name,
        "ms": round(ours * 1e3, 3),
        "best_ms": round(min(times) * 1e3, 3),
        "first_call_ms": round(first * 1e3, 1),
        "cpu_per_wall": round(share, 2),
    }
    if case.target is not None:
        row["wanted"] = case.target
    if peer_times:
        row["peer"] = case.peer_name
        row["peer_ms"] = round(statistics.median(peer_times) * 1e3, 3)
        row["times_faster"] = round(statistics.median(peer_times) / ours, 2)
    return row


def known_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def facts(threads: int) -> dict[str, object]:
    """Where and with what the numbers were taken."""
    here = Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=here).stdout.strip()
    names = ("torch", "numba", "numpy", "torchvision", "pycocotools", "opencv-python-headless")
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit or "unknown",
        "machine": f"{platform.processor() or platform.machine()}, {platform.system()}, {threads} threads",
        "python": platform.python_version(),
        "versions": {name: found for name in names if (found := known_version(name))},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {', '.join(FAMILIES)}; all if none is named")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    vision = installed("torchvision")
    peers = Peers(vision if vision and installed("torchvision.ops") else None, installed("pycocotools.mask"))
    report = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for family in arguments.families or FAMILIES:
        rows = []
        for case in importlib.import_module(f"benchmarks.op_cases.{family}").cases(peers):
            if arguments.only in case.name:
                rows.append(measure(case, arguments.rounds))
                print(json.dumps(rows[-1]), flush=True)
        if not arguments.only:
            report[family] = {**facts(arguments.threads), "results": rows}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
