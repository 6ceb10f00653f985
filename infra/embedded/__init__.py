"""The one-machine stack: Postgres, MLflow and Airflow as daemons of one state directory.

In comes a directory (``VIGIL_HOME``); out come running, healthy servers, their secrets and ports kept in that
directory, and ``vigil.env``, from which ``ml.settings`` reads how to reach them.
"""
