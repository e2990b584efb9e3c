"""python -m tag_service: serves."""

import service_runtime.quick_start  # noqa: F401, I001 - first

from service_runtime.server import run
from service_runtime.settings import from_environment
from tag_service.bootstrap import tag_service
from tag_service.settings import TagSettings


def main() -> None:
    """Serves until the process is told to stop."""
    settings = from_environment(TagSettings)
    run("tag_service", settings.tag_service_listen, settings, tag_service)


if __name__ == "__main__":
    main()
