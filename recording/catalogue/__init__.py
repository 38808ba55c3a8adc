"""The catalogue: Parquet files beside the segments of a bucket, by which a fleet is searched (docs/formats/catalogue.md).

What lives here: its tables, how their rows come about from segments, writing and asking them. What must not: how bytes reach a
bucket, presentation. Everything here needs the `fleet` extra; nothing of it is imported by what records.
"""
