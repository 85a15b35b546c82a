"""Inputs and outputs travel: one way in, one way out, behind four kinds of URI.

Inputs come from ``file://``, ``https://``, ``s3://`` and ``capsule://<tenant>/<id>/<output>``
into the attempt's input folder before it starts: see `staging`. Outputs with a target go to
``file://`` and ``s3://`` under their final names only once the capsule is sealed: see
`delivery`.
"""
