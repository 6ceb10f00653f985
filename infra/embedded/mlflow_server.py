"""The MLflow server as one process: ``python -m infra.embedded.mlflow_server``.

``mlflow server`` keeps a second process of the same size alive and imports everything twice; this runs the
application it would run, with the settings it would hand over.
"""

from __future__ import annotations

import os
import sys


def main(arguments: list[str]) -> None:
    """Serve on 127.0.0.1.

    Args:
        arguments: port and directory of the artifacts; ``MLFLOW_BACKEND_STORE_URI`` names the database.
    """
    port, artifacts = int(arguments[0]), arguments[1]
    from mlflow import server

    uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
    os.environ[server.BACKEND_STORE_URI_ENV_VAR] = uri
    os.environ[server.ARTIFACT_ROOT_ENV_VAR] = "mlflow-artifacts:/"
    os.environ[server.ARTIFACTS_DESTINATION_ENV_VAR] = artifacts
    os.environ[server.SERVE_ARTIFACTS_ENV_VAR] = "true"

    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(uri, None, "mlflow-artifacts:/")

    import uvicorn

    uvicorn.run("mlflow.server.fastapi_app:app", host="127.0.0.1", port=port, workers=1, access_log=False)


if __name__ == "__main__":
    main(sys.argv[1:])
