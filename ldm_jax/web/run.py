"""Running the server until a signal ends it."""

import logging

from ldm_jax.core.output import say
from ldm_jax.core.signals import at_end
from ldm_jax.web.app import make_app, make_house
from ldm_jax.web.arguments import Arguments
from ldm_jax.web.gallery import Gallery
from ldm_jax.web.model_list import ModelList
from ldm_jax.web.serving import listen, make_server


def run(arguments: Arguments) -> None:
    """Answers until a signal ends the process, or the server fails.

    Raises ConfigError, NotWritable: models that do not exist, a folder that cannot be written to,
    an address that is taken.
    """
    logging.basicConfig(format="ldm_jax.web: %(message)s")
    models = ModelList(arguments.models)
    socket = listen(arguments.host, arguments.port)
    house = make_house(models, Gallery(arguments.out), arguments.limits)
    server = make_server(make_app(house, arguments), arguments.limits)

    def end() -> str:
        server.should_exit = True
        house.worker.close()
        drawn = _counted(house.worker.pictures_drawn, "picture")
        return f"{drawn} drawn since the start; all in {arguments.out} are whole"

    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    port = socket.getsockname()[1]
    count = len(house.models.drawing)
    if not count:
        folders = ", ".join(map(str, arguments.models))
        say(f"ldm_jax.web: warning: there is no model in {folders}; one that is put there later "
            "is found by itself")  # fmt: skip
    say(f"ldm_jax.web: {_counted(count, 'model')}; open http://{host}:{port}/ (Ctrl-C ends it)")
    house.worker.start()
    with at_end(end):
        server.run(sockets=[socket])


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
