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
        drawn = sum(job.pictures_done for job in house.worker.jobs())
        house.worker.close()
        return f"{drawn} pictures were drawn lately; those in {arguments.out} are whole"

    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    port = socket.getsockname()[1]
    count = len(house.models.drawing)
    say(f"ldm_jax.web: {count} models; open http://{host}:{port}/ (Ctrl-C ends it)")
    house.worker.start()
    with at_end(end):
        server.run(sockets=[socket])
