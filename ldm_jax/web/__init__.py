"""Drawing over HTTP: the page, its JSON API, and the community's API under `/sdapi/v1/`.

`python -m ldm_jax.web --models=FOLDER --out=DIR` starts it. One thread owns JAX (`worker.py`); the
threads and coroutines that answer HTTP only read what it tells and put jobs into its queue.
"""
