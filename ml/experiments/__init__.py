"""The papers' experiments, each one command, on a demo hospital that the command generates for itself.

A hospital's own tables, log and models have no part in it. What is finished is kept in
``data/experiments/<name>/<digest of the set-up>/``, so that a rerun goes on where the last one ended.
"""
