"""The one settings object. Nothing else in Vigil reads the environment.

Values come, first match wins, from environment variables ``VIGIL_*``, then from
``$VIGIL_HOME/vigil.env`` (written 0600 by the embedded stack), then from the defaults here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from ml.common.errors import ConfigError


class Role(StrEnum):
    """A least-privilege Postgres role; each has a connection string of its own."""

    LOAD = "load"  # EHR database: owns schema ehr, used by loaders and the demo hospital
    EXTRACT = "extract"  # EHR database: reads schema ehr
    TRUTH = "truth"  # EHR database: owns schema truth, the demo's truth
    MIGRATE = "migrate"  # Vigil database: owns the schemas, runs migrations
    QUALITY = "quality"  # Vigil database: writes restricted.quarantine
    PUBLISH = "publish"  # Vigil database: owns what lies in schema published
    GOVERN = "govern"  # Vigil database: appends to governance
    READ = "read"  # Vigil database: reads the published views and governance


class Settings(BaseSettings):
    """Everything a person may set, by environment variable ``VIGIL_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="VIGIL_", extra="ignore", frozen=True)

    home: Path = Field(Path(".vigil"), description="the one directory that holds all state")
    data: Path | None = Field(None, description="event log, token stores, runs and reports; default HOME/data")
    event_log: str | None = Field(None, description="where the event log lies: a directory, or s3://bucket/prefix")
    s3_endpoint: str | None = Field(None, description="URL of an S3-compatible store that is not AWS")
    embedded: bool = Field(False, description="true on the one-machine stack; allows review by policy")

    hospital: str = Field("demo", description="name of the hospital, shown to people")
    source: str = Field(
        "omop", description="the EHR schema: a folder of ml/sources, or the dotted path of a package of your own"
    )
    source_schema: str = Field("ehr", description="Postgres schema of the EHR tables")

    load_dsn: SecretStr | None = None
    extract_dsn: SecretStr | None = None
    truth_dsn: SecretStr | None = None
    migrate_dsn: SecretStr | None = None
    quality_dsn: SecretStr | None = None
    publish_dsn: SecretStr | None = None
    govern_dsn: SecretStr | None = None
    read_dsn: SecretStr | None = None

    pseudonym_key: SecretStr | None = Field(None, description="HMAC key of the published pseudonyms")
    split_salt: str = Field("vigil-split-1", description="salt of the patient split; never change it on a live site")
    omop_codes: Literal["source", "standard"] = Field(
        "source", description="OMOP events carry the code as recorded, or the standard concept it maps to"
    )
    icd9_to_icd10: bool = Field(False, description="map ICD-9-CM codes to ICD-10-CM by the GEMs while extracting")
    streams: int = Field(2, ge=1, le=16, description="connections that read the source at once")
    shards: int = Field(4, ge=1, le=256, description="number of subject shards; divides 256")
    batch_rows: int = Field(65_536, ge=1, description="rows held at once while a source is read")

    tasks: tuple[str, ...] = Field(
        ("death", "heart_failure", "stroke", "type_2_diabetes"), description="names of files in ml/cohorts/tasks"
    )
    task_folder: Path | None = Field(None, description="folder of a hospital's own task files, beside Vigil's")
    index_days: int = Field(5, ge=2, description="number of index days, one every index_step days before as_of")
    index_step: int = Field(365, ge=1, description="days between two index days, and before as_of")
    preset: str = Field("night", description="model and training preset: a file of ml/models/presets")
    threads: int = Field(os.cpu_count() or 1, ge=1, description="CPU threads of training and scoring")
    seed: int = Field(20_240_101, description="seed of the demo hospital, training and the bootstrap")
    training_minutes: float | None = Field(None, gt=0, description="a stage of training ends after this time")
    training_processes: int = Field(1, ge=1, description="processes that share a step of training, as GPUs do")
    compile: bool = Field(False, description="compile the encoder's layers before training on a GPU")
    checkpoint_seconds: float | None = Field(60.0, ge=0, description="time between two checkpoints; null for none")
    search_share: float = Field(0.25, gt=0, le=1, description="share of the budgets that a trial of a search spends")
    gpu_slots: int = Field(1, ge=1, description="trainings at once: slots of Airflow's pool gpu")
    bootstrap: int = Field(500, ge=50, description="bootstrap draws over patients behind each interval")

    min_cell: int = Field(11, ge=1, description="no published count is below this")
    review: Literal["human", "auto"] = Field("human", description="who lets a model through")
    review_days: int = Field(14, ge=1, description="days after which a decision expires")
    requester: str = Field("retraining", description="name under which the DAG asks for a decision")
    gate_difference: float = Field(-0.01, description="lower bound of the paired AUROC difference to the champion")
    gate_events: int = Field(50, ge=1, description="held-out events per outcome that a model must be judged on")
    gate_baselines: bool = Field(False, description="refuse a model that is not above the baselines, not only say so")

    surveillance_ratio: float = Field(
        1.2, gt=1, description="an interval of observed over expected events beyond it or its inverse raises an alert"
    )
    surveillance_auroc: float = Field(
        0.02, ge=0, description="an AUROC whose upper bound is so far below the one at approval raises an alert"
    )

    mlflow_tracking_uri: str = Field("http://127.0.0.1:5000", description="the MLflow server")
    model_name: str = Field("vigil-risk", description="name of the registered model")
    airflow_url: str = Field("http://127.0.0.1:8080", description="the Airflow server")
    calendar_end: date | None = Field(None, description="no night is scheduled after this day; unset in production")

    demo_patients: int = Field(20_000, ge=100, description="size of the demo hospital")
    demo_preset: Literal["general", "pancreas"] = Field(
        "general", description="pancreas: enriched to people of 45 and older with pancreatic cancer"
    )

    @property
    def data_dir(self) -> Path:
        """Directory of everything computed from patients; absolute."""
        return (self.data or self.home / "data").absolute()

    def dsn(self, role: Role) -> str:
        """Connection string of a role.

        Raises:
            ConfigError: the setting is absent.
        """
        value: SecretStr | None = getattr(self, f"{role.value}_dsn")
        if value is None:
            raise ConfigError(
                f"no connection string for the role '{role.value}'",
                f"set VIGIL_{role.value.upper()}_DSN, or start the embedded stack with 'make up'",
            )
        return value.get_secret_value()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = Path(os.environ.get("VIGIL_HOME", ".vigil")) / "vigil.env"
        return init_settings, env_settings, DotEnvSettingsSource(settings_cls, env_file=file)


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process-wide settings; ``get_settings.cache_clear()`` rereads them (tests do).

    Raises:
        ConfigError: a value does not parse. The value itself is not shown, it may be a secret.
    """
    try:
        found = Settings()
    except ValidationError as error:
        names = ", ".join(f"VIGIL_{'_'.join(map(str, e['loc'])).upper()} ({e['msg']})" for e in error.errors())
        raise ConfigError(f"invalid settings: {names}", "correct the environment or vigil.env") from None
    return found.model_copy(update={"home": found.home.absolute()})


@contextmanager
def other_settings(**changes: object) -> Iterator[Settings]:
    """Some settings changed within the block, for this process and its children; then the environment is as before.

    Args:
        changes: values by name of the field.

    Raises:
        ConfigError: a value does not parse.
    """
    before = dict(os.environ)
    for name, value in changes.items():
        text = json.dumps(value) if isinstance(value, list | tuple) else str(value)
        os.environ[f"VIGIL_{name.upper()}"] = text
    get_settings.cache_clear()
    try:
        yield get_settings()
    finally:
        for name in changes:
            key = f"VIGIL_{name.upper()}"
            if key in before:
                os.environ[key] = before[key]
            else:
                del os.environ[key]
        get_settings.cache_clear()
