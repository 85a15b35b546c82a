"""The recorder: lines a payload writes become rows of sealed Parquet segments, each once.

`lines` reads one line, `sources` follows the files a payload writes to, `segments` seals rows
together with the place they were read up to, `recorder` puts these together, and `merging`
makes the capsule's two tables.
"""
