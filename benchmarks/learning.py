"""Record what a finished run reached: scores, training time, command, seed, date, versions and machine.

    python benchmarks/learning.py RUN_FOLDER DATA SPLIT "THE TRAINING COMMAND"

Writes or replaces the run's entry in benchmarks/results/learning.json, under the name of model and data.
"""

import csv
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import bestiary
from bestiary.training.checkpoint import read_facts

RESULTS = Path(__file__).parent / "results" / "learning.json"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main(folder: Path, data: str, split: str, command: str) -> None:
    checkpoint = folder / "last.safetensors"
    with (folder / "results.csv").open() as file:
        minutes = sum(float(row["seconds"]) for row in csv.DictReader(file)) / 60
    facts = read_facts(checkpoint)
    measured = bestiary.evaluate(bestiary.load(checkpoint), data, split)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    entry: dict[str, Any] = {
        "command": command,
        "measured_on": split,
        "scores": [{"protocol": s.protocol, "values": s.values, "per_class": s.per_class} for s in measured.scores],
        "training_minutes": round(minutes, 1),
        "seed": facts["recipe"]["seed"],
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "measured_at_commit": commit.stdout.strip(),
        "machine": f"{os.cpu_count()} cores of {processor()}, {platform.system()}",
        "versions": {"bestiary": bestiary.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known[f"{facts['model']} on {Path(data).name}"] = entry
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    for scores in measured.scores:
        print(scores)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4])
