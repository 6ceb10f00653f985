"""Loading: CSV exports and MEDS datasets → Postgres, in one transaction: all or nothing.

In: a directory of CSV files, plain or gzipped, or of Parquet files. Out: tables of a source's layout, ``loads`` (what
was loaded, with the files' digest) and ``rejected_rows`` (each row set aside, with file, line and reason).
"""
