"""The community's API, as AUTOMATIC1111's web UI made it known: `/sdapi/v1/...`.

`fields.py` says what each field of its requests means here, `translation.py` makes requests of
them, `answers.py` says what was drawn in its words, `lists.py` what there is.
"""
