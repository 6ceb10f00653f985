"""The hospitals that `make nightly DATA=…` knows: where their records come from and how Vigil is set for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from ml.common.errors import ConfigError


@dataclass(frozen=True)
class Hospital:
    """How one hospital is brought up.

    Attributes:
        loader: words of the `vigil` command that fills the EHR database; a directory of records is appended
            where ``needs_records``.
        settings: the ``VIGIL_*`` settings of the deployment. Each names the end of its calendar, which lies in the
            past: without one the scheduler would start last night's run by itself.
        about: one line for the person who watches.
    """

    name: str
    about: str
    loader: tuple[str, ...]
    needs_records: bool = False
    settings: dict[str, str] = field(default_factory=dict)

    def last_day(self) -> date:
        """The last day of which the hospital has records: the first night's."""
        if self.name == "demo":
            from ml.demo import today

            return today()
        from ml.extraction import last_recorded_day

        return last_recorded_day()

    def load_command(self, records: Path | None) -> list[str]:
        """The words after `vigil`.

        Raises:
            ConfigError: the hospital's records are not at hand.
        """
        if not self.needs_records:
            return [*self.loader]
        if records is None or not records.is_dir():
            raise ConfigError(
                f"the records of '{self.name}' are not at {records or 'any directory'}",
                "set VIGIL_TEST_DATA to the directory that holds them, or give --records",
            )
        return [*self.loader, str(records)]


# Each shard's task is a process that imports torch: two are as fast as four where there are two cores.
COMMON = {"VIGIL_SHARDS": "2"}

HOSPITALS = {
    hospital.name: hospital
    for hospital in (
        Hospital(
            name="demo",
            about="the demo hospital: generated patients whose truth is known",
            loader=("demo", "load"),
            settings={"VIGIL_CALENDAR_END": "2026-01-31"},
        ),
        Hospital(
            name="diabetes130",
            about="71,518 real diabetic inpatients of 130 US hospitals, 1999-2008",
            loader=("load", "diabetes130"),
            needs_records=True,
            settings={"VIGIL_TASKS": '["heart_failure_later_encounter"]', "VIGIL_CALENDAR_END": "2009-12-31"},
        ),
        Hospital(
            name="mimic-iv-demo",
            about="100 real de-identified patients of the MIMIC-IV demo",
            loader=("load", "mimic-iv"),
            needs_records=True,
            settings={
                "VIGIL_SOURCE": "mimic_iv",
                "VIGIL_SOURCE_SCHEMA": "mimiciv_hosp",
                "VIGIL_TASKS": '["death", "heart_failure"]',
                "VIGIL_CALENDAR_END": "2022-12-31",
            },
        ),
    )
}


def find_hospital(name: str) -> Hospital:
    """The hospital of a name.

    Raises:
        ConfigError: it is not known.
    """
    if name not in HOSPITALS:
        raise ConfigError(f"unknown hospital '{name}'", f"choose one of {', '.join(HOSPITALS)}")
    return HOSPITALS[name]
