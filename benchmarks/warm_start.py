"""Ten nights of retraining: on from the last night's model, against training anew each time.

Run: python -m benchmarks.warm_start [--patients 4000] [--nights 10] [--days 7] [--preset night]

The demo hospital, its last weeks. Before the first night one model is trained from nothing. Then, every ``--days``
days, both ways train on the newest snapshot: ``warm`` starts from the model of the night before, on the grown
vocabulary, with the preset's share of the budget; ``anew`` from nothing with all of it. Both are judged on the same
held-out patients.
``loss_difference`` and ``auroc_difference`` are warm less anew, means over the nights; ``cost`` is warm's CPU time over
anew's.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from benchmarks.big_hospital import server
from benchmarks.held_out import held_out_loss, macro_auroc


@dataclass(frozen=True)
class Trained:
    """One night's model: its folder, CPU seconds of training, held-out loss and macro AUROC."""

    folder: Path
    seconds: float
    loss: float
    auroc: float


def snapshots(patients: int, nights: int, days: int) -> list[date]:
    """A demo hospital and its committed days: the first for the model that all begins with, then one per night."""
    from ml.demo.load import advance, load_demo, status
    from ml.extraction import commit_snapshot, extract
    from ml.quality import validate

    load_demo(patients)
    end = status().end
    advance(end)
    found = [end - timedelta(days=days * back) for back in range(nights, -1, -1)]
    for day in found:
        extract(day)
        validate(day)
        commit_snapshot(day)
    return found


def train(day: date, place: Path, initial: Path | None) -> Trained:
    """Both stages on the snapshot of a day, in a data directory of their own."""
    from ml.cohorts import make_labels, open_run
    from ml.sequences import prepare
    from ml.settings import get_settings
    from ml.training import launch

    os.environ["VIGIL_DATA"] = str(place)
    get_settings.cache_clear()
    run = open_run(day)
    make_labels(run)
    prepare(run, initial)
    began = _children()
    launch("pretrain", run, initial)
    launch("finetune", run)
    seconds = _children() - began
    return Trained(run.finetuned, seconds, held_out_loss(run.finetuned, run), macro_auroc(run))


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=4_000, help="size of the demo hospital")
    parser.add_argument("--nights", type=int, default=10, help="nights after the first model")
    parser.add_argument("--days", type=int, default=7, help="days from night to night")
    parser.add_argument("--preset", default="night", help="model and budgets")
    options = parser.parse_args()
    with server(preset=options.preset) as place:
        os.environ["VIGIL_EVENT_LOG"] = str(place.home / "log")
        first, *nights = snapshots(options.patients, options.nights, options.days)
        warm = train(first, place.home / "warm", None)
        print(f"{'':12}{'loss':>16}{'':6}{'AUROC':>18}{'':6}{'CPU seconds':>12}")
        print(f"{'night':12}{'warm':>11}{'anew':>11}{'warm':>12}{'anew':>12}{'warm':>8}{'anew':>8}")
        found = []
        for night in nights:
            warm = train(night, place.home / "warm", warm.folder)
            anew = train(night, place.home / "anew", None)
            found.append((warm, anew))
            print(
                f"{night!s:12}{warm.loss:11.3f}{anew.loss:11.3f}{warm.auroc:12.4f}{anew.auroc:12.4f}"
                f"{warm.seconds:8.0f}{anew.seconds:8.0f}",
                flush=True,
            )
    loss = statistics.mean(warm.loss - anew.loss for warm, anew in found)
    area = statistics.mean(warm.auroc - anew.auroc for warm, anew in found)
    cost = sum(warm.seconds for warm, _ in found) / sum(anew.seconds for _, anew in found)
    print(
        f"cost={cost:.2f} peer=training-anew loss_difference={loss:+.4f} auroc_difference={area:+.4f} "
        f"nights={len(found)} patients={options.patients}"
    )


if __name__ == "__main__":
    main()
